"""Describes the model of a trial: its weights, what the trial masks of them, and their FLOPs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from masksweep.strategies.base import Invalid
from masksweep.strategies.core.weight_summary import WeightSummary
from masksweep.sweeps.config.trial import Trial


@dataclass(frozen=True)
class ModelSummary:
    """The weights of a trial's model, as its pattern masks them."""

    weights: tuple[WeightSummary, ...]
    """One entry for each weight, in the model's order. Where a pattern needs a training or the
    model's gradients, only the numbers of masked entries are right."""
    unknown: str = ""
    """Why FLOPs are unknown; empty if they are known."""


def summaries(trials: Sequence[Trial]) -> list[ModelSummary]:
    """Describes the model of each trial, in this process.

    Call `process.prepare_process` once before, in the same process.

    Raises:
        Invalid: A plan cannot be made.
    """
    return [_summary(trial) for trial in trials]


def _summary(trial: Trial) -> ModelSummary:
    from masksweep.strategies.core.flops import positions
    from masksweep.strategies.core.weight_summary import summarize
    from masksweep.strategies.core.weights import all_weights, describe
    from masksweep.sweeps.training.setup import network, plan_for

    data = trial.data.load()
    net = network(trial, data)
    # any seed: how many entries are masked does not depend on it
    plan = plan_for(trial, net.weights, net.initial(0)[0], data.outputs)
    shapes = {w.name: w.shape for w in describe(net.model, all_weights(net.model))}
    try:
        counts, unknown = positions(net.model), ""
    except Invalid as error:
        counts, unknown = dict.fromkeys(shapes), error.allowed
    strategies = {w.weight.name: trial.label for w in plan.weights}
    return ModelSummary(tuple(summarize(shapes, plan, strategies, counts)), unknown)
