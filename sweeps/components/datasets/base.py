"""The base class of data sets, and the arrays that a data set loads."""

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
"""Inputs `[samples, *shape]` float32, and targets: `[samples]` int32 for classification,
`[samples, outputs]` float32 for regression."""


@dataclass(frozen=True)
class Arrays:
    """A data set in memory, split into training, validation and test samples."""

    name: str
    task: Task
    outputs: int
    """Number of classes, or of target values."""
    train: Split
    validation: Split | None
    test: Split

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return tuple(self.train[0].shape[1:])

    def described(self) -> dict[str, Any]:
        """Describes the training part: name, SHA-256 digest and the shapes of its arrays."""
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
    """The base class of data sets. Subclasses are frozen dataclasses that implement `samples`."""

    name: ClassVar[str]
    task: ClassVar[Task] = "classification"
    standardised: ClassVar[bool] = True
    """Whether the inputs and targets of a regression are scaled to mean 0 and deviation 1."""
    validation: float = 0.1
    """Fraction of the training part used for validation: the same samples for every seed."""

    def __post_init__(self) -> None:
        require(0 <= self.validation < 1, "validation", self.validation, "a number in [0, 1)")

    def samples(self) -> tuple[Split, Split]:
        """Returns the samples for training and validation, and the samples for the test."""
        raise NotImplementedError

    def load(self) -> Arrays:
        """Returns the data set in three parts. Cached for the life of the process."""
        return _load(self)


@cache
def _load(data: DataSet) -> Arrays:
    (x, y), test = data.samples()
    order = permutation(len(x), 0, f"validation/{data.name}")
    validation_size = round(data.validation * len(x))
    # sorted, so that samples keep their order: published results depend on it
    train, validation = np.sort(order[validation_size:]), np.sort(order[:validation_size])
    parts = {"train": (x[train], y[train]), "validation": (x[validation], y[validation])}
    parts["test"] = test
    if data.task == "regression" and data.standardised:
        # the scale comes from the training part only, so that no information leaks from the others
        scale = [(a.mean(axis=0), a.std(axis=0)) for a in parts["train"]]
        for name, (inputs, targets) in parts.items():
            (x_mean, x_std), (y_mean, y_std) = scale
            parts[name] = ((inputs - x_mean) / x_std, (targets - y_mean) / y_std)
    return Arrays(
        name=data.name,
        task=data.task,
        outputs=int(y.max()) + 1 if data.task == "classification" else int(y.shape[1]),
        train=parts["train"],
        validation=parts["validation"] if validation_size else None,
        test=parts["test"],
    )


def hold_out(x: NDArray[np.float32], y: NDArray[Any], name: str) -> tuple[Split, Split]:
    """Splits off a fifth of the samples for the test, always the same ones.

    Args:
        x: Inputs, `[samples, *shape]`.
        y: Targets, `[samples, ...]`.
        name: Name of the data set, which determines the split.

    Returns:
        The training samples and the test samples.
    """
    order = permutation(len(x), 0, f"test/{name}")
    fifth = len(x) // 5
    return (x[order[fifth:]], y[order[fifth:]]), (x[order[:fifth]], y[order[:fifth]])
