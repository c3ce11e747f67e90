"""The `causal` pattern: convolution kernels that see only what comes before (PixelCNN)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from masksweep.strategies.errors import require
from masksweep.strategies.patterns.base import Pattern, Shapes
from masksweep.strategies.plan import Mask
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Causal(Pattern):
    """The part of the window after its center is masked, in the order of reading, as in PixelCNN.

    With `kind="A"`, the center is masked too: use it for the first layer. With `kind="B"`, the
    center is kept: use it for all later layers. Then output `i` of a stack of convolutions depends
    on the inputs before `i` only.

    For kernels `[*window, channels, filters]` of layers with `padding="same"`, strides 1 and no
    dilation. The center is the entry that such a layer puts on the output's own place. The order of
    reading is row by row. All kernels are targeted by default, with the last one. Weights with
    fewer than three axes are kept whole. The seed is ignored.

    Raises:
        Invalid: `kind` is neither `A` nor `B`.

    Example:
        >>> mask = Causal("A").masks({"conv/kernel": (3, 3, 1, 8)}, seed=0)["conv/kernel"]
        >>> mask[:, :, 0, 0].astype(int)
        array([[1, 1, 1],
               [1, 0, 0],
               [0, 0, 0]])

    Reference:
        Van den Oord et al., Pixel Recurrent Neural Networks, ICML 2016, arXiv:1601.06759.
    """

    name: ClassVar[str] = "causal"
    default_targets: ClassVar[Sequence[str]] = ("*kernel",)
    kind: Literal["A", "B"] = "B"
    """`A` masks the center of the window, `B` keeps it."""

    def __post_init__(self) -> None:
        require(self.kind in ("A", "B"), "kind", self.kind, "A or B")

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        masks_by_name = {}
        for name, shape in shapes.items():
            masks_by_name[name] = np.ones(shape, bool)
            window = shape[:-2]
            if window:
                center = np.ravel_multi_index([(size - 1) // 2 for size in window], window)
                kept = np.arange(np.prod(window)) < center + (self.kind == "B")
                masks_by_name[name] &= kept.reshape(*window, 1, 1)
        return masks_by_name
