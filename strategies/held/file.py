"""The `file` held value: values from a `.npz` file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from masksweep.strategies.core.npz import read_arrays, read_weights
from masksweep.strategies.errors import require
from masksweep.strategies.held.base import Held, as_finite
from masksweep.strategies.plan import Array
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class File(Held):
    """An array from a `.npz` file, by weight name.

    The array must have the shape of the weight. It is cast to the weight's dtype.

    Raises:
        Invalid: There is no such file, or it cannot be read.
    """

    name: ClassVar[str] = "file"
    path: str = ""
    """Path of the file. It may have more arrays than there are targeted weights."""

    def __post_init__(self) -> None:
        require(bool(self.path), "path", self.path, "a .npz file with values for each target")
        read_arrays(self.path)

    def values(self, initial: Mapping[str, Array]) -> dict[str, Array]:
        arrays = read_weights(self.path, initial, "values")
        held_values = {}
        for name, weight in initial.items():
            array = arrays[name]
            valid = array.shape == weight.shape and array.dtype.kind in "buif"
            require(
                valid,
                name,
                f"{array.dtype} of shape {array.shape}",
                f"numbers of shape {weight.shape}",
            )
            held_values[name] = as_finite(name, array, weight.dtype)
        return held_values
