"""Scales the steps of a trial so that its training spends the FLOPs of the dense model's.

A sparse training of as many steps is cheaper than a dense one, the more so the sparser it is. To
compare schedules at equal FLOPs, as Evci et al. do with their extended trainings, each trains for
as many steps as its masks save.

Reference:
    Evci et al., Rigging the Lottery, ICML 2020, arXiv:1911.11134.
"""

from __future__ import annotations

import itertools
from typing import Any

from masksweep.strategies.errors import Invalid
from masksweep.strategies.plan import Plan
from masksweep.strategies.schedules.base import Course
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.training.flops import dense_step_flops, step_ratio_of_counts

MAX_ROUNDS = 50
"""Largest number of times that the number of steps is computed again."""


def scaled(trial: Trial, model: Any, plan: Plan, course: Course) -> Trial:
    """Returns the trial with the number of steps that spends the FLOPs of the dense training.

    Args:
        trial: The trial, whose steps are those of the dense training.
        model: A built Keras model of its network.
        plan: The plan with the masks of the pattern.
        course: The length of the dense training.

    Returns:
        The trial itself if `train.match_flops` is null, nothing is masked, or nothing trains.

    Raises:
        Invalid: The products of the model cannot be counted, or no step has any.
    """
    if trial.train.match_flops is None or not plan.weights or not course.steps:
        return trial
    if not dense_step_flops(model):
        allowed = f"must be null: the products of model={trial.model.name} cannot be counted"
        raise Invalid("train.match_flops", trial.train.match_flops, allowed)
    steps = course.steps
    for _ in range(MAX_ROUNDS):  # the share of dense steps of a schedule depends on their number
        ratio = training_ratio(trial, model, plan, Course(steps, course.epoch))
        if not ratio:
            allowed = "must be null: with these masks, no step takes any FLOPs"
            raise Invalid("train.match_flops", trial.train.match_flops, allowed)
        previous, steps = steps, max(1, round(course.steps / ratio))
        if steps == previous:
            break
    train = trial.train.model_copy(update={"steps": steps, "match_flops": None})
    return trial.model_copy(update={"train": train})


def training_ratio(trial: Trial, model: Any, plan: Plan, course: Course) -> float:
    """Returns the FLOPs of a training relative to as many steps of the dense model.

    Args:
        trial: The trial.
        model: A built Keras model whose products can be counted.
        plan: The plan with the masks of the pattern.
        course: The length of the training.
    """
    schedule = trial.mask_schedule
    changes = schedule.change_steps(course)
    edges = [0, *changes, course.steps]
    targets = {w.weight.name: w.mask for w in plan.weights}
    total = float(len(changes)) if schedule.needs_gradients else 0.0
    for begin, end in itertools.pairwise(edges):
        kept, counts = schedule.counts(targets, begin, course), {}
        for w in plan.weights:
            masked = w.mask.size - kept[w.weight.name]
            counts[w.weight.name] = masked, masked if w.holds_zero else 0
        total += step_ratio_of_counts(model, counts) * (end - begin)
    return total / course.steps
