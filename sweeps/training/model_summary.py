"""Describes the model of a trial: its weights, what the trial masks of them, and their FLOPs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from masksweep.strategies.core.weight_summary import WeightSummary
from masksweep.strategies.errors import Invalid
from masksweep.sweeps.common.text import pluralize
from masksweep.sweeps.components.datasets.arrays import Arrays, Head
from masksweep.sweeps.components.datasets.named import count
from masksweep.sweeps.components.datasets.pipeline import Pipeline
from masksweep.sweeps.config.trial import Trial


@dataclass(frozen=True)
class ModelSummary:
    """The weights of a trial's model, as its pattern masks them."""

    weights: tuple[WeightSummary, ...]
    """One entry for each weight, in the model's order. Where a pattern needs a training or the
    model's gradients, only the numbers of masked entries are right."""
    samples: str
    """How many samples the data have, and how many steps an epoch has: two lines."""
    unknown: str = ""
    """Why FLOPs are unknown; empty if they are known."""
    frozen: frozenset[str] = frozenset()
    """Names of the weights that do not train."""


def summaries(trials: Sequence[Trial]) -> list[ModelSummary]:
    """Describes the model of each trial, in this process.

    Call `process.prepare_process` once before, in the same process.

    Raises:
        Invalid: A plan cannot be made.
    """
    return [_summary(trial) for trial in trials]


def _summary(trial: Trial) -> ModelSummary:
    from masksweep.strategies.core.flops import positions
    from masksweep.strategies.core.selection import match_each
    from masksweep.strategies.core.weight_summary import summarize
    from masksweep.strategies.core.weights import all_weights, describe
    from masksweep.sweeps.training.setup import network, plan_for
    from masksweep.sweeps.training.start_weights import from_file

    data = trial.data.load()
    net = network(trial, data)
    # any seed: how many entries are masked does not depend on it
    initial = from_file(trial.start, net, net.initial(0))[0]
    plan = plan_for(trial, net.weights, initial, data.outputs)
    shapes = {w.name: w.shape for w in describe(net.model, all_weights(net.model))}
    try:
        counts, unknown = positions(net.model), ""
    except Invalid as error:
        counts, unknown = dict.fromkeys(shapes), error.allowed
    strategies = {w.weight.name: trial.label for w in plan.weights}
    weights = tuple(summarize(shapes, plan, strategies, counts))
    trained = match_each("trainable", [w.name for w in net.weights], trial.trainable)
    frozen = frozenset(shapes.keys() - {*trained})
    return ModelSummary(weights, _samples(trial, data), unknown, frozen)


def _samples(trial: Trial, data: Arrays) -> str:
    """Describes the parts of the data, and the steps of an epoch."""
    from masksweep.sweeps.training.step_counts import step_counts

    parts = {"training": data.train, "validation": data.validation, "test": data.test}
    counts = {
        name: count(part if isinstance(part, Pipeline) else part[0])
        for name, part in parts.items()
        if part is not None
    }
    steps, batch = step_counts(trial, data.samples)[0], trial.train.batch_size
    rest = data.samples - steps * batch
    epoch = f"an epoch is {pluralize(steps, 'step')} of {batch}"
    left_out = f"; the last {rest:,} are left out" if rest else ""
    named_counts = ", ".join(f"{number:,} {name}" for name, number in counts.items())
    heads = data.heads or {"": Head(data.task, data.outputs)}
    outputs = ", ".join(
        _describe(head) + (f" of {name}" if name else "") for name, head in heads.items()
    )
    return f"{named_counts} samples, {outputs}\n{epoch}{left_out}"


def _describe(head: Head) -> str:
    if head.task == "classification":
        return f"{head.outputs} classes"
    return pluralize(head.outputs, "label" if head.task == "multi_label" else "target")
