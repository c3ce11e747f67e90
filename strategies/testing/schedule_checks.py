"""The check that any mask schedule must pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from masksweep.strategies.core.audit import violations
from masksweep.strategies.core.weights import describe, make_plan, values
from masksweep.strategies.hard_mask import HardMask
from masksweep.strategies.held.zero import Zero
from masksweep.strategies.mask_changes.changes import MaskChanges
from masksweep.strategies.patterns.random import Random
from masksweep.strategies.plan import Array, Mask
from masksweep.strategies.schedules.base import Course, MaskSchedule
from masksweep.strategies.testing.networks import network
from masksweep.strategies.testing.require import require
from masksweep.strategies.testing.trial import Trial


def check_schedule(schedule: MaskSchedule, *, steps: int = 24, changes: bool = True) -> None:
    """Checks a mask schedule: trains a small model with it under `hard_mask`, twice.

    The changes must be in order and within the training. The masks must be as the schedule
    declares (`keeps_counts`, `dense_start`, `needs_gradients`), and the same in both trainings.
    Masked entries must hold at every step.

    Args:
        schedule: The schedule, with settings that make it change masks within the training.
        steps: Number of training steps.
        changes: Whether the schedule changes any mask.

    Raises:
        AssertionError: The schedule does not pass.
    """
    course = Course(steps, epoch=6)
    due = list(schedule.change_steps(course))
    in_order = due == sorted(set(due)) and all(0 < step < steps for step in due)
    require(in_order, f"the steps of the changes must be in order and in 1 .. {steps - 1}: {due}")
    require(bool(due) == changes, f"changes={changes}, but the steps of the changes are {due}")
    model = network()
    plan = make_plan(describe(model), values(model), masks=_drawn, held=Zero().values)
    trial = Trial(HardMask(), model, plan, keras.optimizers.Adam(0.01))
    gradients = tf.function(trial.training.dense_gradients)
    first, second = (_masks_over_time(schedule, course, trial, gradients) for _ in range(2))
    for step, (one, other) in enumerate(zip(first, second, strict=True)):
        same = all(np.array_equal(one[name], other[name]) for name in one)
        require(same, f"the masks differ between two equal trainings after step {step}")


def _drawn(weights: Mapping[str, Array], seed: int) -> dict[str, Mask]:
    return Random(0.6).from_weights(weights, seed)


def _masks_over_time(
    schedule: MaskSchedule, course: Course, trial: Trial, gradients: Callable[..., Any]
) -> list[dict[str, Mask]]:
    """Trains from the start, and returns the masks at the start and after each step."""
    weights = trial.training.weights
    plan = first = make_plan(weights, trial.start, masks=_drawn, held=Zero().values)
    if schedule.dense_start:
        kept = {w.weight.name: np.ones_like(w.mask) for w in plan.weights}
        first = make_plan(weights, trial.start, masks=lambda w, s: kept, held=Zero().values)
    trial.begin(first)
    changes = MaskChanges(
        schedule,
        course,
        plan,
        Zero().values,
        lambda number, now: _drawn(now, number),
        lambda step: step,
    )
    training = trial.training
    changes.start(training)
    over_time = [_masks(trial)]
    for step in range(1, course.steps + 1):
        trial.step(trial.x, trial.y)
        _require_held(trial, step)
        changes.after_step(training, step, lambda: gradients(trial.x, trial.y))
        _require_held(trial, step)
        over_time.append(_masks(trial))
        _require_declared(schedule, over_time[-2], over_time[-1], step)
    asked = any(record.dense_gradients for record in changes.records)
    require(asked == schedule.needs_gradients, f"needs_gradients is {schedule.needs_gradients}")
    return over_time


def _masks(trial: Trial) -> dict[str, Mask]:
    return {name: held.kept.numpy() for name, held in trial.training.masked.items()}


def _require_held(trial: Trial, step: int) -> None:
    held = trial.training.masked
    plan = make_plan(
        trial.training.weights,
        trial.weights(),
        masks=lambda w, s: {name: held[name].kept.numpy() for name in w},
        held=Zero().values,
        targets=list(held),
    )
    count, _ = violations(trial.weights(), plan)
    require(count == 0, f"{count} masked entries are not at their held value after step {step}")


def _require_declared(
    schedule: MaskSchedule, before: dict[str, Mask], after: dict[str, Mask], step: int
) -> None:
    if not schedule.keeps_counts:
        return
    for name, mask in after.items():
        counts = int(before[name].sum()), int(mask.sum())
        equal = counts[0] == counts[1]
        require(equal, f"keeps_counts, but {name} keeps {counts[1]}, not {counts[0]}, at {step}")
