"""Reads a kernel from the outputs of a layer, without asking the strategy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from masksweep.strategies.base import Array
from masksweep.strategies.testing.trial import Trial


def dense() -> Any:
    keras.utils.set_random_seed(7)
    return keras.Sequential([keras.Input((6,)), layers.Dense(4, use_bias=False, name="output")])


def conv1d() -> Any:
    """As long as its window, so that each output is a sum over the whole kernel."""
    keras.utils.set_random_seed(7)
    return keras.Sequential(
        [keras.Input((3, 2)), layers.Conv1D(4, 3, use_bias=False, name="output")]
    )


PROBES: dict[str, Callable[[], Any]] = {"dense": dense, "conv1d": conv1d}


def probe(trial: Trial) -> Array:
    """The kernel: one input at a time is one, all others are zero."""
    shape = trial.model.input_shape[1:]
    impulses = np.eye(int(np.prod(shape)), dtype="float32").reshape(-1, *shape)
    return trial.outputs(tf.constant(impulses)).reshape(*shape, -1)
