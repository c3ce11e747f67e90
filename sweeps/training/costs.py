"""What a trial costs: memory, multiply-adds, and the time of a step beside the dense control's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from masksweep.strategies.core.connections import cut_off
from masksweep.strategies.plan import Array, Plan
from masksweep.sweeps.common.memory import variable_bytes
from masksweep.sweeps.training import setup, timing
from masksweep.sweeps.training.flops import flops_metrics
from masksweep.sweeps.training.program import Program
from masksweep.sweeps.training.setup import TrialStart
from masksweep.sweeps.training.vectorized import PackedProgram


def cost_metrics(start: TrialStart, plan: Plan, program: Program) -> dict[str, float]:
    """Memory and multiply-adds of a training step, and the sparsity of the masked weights.

    Args:
        start: The start of the trial.
        plan: The masks and held values at the end of the training.
        program: The program after the last step.

    Returns:
        `memory/parameters_bytes` counts the values that train, and the masks and held values that
        the strategy computes with. The FLOPs are those of `flops_metrics`. With masks there are
        also the sparsity, and the number of units and inputs without any connection.
    """
    training = program.training
    strategy = start.trial.running_strategy
    constant_bytes = sum(
        array.nbytes
        for weight in start.plan.weights  # where a held value for all entries is stored once
        for array in strategy.for_weight(weight).bind().constants(weight)
    )
    metrics: dict[str, float] = {
        "memory/parameters_bytes": variable_bytes(training.values) + constant_bytes,
        "memory/optimizer_bytes": variable_bytes(training.optimizer.variables),
        **flops_metrics(start.model, plan),
    }
    if plan.weights:
        metrics["sparsity/achieved"] = plan.sparsity
    if kernels := cut_off(plan):
        metrics["sparsity/cut_off_units"] = sum(k.units for k in kernels)
        metrics["sparsity/cut_off_inputs"] = sum(k.inputs for k in kernels)
    return metrics


def step_time(
    start: TrialStart, program: Program, samples: tuple[Any, Any, Array]
) -> dict[str, float]:
    """Time of a training step, compared with the dense control's.

    This trains `program` further, so measure all else before.

    Args:
        start: The start of the trial.
        program: The trial's program.
        samples: (inputs, targets, order of the samples), as `StepLoop.run` takes them.
    """
    dense = replace(start, trial=start.trial.control, plan=Plan())
    rounds = start.trial.speed.rounds
    speed = timing.compare(program, setup.program_for(dense), *samples, rounds)
    return _speed_metrics(start, speed)


def step_time_of_pack(
    starts: Sequence[TrialStart], packed: PackedProgram, samples: tuple[Any, Any, Array]
) -> dict[str, float]:
    """As `step_time`, for a pack: the time of its step divided by its width.

    The control is a pack of the same width of dense trials.

    Args:
        starts: The starts of the pack's trials.
        packed: The pack's program.
        samples: (inputs, targets, order of the samples), as `StepLoop.run` takes them.
    """
    first = starts[0]
    dense = [replace(s, trial=s.trial.control, plan=Plan()) for s in starts]
    control = setup.packed_for(dense[0])
    control.set_lanes([setup.start_lane(control, start) for start in dense])
    speed = timing.compare(packed, control, *samples, first.trial.speed.rounds)
    return _speed_metrics(first, speed.per_trial(packed.width))


def _speed_metrics(start: TrialStart, speed: timing.Speed) -> dict[str, float]:
    metrics = {
        "speed/step_ms": speed.step_ms,
        "speed/dense_step_ms": speed.dense_step_ms,
        "speed/ratio_to_dense": speed.ratio,
        "speed/samples_per_s": 1000 * start.trial.train.batch_size / speed.step_ms,
    }
    if speed.limits:
        metrics["speed/ratio_low"], metrics["speed/ratio_high"] = speed.limits
    if speed.dense_to_dense is not None:
        metrics["speed/dense_to_dense"] = speed.dense_to_dense
    return metrics
