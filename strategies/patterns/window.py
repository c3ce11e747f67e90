"""The `window` pattern: the same places of the window for all channels of a convolution."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from masksweep.strategies.errors import require
from masksweep.strategies.patterns.base import Pattern, Shapes
from masksweep.strategies.patterns.explicit import to_mask
from masksweep.strategies.plan import Mask
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Window(Pattern):
    """The given places of a convolution's window are kept, in all channels and filters.

    For kernels `[*window, channels, filters]`. Weights with fewer than three axes are kept whole.
    The seed is ignored. For windows of several shapes, give each its own pattern by glob.

    Raises:
        Invalid: No places are given, or a window has another shape.

    Example:
        >>> cross = Window([[0, 1, 0], [1, 1, 1], [0, 1, 0]])
        >>> mask = cross.masks({"conv/kernel": (3, 3, 16, 8)}, seed=0)["conv/kernel"]
        >>> mask.shape, int(mask[:, :, 0, 0].sum())
        ((3, 3, 16, 8), 5)
    """

    name: ClassVar[str] = "window"
    kept: Any = field(default=None)
    """Nested lists of 0 and 1, of the shape of the window. 1 means kept (trains), 0 means masked
    (held)."""

    def __post_init__(self) -> None:
        allowed = "nested lists of 0 and 1, of the shape of the window"
        require(self.kept is not None, "kept", None, allowed)
        if isinstance(self.kept, np.ndarray):  # arrays are not values of a config
            object.__setattr__(self, "kept", self.kept.tolist())

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        masks_by_name = {}
        for name, shape in shapes.items():
            masks_by_name[name] = np.ones(shape, bool)
            if window := shape[:-2]:
                places = to_mask(self.kept, window, f"window of {name}")
                masks_by_name[name] &= places[..., np.newaxis, np.newaxis]
        return masks_by_name
