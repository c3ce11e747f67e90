"""Values from a `.npz` file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.base import Array, require
from masksweep.strategies.core.npz import read_arrays
from masksweep.strategies.held.base import Held
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class File(Held):
    """An array from a `.npz` file, by weight name."""

    name: ClassVar[str] = "file"
    path: str = ""

    def __post_init__(self) -> None:
        require(bool(self.path), "path", self.path, "a .npz file with values for each target")
        read_arrays(self.path)

    def values(self, initial: Mapping[str, Array]) -> dict[str, Array]:
        arrays = read_arrays(self.path)
        missing = [n for n in initial if n not in arrays]
        require(
            not missing,
            "path",
            self.path,
            f"a file with values for {', '.join(missing)}; it has {', '.join(arrays)}",
        )
        made = {}
        for name, start in initial.items():
            found = arrays[name]
            fits = found.shape == start.shape and found.dtype.kind in "buif"
            require(
                fits,
                name,
                f"{found.dtype} of shape {found.shape}",
                f"numbers of shape {start.shape}",
            )
            with np.errstate(over="ignore"):
                made[name] = found.astype(start.dtype)
            finite = bool(np.isfinite(made[name]).all())
            require(finite, name, "values", f"finite numbers that a {start.dtype} can hold")
        return made
