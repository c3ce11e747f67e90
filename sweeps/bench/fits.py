"""Times an epoch of `fit` on a masked model beside the same epoch on the plain model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median, quantiles
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from masksweep.strategies.errors import Invalid
from masksweep.strategies.keras_model.apply import apply
from masksweep.strategies.patterns.columns import Columns
from masksweep.strategies.patterns.random import Random
from masksweep.sweeps.bench.cases import BATCH_SIZE, OUTPUTS, SIZES, Size, timed_strategies
from masksweep.sweeps.bench.trials import Cost

ROUNDS = 9
SPARSITY = 0.9
STEPS = 24
"""Number of steps of an epoch."""
IMAGE = (28, 28, 1)

Epoch = Callable[[], object]


def _mlp(size: Size) -> Any:
    hidden = [layers.Dense(n, "relu", name=f"hidden_{i}") for i, n in enumerate(size.hidden)]
    ends = keras.Input((size.inputs,)), layers.Dense(OUTPUTS, name="output")
    return keras.Sequential([ends[0], *hidden, ends[1]])


def convnet() -> Any:
    """Returns a small convolutional network for images of MNIST."""
    return keras.Sequential(
        [
            keras.Input(IMAGE),
            layers.Conv2D(16, 3, activation="relu", name="conv_1"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu", name="conv_2"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, "relu", name="hidden"),
            layers.Dense(OUTPUTS, name="output"),
        ]
    )


def _networks() -> dict[str, tuple[Callable[[], Any], tuple[int, ...]]]:
    """Functions that build the networks, with the shapes of their inputs, by name."""
    sizes = {name: (partial(_mlp, SIZES[name]), (SIZES[name].inputs,)) for name in ("S", "M")}
    return {**sizes, "convnet": (convnet, IMAGE)}


def _batches(x: Any, y: Any) -> tf.data.Dataset:
    """Returns the samples in batches.

    Without the tuning of tf.data, because it runs in a loop whose pauses double from 10 ms on. With
    one thread an epoch ends only after the pause, so its time would double in steps.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return (
        tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH_SIZE).cache().with_options(options)
    )


def _epochs(build: Callable[[], Any], data: Any) -> dict[str, Epoch]:
    """Returns functions that train models of one network, by strategy; the plain one first."""
    ways = {"plain": build}
    for name in timed_strategies():
        for pattern in (Random(SPARSITY), Columns(SPARSITY)):
            try:
                apply(build(), pattern, name)
            except Invalid:
                continue
            ways[name] = partial(_masked, build, pattern, name)
            break
    return {name: _epoch(way(), data) for name, way in ways.items()}


def _masked(build: Callable[[], Any], pattern: Any, strategy: str) -> Any:
    return apply(build(), pattern, strategy)


def _epoch(model: Any, data: Any) -> Epoch:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.001), loss)

    return lambda: model.fit(data, shuffle=False, verbose=0)


def costs() -> Iterator[Cost]:
    """Times an epoch of each network under each strategy that takes it, in turn with the plain one.

    Yields:
        Seconds of an epoch, and its ratio to an epoch of the plain model: the median of the rounds
        and their quartiles.
    """
    for name, (build, shape) in _networks().items():
        keras.utils.set_random_seed(0)
        generator = np.random.default_rng(0)
        x = generator.standard_normal((STEPS * BATCH_SIZE, *shape), np.float32)
        y = generator.integers(0, OUTPUTS, len(x))
        data = _batches(x, y)
        epochs = _epochs(build, data)
        rounds = [[_seconds(epoch) for epoch in epochs.values()] for _ in range(1 + ROUNDS)]
        plain, *_ = columns = list(zip(*rounds[1:], strict=True))  # the first round compiles
        for strategy, seconds in zip(epochs, columns, strict=True):
            ratios = [a / b for a, b in zip(seconds, plain, strict=True)]
            low, middle, high = quantiles(ratios, n=4, method="inclusive")
            yield Cost(f"{name}: {strategy}", median(seconds), middle, low, high)


def _seconds(epoch: Epoch) -> float:
    start = time.perf_counter()
    epoch()
    return time.perf_counter() - start
