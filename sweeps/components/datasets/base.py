"""The base class of data sets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from masksweep.strategies.errors import Invalid, require
from masksweep.sweeps.common.seeding import permutation
from masksweep.sweeps.components.datasets import named
from masksweep.sweeps.components.datasets.arrays import Arrays, Head, Task
from masksweep.sweeps.components.datasets.content import REFERENCE, content_digest
from masksweep.sweeps.components.datasets.named import Named, Part, Split, Weighted
from masksweep.sweeps.components.datasets.pipeline import CHECKED_SAMPLES, Pipeline
from masksweep.sweeps.components.datasets.samples import (
    check_samples,
    check_values,
    check_weights,
    with_model_types,
)
from masksweep.sweeps.components.datasets.stored_images import StoredImages


@dataclass(frozen=True)
class DataSet:
    """The base class of data sets. Subclasses are frozen dataclasses that implement `samples`.

    A setting called `path` names a file or folder with the data. Its content, of which `digest_of`
    is the digest, belongs to the identity of a trial.
    """

    name: ClassVar[str]
    task: ClassVar[Task] = "classification"
    tasks: ClassVar[Mapping[str, Task]] = {}
    """The task of each output by its name, for a model with several outputs. `task` is then that of
    the first one, whose score is the score of a trial. Empty for one output."""
    standardised: ClassVar[bool | None] = None
    """Whether the inputs, and the targets of regressions, are scaled to mean 0 and deviation 1.
    None: only if a task is a regression."""
    outputs: ClassVar[int | Mapping[str, int] | None] = None
    """Number of classes, or the numbers by the names of several outputs that are classes. Needed
    for a `tf.data.Dataset` only."""
    deterministic: ClassVar[bool] = False
    """Whether each pass over a `tf.data.Dataset` gives the same samples in the same order. Set it
    if you know that. A trial can then be resumed to the same bits."""
    validation: float = 0.1
    """Fraction of the training part used for validation: the same samples for every seed."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if vars(cls).get("tasks"):
            for name in cls.tasks:  # MLflow takes no other names, and metrics have these in theirs
                is_name = re.fullmatch(r"[\w.-]+", name, re.ASCII)
                require(is_name is not None, "tasks", name, "made of letters, digits, _, - and .")
            cls.task = next(iter(cls.tasks.values()))

    def __post_init__(self) -> None:
        require(0 <= self.validation < 1, "validation", self.validation, "a number in [0, 1)")

    def samples(self) -> tuple[Any, Any]:
        """Returns the samples for training and validation, and the samples for the test.

        Each is a pair of arrays (see `Split`) or, for data that are larger than the memory, a
        `tf.data.Dataset` of single samples whose number is known (`Dataset.cardinality`). In the
        latter case a classification sets `outputs`, `standardised` is False, and validation samples
        come from `own_validation`.

        The training samples may be three arrays: the third one has their weights, `[samples]`, as
        `sample_weight` of `keras.Model.fit`. The model then has one output.

        For a model with several inputs or outputs, a dict of arrays by name takes the place of an
        array, also in a `tf.data.Dataset`. The data set sets `tasks` for several outputs.

        Inputs of type uint8 become float32 with the same values, as in `keras.Model.fit`. Classes
        of another type than int32 and int64 become int32.
        """
        raise NotImplementedError

    def own_validation(self) -> Any:
        """Returns the validation samples, if they are not a fraction of the training samples."""
        return None

    @property
    def has_validation(self) -> bool:
        """Whether there are validation samples, as far as is known before they are loaded. A data
        set whose `own_validation` may return None says here whether it does."""
        is_own = type(self).own_validation is not DataSet.own_validation
        return self.validation > 0 or is_own

    @property
    def all_tasks(self) -> Mapping[str, Task]:
        """The task of each output by its name, which is empty for one output."""
        return self.tasks or {"": self.task}

    @property
    def is_standardised(self) -> bool:
        """Whether inputs, and the targets of regressions, are scaled; see `standardised`."""
        if self.standardised is None:
            return "regression" in self.all_tasks.values()
        return self.standardised

    @cached_property
    def digest(self) -> str | None:
        """SHA-256 of the content of `path`; None if the data set has no file. A data set whose
        content depends on what is installed returns that of the content.

        Raises:
            Invalid: (key `path`) There is no such file.
        """
        path = getattr(self, "path", None)
        if not path:
            return None
        return reference[1] if (reference := REFERENCE.fullmatch(path)) else self.digest_of(path)

    @classmethod
    def digest_of(cls, path: str) -> str:
        """Returns the SHA-256 of the data at a path: of a file, or of all files in a folder.

        Args:
            path: A value of the setting `path`.

        Raises:
            Invalid: (key `path`) There is no such file or folder.
        """
        return content_digest(path)

    @property
    def is_elsewhere(self) -> bool:
        """Whether the digest of the data is known, but not where they are."""
        return bool(REFERENCE.fullmatch(getattr(self, "path", None) or ""))

    def load(self) -> Arrays:
        """Returns the data set in three parts. The process keeps those that were used last.

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


@lru_cache(maxsize=8)  # a data set can take a large part of the memory
def _load(data: DataSet, content: str | None) -> Arrays:
    """Loads a data set; `content` is its digest, so that a changed file is read again."""
    training, test = data.samples()
    own_validation = data.own_validation()
    if not isinstance(training, tuple):
        return _pipelines(data, training, own_validation, test)
    tasks: Any = dict(data.tasks) or data.task
    x, y, *weights = training
    check_samples(tasks, {"training": (x, y), "validation": own_validation, "test": test})
    count = named.count(x)
    order = permutation(count, 0, f"validation/{data.name}")
    validation_size = 0 if own_validation else round(data.validation * count)
    # sorted, so that samples keep their order: published results depend on it
    train, validation = np.sort(order[validation_size:]), np.sort(order[:validation_size])
    parts: dict[str, Split] = {
        name: (
            x.subset(rows) if isinstance(x, StoredImages) else named.take(x, rows),
            named.take(y, rows),
        )
        for name, rows in (("train", train), ("validation", validation))
    }
    if own_validation:
        parts["validation"] = own_validation
    parts["test"] = test
    parts = {name: with_model_types(tasks, split) for name, split in parts.items()}
    if data.is_standardised:
        # the scale comes from the training part only, so that no information leaks from the others
        x_scale, y_scale = (named.map_arrays(_scale, part) for part in parts["train"])
        for name, (inputs, targets) in parts.items():
            parts[name] = _scaled(inputs, x_scale), _scaled_targets(tasks, targets, y_scale)
    if weights:
        if data.tasks:
            raise Invalid("", "", "has sample weights, which need a model with one output")
        of_train = check_weights(count, *weights)[train]
        if len(train) and not of_train.any():
            raise Invalid("", "", "has no training sample with a sample weight above 0")
        parts["train"] = parts["train"][0], Weighted(parts["train"][1], of_train)
    if isinstance(tasks, dict):
        heads = Named({n: Head(task, _output_count(task, y[n])) for n, task in tasks.items()})
        outputs = next(iter(heads.values())).outputs
    else:
        heads, outputs = None, _output_count(tasks, y)
    return Arrays(
        name=data.name,
        task=data.task,
        outputs=outputs,
        train=parts["train"],
        validation=parts["validation"] if validation_size or own_validation else None,
        test=parts["test"],
        heads=heads,
    )


def _output_count(task: Task, targets: NDArray[Any]) -> int:
    return int(targets.max()) + 1 if task == "classification" else int(targets.shape[1])


def _pipelines(data: DataSet, training: Any, validation: Any, test: Any) -> Arrays:
    """The parts of a data set that come from `tf.data.Dataset`."""
    allowed = "not with a tf.data.Dataset"
    if data.is_standardised:
        raise Invalid("name", data.name, f"must set standardised = False: scaling is {allowed}")
    if data.validation and validation is None:
        hint = "return the samples from own_validation, or set it to 0"
        raise Invalid("validation", data.validation, f"a fraction is {allowed}; {hint}")
    train = Pipeline.of(data.name, data.all_tasks, "training", training)
    shapes = train.target_shape
    heads = Named(
        {
            name: Head(task, _declared_outputs(data, name, shapes[name] if name else shapes))
            for name, task in data.all_tasks.items()
        }
    )
    parts = {"training": train, "test": Pipeline.of(data.name, data.all_tasks, "test", test)}
    if validation is not None:
        of_validation = Pipeline.of(data.name, data.all_tasks, "validation", validation)
        parts["validation"] = of_validation
    for part in parts.values():
        if (part.sample_shape, part.target_shape) != (train.sample_shape, train.target_shape):
            raise Invalid("name", data.name, "must have samples of one shape in all of its parts")
        if [*part.sample_shape] != [*train.sample_shape]:
            raise Invalid("name", data.name, "must have its inputs in one order in all parts")
    for name, part in parts.items():
        check_values(heads, name, part.first(CHECKED_SAMPLES))  # all would take too long
    return Arrays(
        name=data.name,
        task=data.task,
        outputs=next(iter(heads.values())).outputs,
        train=train,
        validation=parts.get("validation"),
        test=parts["test"],
        deterministic=data.deterministic,
        heads=heads if data.tasks else None,
    )


def _declared_outputs(data: DataSet, name: str, target_shape: tuple[int, ...]) -> int:
    """The number of outputs for targets of a pipeline, whose largest class is not known."""
    if data.all_tasks[name] != "classification":
        return target_shape[0]
    classes = data.outputs.get(name) if isinstance(data.outputs, Mapping) else data.outputs
    if classes is None:
        of_name = f" of {name}" if name else ""
        raise Invalid("name", data.name, f"must set outputs, the number of classes{of_name}")
    return classes


def _scale(array: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Returns mean and deviation over the samples; 1 where the deviation is 0."""
    deviation = array.std(axis=0)
    return array.mean(axis=0), np.where(deviation == 0, np.ones_like(deviation), deviation)


def _scaled(part: Part, scale: Any) -> Part:
    """Returns arrays minus the mean, divided by the deviation, which `_scale` returned."""
    if isinstance(part, Mapping):
        return {name: _scaled(array, scale[name]) for name, array in part.items()}
    mean, deviation = scale
    return (part - mean) / deviation


def _scaled_targets(tasks: Any, targets: Part, scale: Any) -> Part:
    """As `_scaled`, for the targets of regressions; others are returned as they are."""
    if isinstance(targets, Mapping):
        of_each = tasks.items()
        return {n: _scaled_targets(task, targets[n], scale[n]) for n, task in of_each}
    return _scaled(targets, scale) if tasks == "regression" else targets


def hold_out(x: Part, y: Part, name: str) -> tuple[Split, Split]:
    """Splits off a fifth of the samples for the test, always the same ones.

    Args:
        x: Inputs, `[samples, *shape]`, or a dict of several inputs by name.
        y: Targets, `[samples, ...]`, or a dict of the targets of several outputs by name.
        name: Name of the data set, which determines the split.

    Returns:
        The training samples and the test samples.
    """
    samples = named.count(x)
    order, fifth = permutation(samples, 0, f"test/{name}"), samples // 5
    training, test = order[fifth:], order[:fifth]
    return (
        (named.take(x, training), named.take(y, training)),
        (named.take(x, test), named.take(y, test)),
    )
