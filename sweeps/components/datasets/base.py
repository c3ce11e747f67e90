"""The base class of data sets, and the arrays that a data set loads."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from masksweep.strategies.base import Invalid, require
from masksweep.sweeps.common.seeding import permutation
from masksweep.sweeps.components.datasets.content import REFERENCE, content_digest
from masksweep.sweeps.components.datasets.pipeline import Pipeline
from masksweep.sweeps.components.datasets.samples import check_samples
from masksweep.sweeps.components.datasets.stored_images import StoredImages

Task = Literal["classification", "regression"]


Split = tuple[Any, NDArray[Any]]
"""Inputs `[samples, *shape]` float32, and targets: `[samples]` int32 for classification,
`[samples, outputs]` float32 for regression. Inputs are an array, or `StoredImages`."""


@dataclass(frozen=True)
class Arrays:
    """A data set, split into training, validation and test samples.

    The parts are arrays, or, if the data may be larger than the memory, inputs in a file or
    pipelines.
    """

    name: str
    task: Task
    outputs: int
    """Number of classes, or of target values."""
    train: Split | Pipeline
    validation: Split | Pipeline | None
    test: Split | Pipeline
    deterministic: bool = True
    """Whether each pass over the samples is known to give the same ones in the same order."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        inputs = self.train if isinstance(self.train, Pipeline) else self.train[0]
        return tuple(inputs.shape[1:])

    @property
    def samples(self) -> int:
        """Number of training samples."""
        return len(self.train if isinstance(self.train, Pipeline) else self.train[0])

    @property
    def in_memory(self) -> Split | None:
        """The training samples if they are arrays in memory, else None."""
        if isinstance(self.train, Pipeline) or not isinstance(self.train[0], np.ndarray):
            return None
        return self.train

    def described(self) -> dict[str, Any]:
        """Describes the training part: name, SHA-256 digest and the shapes of its arrays.

        The digest of samples in a file follows from the digest of the file, and that of a pipeline
        from its first samples, so that the whole part need not be read.
        """
        if isinstance(self.train, Pipeline):
            features, targets = list(self.train.shape), [self.samples, *self.train.target_shape]
            described = {"sha256": self.train.sha256, "features": features, "targets": targets}
            return {"name": self.name, **described}
        sha = hashlib.sha256()
        for array in self.train:
            stored = array.sha256.encode() if isinstance(array, StoredImages) else None
            sha.update(stored or np.ascontiguousarray(array).tobytes())
        features, targets = (list(a.shape) for a in self.train)
        return {
            "name": self.name,
            "sha256": sha.hexdigest(),
            "features": features,
            "targets": targets,
        }


@dataclass(frozen=True)
class DataSet:
    """The base class of data sets. Subclasses are frozen dataclasses that implement `samples`.

    A setting called `path` names a file or folder with the data. Its content belongs to the
    identity of a trial.
    """

    name: ClassVar[str]
    task: ClassVar[Task] = "classification"
    standardised: ClassVar[bool | None] = None
    """Whether the inputs, and the targets of a regression, are scaled to mean 0 and deviation 1.
    None: for a regression only."""
    outputs: ClassVar[int | None] = None
    """Number of classes, needed for a `tf.data.Dataset` only."""
    deterministic: ClassVar[bool] = False
    """Whether each pass over a `tf.data.Dataset` gives the same samples in the same order. Set it
    if you know that. A trial can then be resumed to the same bits."""
    validation: float = 0.1
    """Fraction of the training part used for validation: the same samples for every seed."""

    def __post_init__(self) -> None:
        require(0 <= self.validation < 1, "validation", self.validation, "a number in [0, 1)")

    def samples(self) -> tuple[Any, Any]:
        """Returns the samples for training and validation, and the samples for the test.

        Each is a pair of arrays (see `Split`) or, for data that are larger than the memory, a
        `tf.data.Dataset` of single samples whose number is known (`Dataset.cardinality`). In the
        latter case a classification sets `outputs`, `standardised` is False, and validation samples
        come from `own_validation`.
        """
        raise NotImplementedError

    def own_validation(self) -> Any:
        """Returns the validation samples, if they are not a fraction of the training samples."""
        return None

    @property
    def is_standardised(self) -> bool:
        """Whether inputs, and the targets of a regression, are scaled; see `standardised`."""
        return self.task == "regression" if self.standardised is None else self.standardised

    @cached_property
    def digest(self) -> str | None:
        """SHA-256 of the content of `path`; None if the data set has no file.

        Raises:
            Invalid: (key `path`) There is no such file.
        """
        path = getattr(self, "path", None)
        return content_digest(path) if path else None

    @property
    def is_elsewhere(self) -> bool:
        """Whether the digest of the data is known, but not where they are."""
        return bool(REFERENCE.fullmatch(getattr(self, "path", None) or ""))

    def load(self) -> Arrays:
        """Returns the data set in three parts. Cached for the life of the process.

        Raises:
            Invalid: The data cannot be read, or have values that are not allowed.
        """
        try:
            if self.is_elsewhere:
                raise Invalid("path", getattr(self, "path", ""), "must be the path of these data")
            return _load(self, self.digest)
        except Invalid as error:
            if not error.key:  # the data themselves, not a setting
                raise Invalid("data", self.name, error.allowed) from error
            raise Invalid(f"data.{error.key}", error.value, error.allowed) from error


@cache
def _load(data: DataSet, content: str | None) -> Arrays:
    """Loads a data set; `content` is its digest, so that a changed file is read again."""
    training, test = data.samples()
    own_validation = data.own_validation()
    if not isinstance(training, tuple):
        return _pipelines(data, training, own_validation, test)
    check_samples(data.task, {"training": training, "validation": own_validation, "test": test})
    x, y = training
    order = permutation(len(x), 0, f"validation/{data.name}")
    validation_size = 0 if own_validation else round(data.validation * len(x))
    # sorted, so that samples keep their order: published results depend on it
    train, validation = np.sort(order[validation_size:]), np.sort(order[:validation_size])
    take: Any = x.subset if isinstance(x, StoredImages) else x.__getitem__
    parts: dict[str, Split] = {
        "train": (take(train), y[train]),
        "validation": (take(validation), y[validation]),
    }
    if own_validation:
        parts["validation"] = own_validation
    parts["test"] = test
    if data.is_standardised:
        # the scale comes from the training part only, so that no information leaks from the others
        (x_mean, x_std), (y_mean, y_std) = (_scale(array) for array in parts["train"])
        for name, (inputs, targets) in parts.items():
            scaled = (targets - y_mean) / y_std if data.task == "regression" else targets
            parts[name] = ((inputs - x_mean) / x_std, scaled)
    return Arrays(
        name=data.name,
        task=data.task,
        outputs=int(y.max()) + 1 if data.task == "classification" else int(y.shape[1]),
        train=parts["train"],
        validation=parts["validation"] if validation_size or own_validation else None,
        test=parts["test"],
    )


def _pipelines(data: DataSet, training: Any, validation: Any, test: Any) -> Arrays:
    """The parts of a data set that come from `tf.data.Dataset`."""
    allowed = "not with a tf.data.Dataset"
    if data.is_standardised:
        raise Invalid("name", data.name, f"must set standardised = False: scaling is {allowed}")
    if data.validation and validation is None:
        hint = "return the samples from own_validation, or set it to 0"
        raise Invalid("validation", data.validation, f"a fraction is {allowed}; {hint}")
    train = Pipeline.of(data, "training", training)
    outputs = data.outputs if train.classify else train.target_shape[0]
    if outputs is None:
        raise Invalid("name", data.name, "must set outputs, the number of classes")
    parts = [Pipeline.of(data, "test", test)]
    if validation is not None:
        parts.append(Pipeline.of(data, "validation", validation))
    for part in parts:
        if part.shape[1:] != train.shape[1:] or part.target_shape != train.target_shape:
            raise Invalid("name", data.name, "must have samples of one shape in all of its parts")
    own = parts[1] if len(parts) == 2 else None
    return Arrays(data.name, data.task, outputs, train, own, parts[0], data.deterministic)


def _scale(array: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Returns mean and deviation over the samples; 1 where the deviation is 0."""
    deviation = array.std(axis=0)
    return array.mean(axis=0), np.where(deviation == 0, np.ones_like(deviation), deviation)


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
