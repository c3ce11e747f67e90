"""Sets up a trial: its data, model and plan, and the program that trains it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from masksweep.strategies.errors import Invalid
from masksweep.strategies.patterns import Pattern
from masksweep.strategies.patterns.problem import Problem
from masksweep.strategies.plan import Array, Plan, Weight
from masksweep.strategies.schedules.base import Course
from masksweep.sweeps.common.seeding import derive_seed
from masksweep.sweeps.components.datasets.arrays import Arrays
from masksweep.sweeps.components.datasets.named import Named, Weighted
from masksweep.sweeps.components.datasets.pipeline import Pipeline
from masksweep.sweeps.components.losses import DEFAULT_LOSS
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.training import start_weights

if TYPE_CHECKING:
    from masksweep.strategies.core.weights import MaskMaker
    from masksweep.sweeps.components.initializers import Network
    from masksweep.sweeps.training.program import Lane, Program
    from masksweep.sweeps.training.program_shape import Shape
    from masksweep.sweeps.training.vectorized import PackedProgram


MAX_SCORED_SAMPLES = 4096
"""Largest number of samples of a pipeline from which a pattern chooses those of its scores."""


@dataclass(frozen=True)
class TrialStart:
    """A trial's model, data and plan before the first step."""

    trial: Trial
    data: Arrays
    model: Any
    """A Keras model of the trial's network, shared between trials. Do not read its weights: they
    may belong to another trial."""
    weights: Mapping[str, Array]
    """Initial values of the trainable weights by name."""
    state: list[Array]
    """Initial values of the non-trainable variables (moving statistics, seeds), in the model's
    order."""
    plan: Plan
    """The masks and held values at the first step."""
    pattern_plan: Plan = field(default_factory=Plan)
    """The masks of the pattern. They differ from those of `plan` if the schedule starts dense."""


def start(
    trial: Trial, data: Arrays | None = None, initial: start_weights.Initial | None = None
) -> TrialStart:
    """Builds the model, the initial values and the plan of a trial.

    Args:
        trial: The trial.
        data: Data to use in place of the trial's own data set.
        initial: Initial values to use in place of those that the trial's seed and `start` give.

    Raises:
        Invalid: The trial's plan cannot be made.
    """
    from masksweep.sweeps.training import matched_flops
    from masksweep.sweeps.training.losses import training_loss
    from masksweep.sweeps.training.step_counts import step_counts

    data = data or trial.data.load()
    net = network(trial, data)
    weights, state = start_weights.initial(trial, net) if initial is None else initial
    loss = training_loss(net.model, data.task, data.heads, **_loss(trial, data))
    problem = Problem(net.model, weights, state, *_scored_samples(trial, data), loss)
    plan = plan_for(trial, net.weights, weights, data.outputs, problem)
    epoch, steps = step_counts(trial, data.samples)
    trial = matched_flops.scaled(trial, net.model, plan, Course(steps, epoch))
    first = _without_masks(plan) if trial.mask_schedule.dense_start else plan
    return TrialStart(trial, data, net.model, weights, state, first, plan)


def _without_masks(plan: Plan) -> Plan:
    weights = tuple(replace(w, mask=np.ones_like(w.mask)) for w in plan.weights)
    return replace(plan, weights=weights)


def _scored_samples(trial: Trial, data: Arrays) -> tuple[Any, Any]:
    """The training samples that a pattern may choose from; the first ones of a pipeline."""
    if not isinstance(data.train, Pipeline):
        return data.train
    return data.train.first(MAX_SCORED_SAMPLES) if trial.pattern.needs_model else (None, None)


def network(trial: Trial, data: Arrays) -> Network:
    """The trial's network: its model, which all seeds share, and the initial values of a seed.

    Raises:
        Invalid: The model's outputs do not fit the data.
    """
    from masksweep.sweeps.components import initializers
    from masksweep.sweeps.components.models import ends

    policy = trial.train.mixed_precision
    ends.require_arity(trial.model, data)
    net = initializers.network(trial.model, data.shape, data.model_outputs, policy)
    ends.require_fit(trial.model, net.model, data)
    return net


def _loss(trial: Trial, data: Arrays) -> dict[str, Any]:
    """The settings of the trial's loss, as arguments of `training_loss` and `Shape`."""
    loss: str | Named[str] | None
    if data.heads is None:
        loss = trial.losses[""] if trial.losses[""] != DEFAULT_LOSS[data.task] else None
    else:
        loss = Named(trial.losses)
    return {
        "loss": loss,
        "loss_weights": Named(trial.train.loss_weights or {}) or None,
        "class_weights": class_weights(trial, data),
    }


def class_weights(trial: Trial, data: Arrays) -> tuple[float, ...] | None:
    """The weight of each class in the trial's loss; None if all are equal.

    Args:
        trial: The trial.
        data: The trial's data.

    Raises:
        Invalid: The number of weights is not that of the classes, the samples have weights too, or
            the labels must be counted, but are in a pipeline.
    """
    from masksweep.sweeps.training.losses import balanced

    weights = trial.train.class_weight
    if weights is None:
        return None
    if not isinstance(data.train, Pipeline) and isinstance(data.train[1], Weighted):
        allowed = f"must be null, as in Keras: the samples of {data.name} have weights"
        raise Invalid("train.class_weight", weights, allowed)
    if weights == "balanced":
        if isinstance(data.train, Pipeline):
            allowed = f"must be a list: the labels of {data.name} are not in memory"
            raise Invalid("train.class_weight", weights, allowed)
        return balanced(data.train[1], data.outputs)
    if len(weights) != data.outputs:
        allowed = f"must have {data.outputs} numbers, one for each class of {data.name}"
        raise Invalid("train.class_weight", list(weights), allowed)
    return tuple(float(weight) for weight in weights)


def plan_for(
    trial: Trial,
    weights: list[Weight],
    initial: Mapping[str, Array],
    outputs: int,
    problem: Problem | None = None,
) -> Plan:
    """The trial's plan: the masks and held values of its target weights; empty for `dense`.

    Args:
        trial: The trial.
        weights: Descriptions of the model's trainable weights.
        initial: Initial values of the trainable weights by name.
        outputs: Number of the model's outputs.
        problem: The model, its data and its loss. Without them, a pattern that needs a model gives
            masks of the right sizes only.

    Raises:
        Invalid: The targets, masks, held values or held outputs do not fit the model.
    """
    if trial.strategy.role == "dense":
        return Plan()
    if trial.outputs_held and trial.data.tasks:
        allowed = f"must be empty: {trial.data.name} has several outputs"
        raise Invalid("outputs_held", trial.outputs_held, allowed)
    for index in trial.outputs_held:
        if index >= outputs:
            allowed = f"must be below {outputs}, the outputs of the model"
            raise Invalid("outputs_held", index, allowed)
    return drawn_plan(trial, weights, initial, derive_seed(trial.seed, "masks"), problem)


def drawn_plan(
    trial: Trial,
    weights: Sequence[Weight],
    initial: Mapping[str, Array],
    seed: int,
    problem: Problem | None = None,
) -> Plan:
    """As `plan_for`, with masks that are drawn with another seed."""
    from masksweep.strategies.core.weights import make_plan

    try:
        return make_plan(
            weights,
            initial,
            masks=_mask_maker(trial.pattern, problem),
            held=trial.held.values,
            targets=trial.pattern.default_targets if trial.targets is None else trial.targets,
            outputs_held=trial.outputs_held,
            seed=seed,
        )
    except Invalid as error:
        for group in ("pattern", "held"):
            if error.key in (field.name for field in fields(getattr(trial, group))):
                raise Invalid(f"{group}.{error.key}", error.value, error.allowed) from error
        raise


def _mask_maker(pattern: Pattern, problem: Problem | None) -> MaskMaker:
    """Returns the function that makes the masks from the targeted weights and the seed."""
    if problem is not None:
        return partial(pattern.from_problem, problem)
    if pattern.needs_model:
        return lambda weights, seed: pattern.masks({n: a.shape for n, a in weights.items()}, seed)
    return pattern.from_weights


def program_for(start: TrialStart) -> Program:
    """The process's program of the trial's shape, with all variables set to the trial's start."""
    from masksweep.sweeps.training.program_cache import get_or_build

    wanted_shape = shape(start)
    program: Program = get_or_build(wanted_shape, lambda: _program(start, wanted_shape))
    return _reset(program, start)


def packed_for(start: TrialStart) -> PackedProgram:
    """The process's program that runs trials of this shape side by side; its values are not set."""
    from masksweep.sweeps.training.program_cache import get_or_build
    from masksweep.sweeps.training.vectorized import PackedProgram

    wanted_shape = shape(start).of_pack(start.trial.width)

    def build() -> PackedProgram:
        return PackedProgram(_program(start, wanted_shape))

    packed: PackedProgram = get_or_build(wanted_shape, build)
    return packed


def start_lane(packed: PackedProgram, start: TrialStart) -> Lane:
    """The values of all variables of a trial at its start."""
    return _values(packed.single_program, start)


def fresh_program(start: TrialStart) -> Program:
    """As `program_for`, but always a new program, which no other trial reuses."""
    return _reset(_program(start, shape(start)), start)


def _program(start: TrialStart, wanted_shape: Shape) -> Program:
    """A new program of this shape, with its own Keras model."""
    from masksweep.sweeps.training.program import Program

    model = network(start.trial, start.data).build(derive_seed(start.trial.seed, "weights"))
    return Program(wanted_shape, model, _plan_in_program_layout(start))


def _plan_in_program_layout(start: TrialStart) -> Plan:
    """The plan with arrays in the memory layout that the trial's program takes.

    A held value that is the same for all entries may be stored once and broadcast. In a pack it is
    written out for each entry, so that trials with other kinds of held values share the program.
    """
    if start.trial.width == 1:
        return start.plan
    weights = tuple(replace(w, held=np.array(w.held, order="C")) for w in start.plan.weights)
    return replace(start.plan, weights=weights)


def shape(start: TrialStart) -> Shape:
    """All that determines the graph of the trial's program."""
    from masksweep.sweeps.training.program_shape import Shape
    from masksweep.sweeps.training.step_counts import step_counts

    trial, data = start.trial, start.data
    steps = step_counts(trial, data.samples)[1]
    return Shape.of(
        _plan_in_program_layout(start),
        trial.running_strategy,
        trial.optimizer.for_steps(steps),
        model=trial.model,
        inputs=data.shape,
        outputs=data.model_outputs,
        task=data.task,
        heads=data.heads,
        trainable=tuple(trial.trainable),
        statistics=None if trial.statistics is None else tuple(trial.statistics),
        jit=trial.compiles_with_xla(start.plan),
        **_loss(trial, data),
        mixed_precision=trial.train.mixed_precision,
    )


def _reset(program: Program, start: TrialStart) -> Program:
    program.training.assign_all(_values(program, start))
    return program


def _values(program: Program, start: TrialStart) -> Lane:
    return program.start(
        start.weights, start.state, start.plan, start.trial.optimizer.learning_rate
    )


def refusal(trial: Trial, plan: Plan) -> str | None:
    """Why the trial's strategy, or the strategy it is compared with, cannot hold the plan.

    Args:
        trial: The trial.
        plan: The plan with the masks of the pattern.

    Returns:
        The reason, or None if both can.
    """
    strategy = trial.running_strategy
    if reason := strategy.refuses(plan):
        return reason
    if plan.weights and (reason := trial.mask_schedule.refuses(strategy, plan)):
        return reason
    if trial.compare and (reason := trial.compare.refuses(plan)):
        return f"compare: {trial.compare.name}: {reason}"
    return None
