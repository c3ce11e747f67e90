"""The encoder of a transformer, for sequences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from masksweep.strategies.errors import require
from masksweep.strategies.registry import register
from masksweep.sweeps.components.attention import add, attention, feed_forward, layer_norm
from masksweep.sweeps.components.models.base import Model


@register
@dataclass(frozen=True)
class Transformer(Model):
    """The encoder of a transformer: blocks such as `block_1_attention`, and `output`.

    As in the paper, the inputs are scaled by `sqrt(dim)`, sines and cosines of the position are
    added to them, and layer normalization comes after each residual connection. The paper's
    dropout is left out. `output` reads the mean over all steps.

    Reference:
        https://arxiv.org/abs/1706.03762

    Example:
        >>> model = Transformer(vocabulary=100).build((20,), 3)
        >>> list(model.get_layer("tokens").embeddings.shape)
        [100, 64]
    """

    name: ClassVar[str] = "transformer"
    vocabulary: int | None = None
    """Number of tokens: a sample is then `[steps]` with numbers from 0 to `vocabulary - 1`. With
    null, a sample is `[steps]` or `[steps, features]` with any numbers."""
    depth: int = 2
    """Number of blocks."""
    heads: int = 4
    dim: int = 64
    """Width of the vectors between the blocks; an even multiple of `heads`."""

    def __post_init__(self) -> None:
        for key in ("depth", "heads"):
            require(getattr(self, key) >= 1, key, getattr(self, key), "1 or more")
        fits = self.dim >= 2 and self.dim % self.heads == 0 and self.dim % 2 == 0
        require(fits, "dim", self.dim, f"even, and a multiple of heads, {self.heads}")
        fits = self.vocabulary is None or self.vocabulary >= 1
        require(fits, "vocabulary", self.vocabulary, "1 or more, or null")

    def network(self, inputs: tuple[int, ...], outputs: int) -> Any:
        import keras

        start = keras.Input(inputs)
        y = self._vectors(start)
        for number in range(1, self.depth + 1):
            name = f"block_{number}"
            change = attention(y, self.heads, f"{name}_attention", _initializer)
            y = layer_norm(add(y, change, f"{name}_add_1"), f"{name}_norm_1")
            change = feed_forward(y, "relu", name, _initializer)
            y = layer_norm(add(y, change, f"{name}_add_2"), f"{name}_norm_2")
        y = keras.layers.GlobalAveragePooling1D(name="pool")(y)
        output = keras.layers.Dense(outputs, name="output")(y)
        return keras.Model(start, output, name="transformer")

    def _vectors(self, y: Any) -> Any:
        """Adds the vectors of the inputs and of their positions, `[batch, steps, dim]`."""
        import keras

        inputs = tuple(y.shape[1:])
        if self.vocabulary is not None:
            allowed = "a sequence [steps] of tokens, with a vocabulary"
            require(len(inputs) == 1, "inputs", inputs, allowed)
            y = keras.layers.Embedding(self.vocabulary, self.dim, name="tokens")(y)
        else:
            allowed = "a sequence [steps] or [steps, features]"
            require(len(inputs) in (1, 2), "inputs", inputs, allowed)
            if len(inputs) == 1:
                y = keras.layers.Reshape(self.as_sequence(inputs), name="sequence")(y)
            y = keras.layers.Dense(self.dim, name="vectors")(y)
        # Rescaling adds a constant array, and is a layer of Keras, so a saved model opens anywhere
        waves = positions(inputs[0], self.dim).tolist()
        return keras.layers.Rescaling(self.dim**0.5, waves, name="positions")(y)


def positions(steps: int, dim: int) -> np.ndarray:
    """Returns the sines and cosines that tell the steps of a sequence apart.

    `[t, 2 i]` is `sin(t / 10000^(2 i / dim))`, and `[t, 2 i + 1]` is the cosine.

    Args:
        steps: Number of steps.
        dim: Width of the vectors; even.

    Returns:
        `[steps, dim]`, float64.

    Reference:
        https://arxiv.org/abs/1706.03762, section 3.5

    Example:
        >>> positions(2, 4).round(2).tolist()
        [[0.0, 1.0, 0.0, 1.0], [0.84, 0.54, 0.01, 1.0]]
    """
    angles = np.arange(steps)[:, None] / 10000 ** (np.arange(0, dim, 2) / dim)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(steps, dim)


def _initializer() -> Any:
    """Returns a new initializer, Keras' default. The paper says nothing about initial values."""
    import keras

    return keras.initializers.GlorotUniform()
