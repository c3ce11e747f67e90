"""A small vision transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from masksweep.strategies.errors import require
from masksweep.strategies.registry import register
from masksweep.sweeps.components.attention import add, attention, feed_forward, layer_norm
from masksweep.sweeps.components.models.base import Model, require_image


@register
@dataclass(frozen=True)
class ViTTiny(Model):
    """A vision transformer: `patches`, blocks such as `block_1_attention`, `norm` and `output`.

    The defaults are those of DeiT-Ti (Touvron et al. 2021), but for the size of the patches: its
    images have 224 x 224 pixels, and its patches 16 x 16. `patches/bias` is `[patches + 1, dim]`:
    its first row is the class token, the others are the learned positions. DeiT has these in three
    arrays, whose sum is used: the class token, the positions, and the bias of the patches. So this
    model has `2 * dim` weights less and computes the same.

    Reference:
        https://arxiv.org/abs/2012.12877, https://arxiv.org/abs/2010.11929

    Example:
        >>> model = ViTTiny(depth=1, dim=32, heads=2).build((32, 32, 3), 10)
        >>> list(model.get_layer("patches").bias.shape)
        [65, 32]
    """

    name: ClassVar[str] = "vit_tiny"
    patch: int = 4
    """Height and width of a patch in pixels."""
    depth: int = 12
    """Number of blocks."""
    heads: int = 3
    dim: int = 192
    """Width of the vectors between the blocks; a multiple of `heads`."""

    def __post_init__(self) -> None:
        for key in ("patch", "depth", "heads"):
            require(getattr(self, key) >= 1, key, getattr(self, key), "1 or more")
        fits = self.dim >= 1 and self.dim % self.heads == 0
        require(fits, "dim", self.dim, f"a multiple of heads, {self.heads}")

    def network(self, inputs: tuple[int, ...], outputs: int) -> Any:
        import keras

        require_image(inputs, self.patch)
        height, width, _ = inputs
        fits = height % self.patch == 0 and width % self.patch == 0
        require(fits, "patch", self.patch, f"a divisor of the image's {height} x {width} pixels")
        image = keras.Input(inputs)
        y = self._tokens(image)
        for number in range(1, self.depth + 1):
            name = f"block_{number}"
            change = layer_norm(y, f"{name}_norm_1")
            change = attention(change, self.heads, f"{name}_attention", _initializer)
            y = add(y, change, f"{name}_add_1")
            change = layer_norm(y, f"{name}_norm_2")
            change = feed_forward(change, "gelu", name, _initializer)
            y = add(y, change, f"{name}_add_2")
        y = layer_norm(y, "norm")
        others = y.shape[1] - 1
        y = keras.layers.Cropping1D((0, others), name="class_token")(y)
        y = keras.layers.Flatten(name="flatten")(y)
        output = keras.layers.Dense(outputs, kernel_initializer=_initializer(), name="output")(y)
        return keras.Model(image, output, name="vit_tiny")

    def _tokens(self, image: Any) -> Any:
        """Adds the class token and the projected patches, `[batch, patches + 1, dim]`."""
        import keras

        _, height, width, channels = image.shape
        rows, columns = height // self.patch, width // self.patch
        split = (rows, self.patch, columns, self.patch, channels)
        y = keras.layers.Reshape(split, name="split")(image)
        y = keras.layers.Permute((1, 3, 2, 4, 5), name="by_patch")(y)
        y = keras.layers.Reshape((rows * columns, self.patch**2 * channels), name="pixels")(y)
        # a patch of zeros in front: what the layer makes of it is its bias alone
        y = keras.layers.ZeroPadding1D((1, 0), name="add_token")(y)
        return keras.layers.EinsumDense(
            "btp,pd->btd",
            (rows * columns + 1, self.dim),
            bias_axes="td",
            kernel_initializer=_initializer(),
            bias_initializer=_initializer(),
            name="patches",
        )(y)


def _initializer() -> Any:
    """Returns a new initializer, as in DeiT."""
    import keras

    return keras.initializers.TruncatedNormal(stddev=0.02)
