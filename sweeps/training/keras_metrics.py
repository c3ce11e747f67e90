"""Computes the Keras metrics of `train.metrics` on outputs of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from masksweep.strategies.base import Array
from masksweep.sweeps.components.metrics import METRICS

BATCH_SAMPLES = 4096
"""Number of samples of one update of a metric."""


def compute(names: Sequence[str], targets: Array, outputs: Array) -> dict[str, float]:
    """Returns the values of metrics over all samples, by name.

    Args:
        names: Names of `METRICS`.
        targets: Classes `[samples]`, or values `[samples, outputs]`.
        outputs: Outputs of the model, `[samples, outputs]`.

    Example:
        >>> targets, outputs = np.array([0, 1]), np.array([[1.0, 0.0], [1.0, 0.0]], "float32")
        >>> compute(["categorical_accuracy"], targets, outputs)
        {'categorical_accuracy': 0.5}
    """
    return {name: _compute_one(name, targets, outputs) for name in names}


def _compute_one(name: str, targets: Array, outputs: Array) -> float:
    description = METRICS[name]
    metric = getattr(keras.metrics, description.keras_class)(**description.settings)
    for i in range(0, len(targets), BATCH_SAMPLES):
        part = slice(i, i + BATCH_SAMPLES)
        metric.update_state(
            _targets(name, targets[part], outputs.shape[-1]), _outputs(name, outputs[part])
        )
    return float(metric.result())


def _targets(name: str, targets: Array, outputs: int) -> Any:
    if METRICS[name].task == "regression" or METRICS[name].classes_as_integers:
        return targets
    return np.eye(outputs, dtype=keras.config.floatx())[targets]


def _outputs(name: str, outputs: Array) -> Any:
    return keras.ops.softmax(outputs) if METRICS[name].probabilities else outputs
