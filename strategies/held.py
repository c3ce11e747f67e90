"""What masked weights must equal. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.base import Array, require
from masksweep.strategies.npz import read_arrays


class Held:
    """Makes the held values from the weights' values before training."""

    name: ClassVar[str]

    def values(self, initial: Mapping[str, Array]) -> dict[str, Array]:
        """Held values by name, in the shapes and dtypes of `initial`.

        Where it is one value for all, a view of that one (`numpy.broadcast_to`).
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Zero(Held):
    """Zero: the connection is removed."""

    name: ClassVar[str] = "zero"

    def values(self, initial: Mapping[str, Array]) -> dict[str, Array]:
        return {n: np.broadcast_to(np.zeros((), a.dtype), a.shape) for n, a in initial.items()}


@dataclass(frozen=True)
class Constant(Held):
    """One constant for all."""

    name: ClassVar[str] = "constant"
    value: float = 0.5

    def __post_init__(self) -> None:
        require(bool(np.isfinite(self.value)), "value", self.value, "a finite number")

    def values(self, initial: Mapping[str, Array]) -> dict[str, Array]:
        with np.errstate(over="ignore"):
            made = {n: np.full((), self.value, a.dtype) for n, a in initial.items()}
        for a in made.values():  # NumPy knows no limits of bfloat16
            require(bool(np.isfinite(a)), "value", self.value, f"a {a.dtype}")
        return {n: np.broadcast_to(made[n], a.shape) for n, a in initial.items()}


@dataclass(frozen=True)
class Init(Held):
    """Its initial value: the weight is frozen."""

    name: ClassVar[str] = "init"

    def values(self, initial: Mapping[str, Array]) -> dict[str, Array]:
        return {n: a.copy() for n, a in initial.items()}


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


KINDS: dict[str, type[Held]] = {c.name: c for c in (Zero, Constant, Init, File)}
