"""Reads a kernel from the outputs of a model, independently of what the strategy reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from masksweep.strategies.plan import Array
from masksweep.strategies.testing.trial import Trial


def dense() -> Any:
    """Returns a model with one Dense layer."""
    keras.utils.set_random_seed(7)
    return keras.Sequential([keras.Input((6,)), layers.Dense(4, use_bias=False, name="output")])


def conv1d() -> Any:
    """Returns a model with one Conv1D layer.

    Its inputs are as long as the window, so each output is a sum over the whole kernel.
    """
    keras.utils.set_random_seed(7)
    return keras.Sequential(
        [keras.Input((3, 2)), layers.Conv1D(4, 3, use_bias=False, name="output")]
    )


PROBES: dict[str, Callable[[], Any]] = {"dense": dense, "conv1d": conv1d}


def probe(trial: Trial) -> Array:
    """Returns the kernel. Each input of the batch is 1 at one place and 0 at all others."""
    shape = trial.model.input_shape[1:]
    impulses = np.eye(int(np.prod(shape)), dtype="float32").reshape(-1, *shape)
    return trial.outputs(tf.constant(impulses)).reshape(*shape, -1)
