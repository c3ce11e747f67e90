"""The `file` pattern: masks from a `.npz` file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masksweep.strategies.core.npz import read_arrays, read_weights
from masksweep.strategies.errors import require
from masksweep.strategies.patterns.base import Pattern, Shapes
from masksweep.strategies.patterns.explicit import to_mask
from masksweep.strategies.plan import Mask
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class File(Pattern):
    """Masks of 0 and 1 from a `.npz` file, by weight name (`hidden/kernel`).

    1 means kept (trains), 0 means masked (held). The seed is ignored.

    Raises:
        Invalid: There is no such file, or it cannot be read.
    """

    name: ClassVar[str] = "file"
    path: str = ""
    """Path of the file. It may have more arrays than there are targeted weights."""

    def __post_init__(self) -> None:
        require(bool(self.path), "path", self.path, "a .npz file with a mask for each target")
        read_arrays(self.path)

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        arrays = read_weights(self.path, shapes, "masks")
        return {n: to_mask(arrays[n], s, f"mask of {n}") for n, s in shapes.items()}
