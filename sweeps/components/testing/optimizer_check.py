"""The checks that every optimizer must pass."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

from masksweep.strategies.core.audit import moved_fraction, violations
from masksweep.strategies.core.weights import describe, make_plan, values
from masksweep.strategies.hard_mask import HardMask
from masksweep.strategies.held.zero import Zero
from masksweep.strategies.patterns.random import Random
from masksweep.strategies.testing.networks import network
from masksweep.strategies.testing.require import require
from masksweep.strategies.testing.trial import Trial
from masksweep.sweeps.components.optimizers import Optimizer


def check_optimizer(optimizer: Optimizer) -> None:
    """Checks that an optimizer is built with its settings, and trains masked weights.

    Args:
        optimizer: The optimizer to check.

    Raises:
        AssertionError: A check failed.

    Example:
        >>> from masksweep.sweeps.components.optimizers.adam import Adam
        >>> check_optimizer(Adam())  # doctest: +SKIP
    """
    built = optimizer.build()
    require(isinstance(built, keras.optimizers.Optimizer), f"build returns a {type(built)}")
    require(optimizer.build() is not built, "build returns the same object twice")
    config = built.get_config()
    for field in dataclasses.fields(optimizer):
        if field.name == "schedule":
            continue  # not a setting of Keras
        setting = getattr(optimizer, field.name)
        same = _in_float32(config.get(field.name)) == _in_float32(setting)
        require(same, f"{field.name} is {setting}, and {config.get(field.name)} in Keras")
    model = network()
    plan = make_plan(
        describe(model), values(model), masks=Random(0.5).from_weights, held=Zero().values,
        targets=["masked/kernel"],
    )  # fmt: skip
    trial = Trial(HardMask(), model, plan, optimizer.build(pure=False))
    start = trial.weights()
    steps = list(trial.steps(4))
    audits = [violations(weights, plan) for weights in steps]
    require(audits == [(0, 0.0)] * 4, f"(violations, drift) by step: {audits}")
    # after any step, not only the last: a step of constant size may undo an earlier one
    moved = any(moved_fraction(start, weights, plan) == 1 for weights in steps)
    require(moved, "a kept entry did not move")
    finite = all(np.isfinite(array).all() for array in trial.weights().values())
    require(finite, "its weights are not finite after four steps")


def _in_float32(setting: object) -> object:
    """Returns a setting with the precision of float32: Keras stores some settings in variables."""
    return float(np.float32(setting)) if isinstance(setting, float) else setting
