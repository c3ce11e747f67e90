"""Computes the metrics of `train.metrics` on outputs of a model."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from masksweep.strategies.base import Array
from masksweep.sweeps.components.metrics import metric_named

BATCH_SAMPLES = 4096
"""Number of samples of one update of a metric."""


def compute(names: Sequence[str], targets: Array, outputs: Array) -> dict[str, float]:
    """Returns the values of metrics over all samples, by name.

    Args:
        names: Names of metrics that fit the task.
        targets: Classes `[samples]`, or values `[samples, outputs]`.
        outputs: Outputs of the model, `[samples, outputs]`.

    Example:
        >>> targets, outputs = np.array([0, 1]), np.array([[1.0, 0.0], [1.0, 0.0]], "float32")
        >>> compute(["categorical_accuracy"], targets, outputs)
        {'categorical_accuracy': 0.5}
    """
    return {name: _compute_one(name, targets, outputs) for name in names}


def _compute_one(name: str, targets: Array, outputs: Array) -> float:
    description = metric_named(name)
    metric = description.build()
    for i in range(0, len(targets), BATCH_SAMPLES):
        part = slice(i, i + BATCH_SAMPLES)
        part_targets, part_outputs = targets[part], outputs[part]
        if targets.ndim == 1 and not description.classes_as_integers:
            part_targets = np.eye(outputs.shape[-1], dtype=keras.config.floatx())[part_targets]
        if description.probabilities:
            part_outputs = keras.ops.softmax(part_outputs)
        metric.update_state(part_targets, part_outputs)
    return float(metric.result())
