"""The score of each task: accuracy, or the mean squared error of a regression."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from masksweep.sweeps.components.datasets.arrays import Task


def _accuracy(targets: Any, outputs: Any) -> Any:
    correct = tf.equal(tf.cast(tf.argmax(outputs, -1), targets.dtype), targets)
    return tf.reduce_mean(tf.cast(correct, tf.float32))


def _mse(targets: Any, outputs: Any) -> Any:
    return tf.reduce_mean(tf.square(targets - tf.cast(outputs, targets.dtype)))


def _binary_accuracy(targets: Any, outputs: Any) -> Any:
    correct = tf.equal(outputs > 0, targets > 0.5)  # a logit of 0 is a probability of 0.5
    return tf.reduce_mean(tf.cast(correct, tf.float32))


SCORES: Mapping[Task, Callable[[Any, Any], Any]] = {
    "classification": _accuracy,
    "multi_label": _binary_accuracy,
    "regression": _mse,
}
"""The score of each task: `(targets, outputs) -> mean over the samples`."""
