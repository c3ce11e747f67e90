"""Arrays from a `.npz` file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from masksweep.strategies.core.npz import MAX_ARRAY_BYTES, ArrayFile, open_arrays
from masksweep.strategies.errors import Invalid, require
from masksweep.strategies.registry import register
from masksweep.sweeps.components.datasets.base import DataSet
from masksweep.sweeps.components.datasets.content import (
    TaskOrAuto,
    as_inputs,
    as_targets,
    require_first_class,
    require_known_classes,
    require_numbers,
)
from masksweep.sweeps.components.datasets.named import Split

PARTS = ("train", "validation", "test")
WEIGHTS = "sample_weight_train"


@register
@dataclass(frozen=True)
class Npz(DataSet):
    """Arrays of a `.npz` file, named as in the files of `keras.datasets`.

    - `x_train`, `x_test`: inputs, `[samples, *shape]`;
    - `y_train`, `y_test`: targets. Classes from 0, `[samples]` or `[samples, 1]`; labels of 0 or 1,
      also `[samples, labels]`; or the numbers of a regression, also `[samples, outputs]`;
    - `x_validation`, `y_validation`: optional. Without them, the fraction `validation` of the
      training samples is used;
    - `sample_weight_train`: optional weights of the training samples, `[samples]`, as
      `sample_weight` of `keras.Model.fit`. The losses of validation and test are not weighted.

    The file may have other arrays too, which are not read.

    Raises:
        Invalid: There is no such file, it cannot be read, or its arrays do not fit together.

    Example:
        >>> import numpy as np, os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "data.npz")
        >>> x, y = np.zeros((6, 4, 4, 1), np.uint8), np.array([0, 1, 2, 0, 1, 2])
        >>> np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
        >>> data = Npz(path=path, validation=0.0).load()
        >>> data.task, data.outputs, data.shape
        ('classification', 3, (4, 4, 1))
    """

    name: ClassVar[str] = "npz"
    path: str = ""
    """Path of the file."""
    task: TaskOrAuto = "auto"  # type: ignore[assignment,misc]  # a setting here, resolved below
    """`classification`, `binary`, `multi_label` or `regression`; `auto` is a classification if
    `y_train` has integers, and a regression if it has floating-point numbers. With `multi_label`
    each output is a label of its own: its sigmoid is the probability, and the loss is the binary
    crossentropy. `binary` is `multi_label` with one label, for a model with one output."""
    scale: Literal["auto", "none", "standard"] = "auto"
    """`auto` divides inputs of type uint8 by 255, which all parts then have; `none` takes all as
    they are. `standard` scales each input, and the targets of a regression, to mean 0 and deviation
    1 in the training part."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.path), "path", self.path, "a .npz file with x_train, y_train, ...")
        task = self.task
        if task == "binary":  # one trial, however its task is written
            object.__setattr__(self, "task", "multi_label")
        if self.is_elsewhere:
            require(self.task != "auto", "task", self.task, "given if the file is not here")
            return
        with open_arrays(self.path, MAX_ARRAY_BYTES) as arrays:
            _check_names(self.path, arrays)
            if WEIGHTS in arrays:
                _check_weights(self.path, arrays)
            if task == "auto":
                targets = arrays["y_train"]
                is_float = targets.dtype.kind == "f" or targets.is_bfloat16
                several = len(targets.shape) == 2 and targets.shape[1] > 1
                if is_float and several and _is_binary(targets.whole()):
                    allowed = (
                        "y_train has only 0 and 1 in several columns, such as one-hot classes: "
                        "give each sample its class as an integer, or set multi_label or regression"
                    )
                    raise Invalid("task", "auto", allowed)
                task = "regression" if is_float else "classification"
                # the task itself, not `auto`, belongs to the identity and the record of a trial
                object.__setattr__(self, "task", task)
            for part in PARTS:
                if f"x_{part}" in arrays:
                    _check_shapes(self.path, part, arrays, task)
            if self.scale == "auto":
                _check_scales(arrays)

    @property
    def is_standardised(self) -> bool:
        return self.scale == "standard"

    @property
    def has_validation(self) -> bool:
        if self.validation > 0 or self.is_elsewhere:
            return True
        with open_arrays(self.path, MAX_ARRAY_BYTES) as arrays:
            return "x_validation" in arrays

    def samples(self) -> tuple[Any, Split]:
        with open_arrays(self.path, MAX_ARRAY_BYTES) as arrays:
            train, test = self._part(arrays, "train"), self._part(arrays, "test")
            weights = [arrays[WEIGHTS].whole()] if WEIGHTS in arrays else []
        if self.task == "classification":
            require_known_classes(self.path, "y_test", test[1], "y_train", train[1])
            require_first_class(self.path, "y_train", train[1], test[1])
        return (*train, *weights), test

    def own_validation(self) -> Split | None:
        with open_arrays(self.path, MAX_ARRAY_BYTES) as arrays:
            if "x_validation" not in arrays:
                return None
            split = self._part(arrays, "validation")
            training = as_targets(self.path, "y_train", arrays["y_train"].whole(), self.task)
        if self.task == "classification":
            require_known_classes(self.path, "y_validation", split[1], "y_train", training)
        return split

    def _part(self, arrays: dict[str, ArrayFile], part: str) -> Split:
        x, y = f"x_{part}", f"y_{part}"
        raw: NDArray[Any] = arrays[x].whole()
        inputs = as_inputs(self.path, x, raw)
        if self.scale == "auto" and raw.dtype == np.uint8:
            inputs /= 255
        return inputs, as_targets(self.path, y, arrays[y].whole(), self.task)


def _is_binary(targets: NDArray[Any]) -> bool:
    return bool(((targets == 0) | (targets == 1)).all())


def _check_names(path: str, arrays: dict[str, ArrayFile]) -> None:
    needed = ["x_train", "y_train", "x_test", "y_test"]
    if "x_validation" in arrays or "y_validation" in arrays:
        needed += ["x_validation", "y_validation"]
    if missing := [name for name in needed if name not in arrays]:
        names = ", ".join(list(arrays)[:10]) or "no arrays"
        raise Invalid("path", path, f"{', '.join(missing)} must be in the file; it has {names}")
    if unknown := _other_weights(arrays):
        allowed = f"has {unknown}; only training samples can have weights, in {WEIGHTS}"
        raise Invalid("path", path, allowed)


def _other_weights(names: Iterable[str]) -> str:
    """Returns the first name that seems to be meant for weights of samples; empty if none does."""
    parts = {"sample", "samples", *PARTS}
    for name in names:
        is_meant = "weight" in name.lower() and parts & {*name.lower().split("_")}
        if is_meant and name != WEIGHTS:
            return name
    return ""


def _check_weights(path: str, arrays: dict[str, ArrayFile]) -> None:
    """Checks the type and the shape of the sample weights."""
    weights, wanted = arrays[WEIGHTS], arrays["x_train"].shape[:1]
    if not weights.is_bfloat16:
        require_numbers(path, WEIGHTS, weights.dtype)
    if weights.shape != wanted:
        allowed = f"it must be {list(wanted)}, a weight for each training sample"
        raise Invalid("path", path, f"{WEIGHTS} has the shape {list(weights.shape)}; {allowed}")


def _check_scales(arrays: dict[str, ArrayFile]) -> None:
    """Checks that the inputs of all parts, or of none, are uint8, which are divided by 255."""
    inputs = [name for name in (f"x_{part}" for part in PARTS) if name in arrays]
    is_bytes = {name: arrays[name].dtype == np.uint8 for name in inputs}
    if len({*is_bytes.values()}) > 1:
        kinds = ", ".join(f"{n} is {'' if b else 'not '}uint8" for n, b in is_bytes.items())
        allowed = f"{kinds}; store all with one type, or set none or standard"
        raise Invalid("scale", "auto", allowed)


def _check_shapes(path: str, part: str, arrays: dict[str, ArrayFile], task: str) -> None:
    """Checks types and shapes, for which only the headers of the arrays are read."""
    x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
    for name, array in ((f"x_{part}", x), (f"y_{part}", y)):
        if not array.is_bfloat16:
            require_numbers(path, name, array.dtype)
        if not array.shape or 0 in array.shape:
            raise Invalid("path", path, f"{name} has the shape {list(array.shape)}: no samples")
    if len(x.shape) < 2:
        allowed = "and must have [samples, inputs] or more axes"
        raise Invalid("path", path, f"x_{part} has the shape {list(x.shape)}, {allowed}")
    if x.shape[0] != y.shape[0]:
        counts = f"x_{part} has {x.shape[0]} samples and y_{part} has {y.shape[0]}"
        raise Invalid("path", path, f"{counts}; the numbers must be equal")
    for axis_name, one, other in (
        (f"x_{part}", x.shape[1:], arrays["x_train"].shape[1:]),
        (f"y_{part}", y.shape[1:], arrays["y_train"].shape[1:]),
    ):
        if one != other and not (axis_name[0] == "y" and {one, other} == {(), (1,)}):
            of_train = f"those of {axis_name[0]}_train the shape {list(other)}"
            allowed = f"samples of the shape {list(one)}, and {of_train}"
            raise Invalid("path", path, f"{axis_name} has {allowed}")
    if task == "classification" and y.shape[1:] not in ((), (1,)):
        allowed = (
            "must be [samples], a class for each; data.task=multi_label takes labels of 0 or 1"
        )
        raise Invalid("path", path, f"y_{part} has the shape {list(y.shape)}; it {allowed}")
    if task == "binary" and y.shape[1:] not in ((), (1,)):
        allowed = "must be [samples], 0 or 1 for each; data.task=multi_label takes several labels"
        raise Invalid("path", path, f"y_{part} has the shape {list(y.shape)}; it {allowed}")
    if task == "multi_label" and len(y.shape) > 2:
        allowed = "must be [samples] or [samples, labels]"
        raise Invalid("path", path, f"y_{part} has the shape {list(y.shape)}; it {allowed}")
    if task == "regression" and len(y.shape) > 2:
        allowed = "must be [samples] or [samples, outputs]"
        raise Invalid("path", path, f"y_{part} has the shape {list(y.shape)}; it {allowed}")
