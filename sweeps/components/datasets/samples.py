"""Checks the samples of any data set, also of one that a plugin brings, before they are used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.components.datasets import named
from masksweep.sweeps.components.datasets.named import Split

Tasks = str | Mapping[str, str]
"""A task, or the task of each output of a model with several."""
Parts = Mapping[str, Split | None]


def check_samples(task: Tasks, parts: Parts) -> None:
    """Checks that the parts of a data set have values that a model can be trained on.

    Args:
        task: `classification`, `multi_label` or `regression`; for a model with several outputs, the
            task of each by its name.
        parts: Inputs `[samples, *shape]` and targets by the name of the part; None if there is no
            such part. Targets are `[samples]` for a classification, and `[samples, outputs]` for
            the others. There must be a part `training`. A dict of arrays by name takes the place of
            an array for several inputs or outputs.

    Raises:
        Invalid: (empty key) A number is not finite, a label is no whole number, is negative or not
            among the training labels, or shapes do not fit together.

    Example:
        >>> import numpy as np
        >>> x, y = np.zeros((3, 2), "float32"), np.array([0, 1, 0])
        >>> test = x, np.array([0, 4, 1])
        >>> check_samples("classification", {"training": (x, y), "test": test})
        Traceback (most recent call last):
        masksweep.strategies.errors.Invalid: =: has the test label 4 at [1]; labels must be 0 to 1
    """
    training = parts["training"]
    assert training is not None
    tasks = task if isinstance(task, Mapping) else {"": task}
    for name, split in parts.items():
        if split is not None and len(split) > 2:
            raise Invalid("", "", f"has sample weights in its {name} part; only training has them")
    shapes = {
        name: _check_shapes(tasks, name, *split)
        for name, split in parts.items()
        if split is not None
    }
    for name, of_part in shapes.items():
        _check_equal_shapes(name, of_part, shapes["training"])
    for name, split in parts.items():
        if split is None:
            continue
        for kind, array in _arrays("inputs", split[0]).items():
            if isinstance(array, np.ndarray):  # stored images are bytes, and are not read for this
                _check_finite(f"{name} {kind}", array)
        trained_on = _arrays("targets", training[1])
        for (kind, targets), of_task in zip(
            _arrays("targets", split[1]).items(), tasks.values(), strict=True
        ):
            _check_targets(of_task, f"{name} {kind}", targets, trained_on[kind])


def check_values(heads: Mapping[str, tuple[str, int]], name: str, split: Split) -> None:
    """Checks the values of some samples, if the training part is too large to be read as a whole.

    Args:
        heads: The task and the number of outputs of each output of the model by its name, which is
            empty for one output.
        name: The name of the part, for messages.
        split: Inputs and targets.

    Raises:
        Invalid: (empty key) A number is not finite, or a label is not one of the classes.

    Example:
        >>> import numpy as np
        >>> samples = np.zeros((3, 2), "float32"), np.array([0, 1, 4])
        >>> check_values({"": ("classification", 3)}, "test", samples)
        Traceback (most recent call last):
        masksweep.strategies.errors.Invalid: =: has the test label 4 at [2]; labels must be 0 to 2
    """
    inputs, targets = split
    for kind, array in _arrays("inputs", inputs).items():
        _check_finite(f"{name} {kind}", array)
    for (kind, array), (task, outputs) in zip(
        _arrays("targets", targets).items(), heads.values(), strict=True
    ):
        _check_targets(task, f"{name} {kind}", array, np.array([outputs - 1]))


def with_model_types(task: Tasks, split: Split) -> Split:
    """Returns the samples of a part with the types that a model is trained on.

    Args:
        task: The task, or the task of each output by its name.
        split: Inputs and targets that `check_samples` has accepted.

    Returns:
        Inputs of type uint8 as float32 with the same values, as in `keras.Model.fit`, and classes
        that are neither int32 nor int64 as int32. Other arrays are returned as they are.

    Example:
        >>> import numpy as np
        >>> x, y = np.array([[255]], "uint8"), np.array([1.0])
        >>> with_model_types("classification", (x, y))
        (array([[255.]], dtype=float32), array([1], dtype=int32))
    """
    inputs, targets = split
    inputs = named.map_arrays(_without_bytes, inputs)
    if isinstance(task, Mapping):
        return inputs, {n: _without_other_labels(task[n], array) for n, array in targets.items()}
    return inputs, _without_other_labels(task, targets)


def _without_bytes(inputs: Any) -> Any:
    is_bytes = isinstance(inputs, np.ndarray) and inputs.dtype == np.uint8  # else stored images
    return inputs.astype(np.float32) if is_bytes else inputs


def _without_other_labels(task: str, targets: NDArray[Any]) -> NDArray[Any]:
    if task != "classification" or targets.dtype in (np.int32, np.int64):
        return targets
    return targets.astype(np.int32)


def check_weights(samples: int, weights: Any) -> NDArray[np.float32]:
    """Returns the weights of training samples as float32.

    Args:
        samples: Number of training samples.
        weights: The weights, `[samples]`.

    Raises:
        Invalid: (empty key) They have another shape, or a weight is negative or not finite.
    """
    array: NDArray[np.float32] = np.asarray(weights, np.float32)
    if array.shape != (samples,):
        allowed = f"they must be [{samples}], a weight for each training sample"
        raise Invalid("", "", f"has sample weights of the shape {list(array.shape)}; {allowed}")
    wrong = ~(np.isfinite(array) & (array >= 0))
    if wrong.any():
        index = int(np.argmax(wrong))
        allowed = "weights must be finite and not negative"
        raise Invalid("", "", f"has the sample weight {array[index]} at [{index}]; {allowed}")
    return array


def _arrays(kind: str, part: named.Part) -> dict[str, Any]:
    """Returns each array of a part by words for it, such as `inputs` or `inputs image`."""
    if isinstance(part, Mapping):
        return {f"{kind} {name}": array for name, array in part.items()}
    return {kind: part}


def _check_shapes(
    tasks: Mapping[str, str], name: str, inputs: named.Part, targets: named.Part
) -> dict[str, Any]:
    """Checks the arrays of one part. Returns the shape of a sample by the words for each array."""
    of_targets = list(targets) if isinstance(targets, Mapping) else [""]
    if of_targets != list(tasks):
        found = "has one target"
        if of_targets != [""]:
            found = f"has the targets {', '.join(of_targets)}"
        wanted = f"tasks has {', '.join(tasks)}, in this order"
        if tasks.keys() == {""}:
            wanted = "set tasks for several outputs"
        raise Invalid("", "", f"{found} in its {name} part; {wanted}")
    arrays = _arrays("inputs", inputs) | _arrays("targets", targets)
    for kind, array in arrays.items():
        if " " in kind and not isinstance(array, np.ndarray):
            raise Invalid("", "", f"has {name} {kind} that are no NumPy array")
    counts = {kind: len(array) for kind, array in arrays.items()}
    if len({*counts.values()}) > 1 or 0 in counts.values():
        found = " and ".join(f"{count} {kind}" for kind, count in counts.items())
        allowed = "all must have the same number of samples, at least 1"
        raise Invalid("", "", f"has {found} in its {name} part; {allowed}")
    for (kind, array), task in zip(
        _arrays("targets", targets).items(), tasks.values(), strict=True
    ):
        axes = 1 if task == "classification" else 2
        if array.ndim != axes:
            wanted = "[samples]" if axes == 1 else "[samples, outputs]"
            found = f"has {name} {kind} of the shape {list(array.shape)}"
            raise Invalid("", "", f"{found}; they must be {wanted} for a {task}")
    return {kind: tuple(array.shape[1:]) for kind, array in arrays.items()}


def _check_equal_shapes(
    name: str, found: Mapping[str, Any], of_training: Mapping[str, Any]
) -> None:
    """Checks that a part has the arrays of the training part, with samples of the same shapes."""
    if found.keys() != of_training.keys():
        names = f"{', '.join(found)} in its {name} part, and {', '.join(of_training)} for training"
        raise Invalid("", "", f"has {names}")
    for kind, shape in found.items():
        if shape != of_training[kind]:
            words = f"has {name} {kind} of the shape {list(shape)}"
            raise Invalid("", "", f"{words}, and training {kind} of {list(of_training[kind])}")


def _check_targets(task: str, name: str, targets: NDArray[Any], training: NDArray[Any]) -> None:
    """Checks the values of targets: labels are known from the training part, numbers are finite.

    Args:
        task: The task.
        name: Words for the targets, such as `test targets`.
        targets: The targets.
        training: Those of the training part.
    """
    label = name.replace("targets", "label", 1).replace("label ", "label of ")
    if task == "regression":
        _check_finite(name, targets)
    elif task == "multi_label":
        wrong = np.argwhere((targets != 0) & (targets != 1))
        if len(wrong):
            place = [int(i) for i in wrong[0]]
            found = f"has the {label} {targets[tuple(place)]} at {place}"
            raise Invalid("", "", f"{found}; labels must be 0 or 1")
    else:
        _check_classes(name, label, targets, training)


def _check_classes(name: str, label: str, targets: NDArray[Any], training: NDArray[Any]) -> None:
    """Checks that targets are whole numbers, from 0 to the largest one of the training part."""
    if targets.dtype.kind not in "buif":
        found = f"has {name} of the type {targets.dtype}"
        raise Invalid("", "", f"{found}; labels must be whole numbers")
    with np.errstate(invalid="ignore"):  # of what int32 cannot hold, such as NaN
        is_other = targets != targets.astype(np.int32)
    allowed = "whole numbers"
    if not is_other.any():
        is_other = (targets < 0) | (targets > training.max())
        allowed = f"0 to {training.max()}"
    if is_other.any():
        index = int(np.argmax(is_other))
        found = f"has the {label} {targets[index]} at [{index}]"
        raise Invalid("", "", f"{found}; labels must be {allowed}")


def _check_finite(name: str, array: NDArray[Any]) -> None:
    # the smallest and the largest number are NaN if any number is; no large array of bools is made
    if array.size and not np.isfinite([array.min(), array.max()]).all():
        index = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
        allowed = "all must be finite numbers"
        raise Invalid("", "", f"has {array[tuple(index)]} in its {name} at {index}; {allowed}")
