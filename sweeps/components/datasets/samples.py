"""Checks the samples of any data set, also of one that a plugin brings, before they are used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masksweep.strategies.base import Invalid


def check_samples(task: str, parts: Mapping[str, tuple[NDArray[Any], NDArray[Any]] | None]) -> None:
    """Checks that the parts of a data set have values that a model can be trained on.

    Args:
        task: `classification` or `regression`.
        parts: Inputs `[samples, *shape]` and targets by the name of the part; None if there is no
            such part. Targets are `[samples]` for a classification, and `[samples, outputs]` for a
            regression. There must be a part `training`.

    Raises:
        Invalid: (empty key) A number is not finite, a label is negative or none of the training
            samples has it, or shapes do not fit together.

    Example:
        >>> import numpy as np
        >>> x, y = np.zeros((3, 2), "float32"), np.array([0, 1, 0])
        >>> test = x, np.array([0, 4, 1])
        >>> check_samples("classification", {"training": (x, y), "test": test})
        Traceback (most recent call last):
        masksweep.strategies.base.Invalid: =: has the test label 4 at [1]; labels must be 0 to 1
    """
    training = parts["training"]
    assert training is not None
    _check_shapes(task, parts)
    top = int(training[1].max()) if task == "classification" else 0
    for name, split in parts.items():
        if split is None:
            continue
        inputs, targets = split
        if isinstance(inputs, np.ndarray):  # stored images are bytes, and are not read for this
            _check_finite(f"{name} inputs", inputs)
        if task == "regression":
            _check_finite(f"{name} targets", targets)
        elif targets.min() < 0 or targets.max() > top:
            index = int(np.argmax((targets < 0) | (targets > top)))
            found = f"has the {name} label {targets[index]} at [{index}]"
            raise Invalid("", "", f"{found}; labels must be 0 to {top}")


def _check_shapes(task: str, parts: Mapping[str, tuple[NDArray[Any], NDArray[Any]] | None]) -> None:
    shapes = {}
    for name, split in parts.items():
        if split is None:
            continue
        inputs, targets = split
        if not len(inputs) == len(targets) > 0:
            raise Invalid("", "", f"has {len(inputs)} {name} inputs and {len(targets)} targets")
        axes = 1 if task == "classification" else 2
        if targets.ndim != axes:
            wanted = "[samples]" if axes == 1 else "[samples, outputs]"
            found = f"has {name} targets of the shape {list(targets.shape)}"
            raise Invalid("", "", f"{found}; they must be {wanted} for a {task}")
        shapes[name] = inputs.shape[1:], targets.shape[1:]
    for name, found_shapes in shapes.items():
        for kind, found_shape, wanted_shape in zip(
            ("inputs", "targets"), found_shapes, shapes["training"], strict=True
        ):
            if found_shape != wanted_shape:
                found = f"has {name} {kind} of the shape {list(found_shape)}"
                raise Invalid("", "", f"{found}, and training {kind} of {list(wanted_shape)}")


def _check_finite(name: str, array: NDArray[Any]) -> None:
    # the smallest and the largest number are NaN if any number is; no large array of bools is made
    if array.size and not np.isfinite([array.min(), array.max()]).all():
        index = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
        allowed = "all must be finite numbers"
        raise Invalid("", "", f"has {array[tuple(index)]} in its {name} at {index}; {allowed}")
