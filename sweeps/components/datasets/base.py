"""The base class of data sets, and what they load."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from masksweep.strategies.base import require
from masksweep.sweeps.common.seeding import permutation

Task = Literal["classification", "regression"]


Split = tuple[NDArray[np.float32], NDArray[Any]]
"""Inputs `[samples, *shape]` float32, targets `[samples]` int32 or `[samples, outputs]` float32."""


@dataclass(frozen=True)
class Arrays:
    """A data set in memory, in three parts that share no sample."""

    name: str
    task: Task
    outputs: int
    train: Split
    validation: Split | None
    test: Split

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.train[0].shape[1:])

    def described(self) -> dict[str, Any]:
        """The training part: name, SHA-256, and the shapes of its arrays."""
        sha = hashlib.sha256()
        for array in self.train:
            sha.update(np.ascontiguousarray(array).tobytes())
        features, targets = (list(a.shape) for a in self.train)
        return {
            "name": self.name,
            "sha256": sha.hexdigest(),
            "features": features,
            "targets": targets,
        }


@dataclass(frozen=True)
class DataSet:
    """A data set by name. Subclasses say where the samples come from."""

    name: ClassVar[str]
    task: ClassVar[Task] = "classification"
    standardised: ClassVar[bool] = True
    """Whether a regression's inputs and targets get mean 0 and deviation 1."""
    validation: float = 0.1
    """Fraction of the training part that is set aside; the same samples for every seed."""

    def __post_init__(self) -> None:
        require(0 <= self.validation < 1, "validation", self.validation, "a number in [0, 1)")

    def samples(self) -> tuple[Split, Split]:
        """(training with validation, test)."""
        raise NotImplementedError

    def load(self) -> Arrays:
        """The data set in three parts. Cached for the life of the process."""
        return _load(self)


@cache
def _load(data: DataSet) -> Arrays:
    (x, y), test = data.samples()
    order = permutation(len(x), 0, f"validation/{data.name}")
    aside = round(data.validation * len(x))
    # the rest keeps its own order: published results depend on it
    train, validation = np.sort(order[aside:]), np.sort(order[:aside])
    parts = {"train": (x[train], y[train]), "validation": (x[validation], y[validation])}
    parts["test"] = test
    if data.task == "regression" and data.standardised:
        # by the training part alone: the others must stay unseen
        scale = [(a.mean(axis=0), a.std(axis=0)) for a in parts["train"]]
        for name, (inputs, targets) in parts.items():
            (x_mean, x_std), (y_mean, y_std) = scale
            parts[name] = ((inputs - x_mean) / x_std, (targets - y_mean) / y_std)
    return Arrays(
        name=data.name,
        task=data.task,
        outputs=int(y.max()) + 1 if data.task == "classification" else int(y.shape[1]),
        train=parts["train"],
        validation=parts["validation"] if aside else None,
        test=parts["test"],
    )


def hold_out(x: NDArray[np.float32], y: NDArray[Any], name: str) -> tuple[Split, Split]:
    """Set a fifth aside for the test, the same samples always."""
    order = permutation(len(x), 0, f"test/{name}")
    fifth = len(x) // 5
    return (x[order[fifth:]], y[order[fifth:]]), (x[order[:fifth]], y[order[:fifth]])
