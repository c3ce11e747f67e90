"""Reads the argument `data` of `apply`."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from masksweep.strategies.errors import require

DataChoice = tuple[Any, Any] | Any | None
"""Inputs and targets, a `tf.data.Dataset` of batches of both, or None."""
ALLOWED = "(inputs, targets), or a tf.data.Dataset of batches (inputs, targets)"


def choose_data(data: DataChoice) -> tuple[Any, Any]:
    """Returns the inputs and targets of a `Problem`; of a dataset, the dataset and None.

    Args:
        data: Inputs and targets, a `tf.data.Dataset` of batches of both, or None.

    Raises:
        Invalid: The data are neither, or the dataset has no targets, or more than two parts.
    """
    if data is None:
        return None, None
    if isinstance(data, tf.data.Dataset):
        spec = data.element_spec
        is_pair = isinstance(spec, tuple) and len(spec) == 2
        parts = f"{len(spec)} parts" if isinstance(spec, tuple) else "inputs only"
        require(is_pair, "data", f"a tf.data.Dataset of {parts}", ALLOWED)
        return data, None
    is_pair = isinstance(data, tuple | list) and len(data) == 2
    require(is_pair, "data", type(data).__name__, ALLOWED)
    inputs, targets = data
    return inputs, targets
