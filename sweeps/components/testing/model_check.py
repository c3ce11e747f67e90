"""The checks that every model must pass."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from masksweep.strategies.core.audit import same_weights, save_and_reload
from masksweep.strategies.core.weights import values
from masksweep.strategies.dense import Dense
from masksweep.strategies.plan import Array, Plan
from masksweep.strategies.testing.require import require
from masksweep.strategies.testing.trial import Trial, joined
from masksweep.sweeps.components.models import Model
from masksweep.sweeps.components.models.ends import tensors_by_name

Weights = dict[str, Array]
"""Weights by name."""


def check_model(model: Model, inputs: Any = (8,), outputs: Any = 3, *, fixed: bool = False) -> None:
    """Checks that a model fits its data, depends only on the seed, trains, and can be saved.

    Args:
        model: The model to check.
        inputs: The shape of one sample, or the shapes by the names of several inputs.
        outputs: The number of outputs, or the numbers by the names of several outputs.
        fixed: Whether its initial values come from the config, so that no seed changes them.

    Raises:
        AssertionError: A check failed.

    Example:
        >>> from masksweep.sweeps.components.models.mlp import MLP
        >>> check_model(MLP((4,)))  # doctest: +SKIP
    """
    network = _built(model, inputs, outputs, seed=1)
    require(network.built, "build must return a built Keras model")
    if isinstance(outputs, Mapping):
        tensors = tensors_by_name(network, "output")
        fits = {n: t.shape for n, t in tensors.items()} == {
            n: (None, s) for n, s in outputs.items()
        }
    else:
        fits = network.output_shape == (None, outputs)
    require(fits, f"its outputs are {network.output_shape}")
    first = values(network)
    again, other = (values(_built(model, inputs, outputs, seed)) for seed in (1, 2))
    names = f"{list(first)}, and {list(again)} the second time"
    require(list(first) == list(again), f"its weights are called {names}")
    _check_seed(first, again, other, fixed)
    statistics = [v for v in network.non_trainable_variables if "seed" not in v.name]
    require(
        bool(statistics) == model.has_statistics,
        f"has_statistics is {model.has_statistics}; non-trainable: {[v.path for v in statistics]}",
    )
    _check_training(network)


def _check_seed(first: Weights, again: Weights, other: Weights, fixed: bool) -> None:
    """Checks that the initial values follow from Keras' global seed.

    Args:
        first: Initial values by name.
        again: Those of another model with the same seed.
        other: Those of a model with another seed.
        fixed: Whether no seed changes them.
    """
    require(same_weights(first, again), "the same seed gives other initial values")
    size = sum(array.size for array in first.values())
    require(size > 0, "it has no trainable weight")
    if fixed:
        return
    require(not same_weights(first, other), "another seed gives the same initial values")


def _check_training(network: Any) -> None:
    """Checks that every weight is trained, and that a saved model computes the same."""
    trial = Trial(Dense(), network, Plan(), keras.optimizers.SGD(0.1))
    start = trial.weights()
    weights = trial.end(3)
    unmoved = [name for name in start if np.array_equal(start[name], weights[name])]
    require(not unmoved, f"no gradient reaches {', '.join(unmoved)}")
    finite = all(np.isfinite(array).all() for array in weights.values())
    require(finite, "its weights are not finite after three steps")
    live_outputs = trial.outputs()
    with tempfile.TemporaryDirectory() as folder:
        saved = save_and_reload(network, weights, trial.state(), Path(folder) / "model.keras")
    require(same_weights(values(saved), weights), "a saved and loaded copy has other weights")
    distance = float(np.abs(live_outputs - joined(saved(trial.x, training=False))).max())
    require(distance < 1e-4, f"the outputs of a saved and loaded copy differ by {distance}")


def _built(model: Model, inputs: Any, outputs: Any, seed: int) -> Any:
    """Builds the Keras model with the initial values of a seed."""
    keras.utils.set_random_seed(seed)
    return model.build(inputs, outputs)
