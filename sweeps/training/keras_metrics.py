"""Computes the metrics of `train.metrics` on outputs of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from masksweep.strategies.plan import Array
from masksweep.sweeps.components.datasets.arrays import Head, Task, score_name
from masksweep.sweeps.components.datasets.named import Named, Part
from masksweep.sweeps.components.metrics import metric_named
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.training import model_ends
from masksweep.sweeps.training.losses import TrainingLoss
from masksweep.sweeps.training.scores import SCORES

BATCH_SAMPLES = 4096
"""Number of samples of one update of a metric."""


def of_outputs(
    trial: Trial, heads: Named[Head] | None, targets: Part, outputs: Array
) -> dict[str, float]:
    """Returns the trial's `train.metrics`, and loss and score of each of several outputs.

    Args:
        trial: The trial.
        heads: The outputs of a model with several; None for one output.
        targets: Targets, or targets by the names of several outputs.
        outputs: Outputs of the model, `[samples, outputs]`; several stand side by side.

    Returns:
        Values by the names of `keras.Model.fit`: those of several outputs begin with the name of
        the output.
    """
    values: dict[str, float] = {}
    for name, of_head in model_ends.split(heads, outputs).items():
        own = targets[name] if heads else targets
        task = heads[name].task if heads else trial.data.task
        found = compute(trial.metrics.get(name, []), task, own, of_head)
        if heads:
            loss = TrainingLoss(task, trial.losses[name]).unweighted
            found["loss"] = _mean(loss, own, of_head)
            found[score_name(task)] = _mean(SCORES[task], own, of_head)
        values |= {f"{name}_{metric}" if heads else metric: v for metric, v in found.items()}
    return values


def _mean(function: Callable[[Any, Any], Any], targets: Array, outputs: Array) -> float:
    """Returns the mean over all samples of a function that returns the mean of a batch."""
    total = 0.0
    for i in range(0, len(targets), BATCH_SAMPLES):
        part = slice(i, i + BATCH_SAMPLES)
        batch = tf.constant(targets[part]), tf.constant(outputs[part])
        total += float(function(*batch)) * len(targets[part])
    return total / len(targets)


def compute(names: Sequence[str], task: Task, targets: Array, outputs: Array) -> dict[str, float]:
    """Returns the values of metrics over all samples, by name.

    Args:
        names: Names of metrics that fit the task.
        task: The task.
        targets: Classes `[samples]`, or values `[samples, outputs]`.
        outputs: Outputs of the model, `[samples, outputs]`.

    Example:
        >>> targets, outputs = np.array([0, 1]), np.array([[1.0, 0.0], [1.0, 0.0]], "float32")
        >>> compute(["categorical_accuracy"], "classification", targets, outputs)
        {'categorical_accuracy': 0.5}
    """
    return {name: _compute_one(name, task, targets, outputs) for name in names}


def _compute_one(name: str, task: Task, targets: Array, outputs: Array) -> float:
    description = metric_named(name, task)
    metric = description.build()
    for i in range(0, len(targets), BATCH_SAMPLES):
        part = slice(i, i + BATCH_SAMPLES)
        part_targets, part_outputs = targets[part], outputs[part]
        if task == "classification" and not description.classes_as_integers:
            part_targets = np.eye(outputs.shape[-1], dtype=keras.config.floatx())[part_targets]
        if description.probabilities:
            is_one_class = task == "classification"  # else several labels
            activation = keras.ops.softmax if is_one_class else keras.ops.sigmoid
            part_outputs = activation(part_outputs)
        metric.update_state(part_targets, part_outputs)
    return float(metric.result())
