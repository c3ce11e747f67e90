"""Metrics of a trial's training: loss and score of an epoch, and its first gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from masksweep.sweeps.components.datasets.arrays import score_name
from masksweep.sweeps.training.program import Program
from masksweep.sweeps.training.setup import TrialStart
from masksweep.sweeps.training.step_counts import step_counts

if TYPE_CHECKING:
    from masksweep.sweeps.training.state import Position

Part = Literal["validation", "test"]


def epoch_metrics(start: TrialStart, program: Program, position: Position) -> dict[str, float]:
    """Training metrics of the current epoch.

    The loss and the score are means over the epoch's steps, each with the weights of its step. The
    audit metrics are the largest values of the epoch's audits. They are left out if nothing is
    held, or if no step of the epoch was audited. Without a step there are no metrics.

    Args:
        start: The start of the trial.
        program: The program that the trial trains in.
        position: The position at the end of the epoch.
    """
    part, done, interval = position.part, position.found.steps, start.trial.audit.every
    if not part.steps:
        return {}
    metrics = named_metrics("train", program, (part.loss / part.steps, part.score / part.steps))
    at_last_step = done == step_counts(start.trial, start.data.samples)[1]
    holds = any(not weight.mask.all() for weight in start.pattern_plan.weights)
    if holds and (at_last_step or done // interval > (done - part.steps) // interval):
        metrics["audit/violations"] = float(part.peak_violations)
        metrics["audit/drift"] = part.peak_drift
    return metrics


def named_metrics(part: str, program: Program, pair: tuple[float, float]) -> dict[str, float]:
    """The loss and the score of one part of the data, by the names of their metrics.

    Args:
        part: `train`, `validation` or `test`.
        program: The program; its task decides whether the score is an accuracy or an error.
        pair: (loss, score).
    """
    score = score_name(program.shape.task)
    return dict(zip((f"{part}/loss", f"{part}/{score}"), pair, strict=True))


def gradients(start: TrialStart, program: Program, batch: tuple[Any, Any]) -> dict[str, float]:
    """Extreme absolute gradients that the optimizer gets at the first step.

    Args:
        start: The start of the trial.
        program: The program before the first step.
        batch: Inputs and targets of the first step.

    Returns:
        `integrity/held_gradient`, the largest absolute gradient at a masked entry, and
        `integrity/kept_gradient`, the smallest at a kept entry. If a strategy trains the kept
        values only, masked entries have no gradient and count as 0. Empty without a gradient of a
        masked weight.
    """
    import tensorflow as tf

    training, held_sizes, kept_sizes = program.training, [], []
    by_name = program.gradients(*batch)
    for weight in training.weights:
        masked, gradient = training.masked.get(weight.name), by_name.get(weight.name)
        if masked is None or gradient is None:
            continue
        if not masked.has_weight_order:
            zeros = tf.zeros(weight.shape, gradient.dtype)
            gradient = masked.to_weight_shape(gradient, zeros)
        sizes, mask = np.abs(np.asarray(gradient)), masked.kept.numpy()
        held_sizes += [sizes[~mask].max(initial=0.0)]
        kept_sizes += [sizes[mask].min(initial=np.inf)]
    if not held_sizes:
        return {}
    # NumPy's max and min return NaN if there is one; Python's may not
    return {
        "integrity/held_gradient": float(np.max(held_sizes)),
        "integrity/kept_gradient": float(np.min(kept_sizes)),
    }
