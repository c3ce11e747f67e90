"""Measures a trial: scores, integrity of the held values, memory and flops, time of a step."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from masksweep.strategies.base import Array, Plan
from masksweep.strategies.core import audit
from masksweep.strategies.core.connections import cut_off
from masksweep.strategies.core.moving_statistics import statistics
from masksweep.strategies.core.slots import slot_leak
from masksweep.strategies.core.weights import values
from masksweep.sweeps.common.memory import variable_bytes
from masksweep.sweeps.components.datasets.base import Split, score_name
from masksweep.sweeps.components.datasets.named import Part as Samples
from masksweep.sweeps.components.datasets.pipeline import first_samples
from masksweep.sweeps.training import batches, model_ends, setup, timing, weight_images
from masksweep.sweeps.training.flops import flops_metrics
from masksweep.sweeps.training.output_causes import output_causes
from masksweep.sweeps.training.program import Program
from masksweep.sweeps.training.setup import TrialStart
from masksweep.sweeps.training.steps import Progress
from masksweep.sweeps.training.vectorized import PackedProgram

if TYPE_CHECKING:
    from masksweep.sweeps.training.state import Position

PROBE_SAMPLES = 256
"""Number of samples on which outputs are compared: those of the live and the saved model, and
those before and after the training."""


MAX_HALF_DIFFERENCE = {"mixed_float16": 16 * 2**-10, "mixed_bfloat16": 16 * 2**-7}
"""As `audit.MAX_OUTPUT_DIFFERENCE`, for models that compute with 16 bits: 16 roundings."""

Part = Literal["validation", "test"]


@dataclass(frozen=True)
class Snapshot:
    """Weights and outputs of a program's model at one step."""

    weights: Mapping[str, Array]
    """Effective dense weights by name."""
    raw: Mapping[str, Array]
    """Raw variables of the masked weights by name, where they have the weight's shape."""
    outputs: Array
    """Outputs on the first `PROBE_SAMPLES` validation (else test) samples, `[samples, outputs]`.
    Several outputs stand side by side."""


def snapshot(start: TrialStart, program: Program) -> Snapshot:
    """Weights and outputs of the program's model as they are now."""
    return Snapshot(program.effective(), program.raw(), program.predict(_probe(start)))


def _probe(start: TrialStart) -> Samples:
    return _probe_samples(start)[0]


def _probe_samples(start: TrialStart) -> Split:
    return first_samples(start.data.validation or start.data.test, PROBE_SAMPLES)


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
    at_last_step = done == batches.schedule(start.trial, start.data.samples)[1]
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


def integrity(
    start: TrialStart,
    plan: Plan,
    program: Program,
    before: Snapshot,
    progress: Progress,
    loader: audit.Loader | None = None,
) -> tuple[dict[str, float], dict[str, bytes], str]:
    """Audits the trained model: saves it as a plain Keras model, reloads it, compares its weights.

    Args:
        start: The start of the trial.
        plan: The masks and held values at the end of the training.
        program: The program after the last step.
        before: The model before the first step.
        progress: Progress over all steps, with the results of their audits.
        loader: Loads the saved model; by default a new loader.

    Returns:
        (metrics, artifacts, SHA-256 of the reloaded weights). The metrics are empty if nothing is
        held.
    """
    after = snapshot(start, program)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        state = [np.asarray(v.numpy()) for v in program.training.state]
        baked = audit.save_and_reload(start.model, after.weights, state, path, loader)
        artifacts = {"model.keras": path.read_bytes()}
    reloaded = values(baked)
    live, saved = _statistics(program, state), {s.name: s for s in statistics(baked)}
    reloaded_state = {name: np.asarray(saved[name].variable.numpy()) for name in live}
    sha256 = audit.digest(reloaded)
    masks = {w.weight.name: w.mask for w in plan.weights}
    if masks:
        artifacts["masks.npz"] = _npz(masks)
        if start.trial.held.name != "zero":  # zeros need no file
            artifacts["held.npz"] = _npz({w.weight.name: w.held for w in plan.weights})
        artifacts |= weight_images.draw_weights(plan, before.weights, reloaded)
    outputs_held = list(plan.outputs_held)
    holds = any(not w.mask.all() for w in (*plan.weights, *start.pattern_plan.weights))
    if not holds and not outputs_held:
        return {}, artifacts, sha256  # nothing is held, so there is nothing to audit
    count, drift = audit.violations(reloaded, plan)
    of_probe = baked(_probe(start), training=False)
    outputs = np.asarray(model_ends.side_by_side(baked, start.data.heads, of_probe))
    policy = start.trial.train.mixed_precision
    max_difference = MAX_HALF_DIFFERENCE[policy] if policy else audit.MAX_OUTPUT_DIFFERENCE
    verdict = audit.Integrity(
        violations=count,
        peak_violations=max(count, progress.peak_violations),
        first_violation_step=progress.first,
        max_drift=drift,
        peak_drift=max(drift, progress.peak_drift),
        slot_leak=slot_leak(program.training),
        raw_drift=program.raw_drift(before.raw),
        moved=audit.moved_fraction(before.weights, reloaded, plan),
        agreement=float(np.abs(after.outputs - outputs).max()),
        tolerance=max_difference * max(1.0, float(np.abs(outputs).max())),
        output_drift=_output_drift(before.outputs, after.outputs, outputs_held),
        reloaded_exactly=audit.same_weights(reloaded, after.weights)
        and audit.same_weights(reloaded_state, live),
        frozen_violations=_count_frozen_changes(start, program, before, reloaded | reloaded_state),
        must_move=not start.trial.still_reason,
    )
    metrics = verdict.metrics() | _free_loss(start, before.outputs, after.outputs)
    return metrics, artifacts, sha256


def _statistics(program: Program, state: Sequence[Array]) -> dict[str, Array]:
    """Values of the statistics by name, out of `state`: all non-trainables in the model's order."""
    by_variable = {id(v): array for v, array in zip(program.training.state, state, strict=True)}
    return {s.name: by_variable[id(s.variable)] for s in statistics(program.training.model)}


def _count_frozen_changes(
    start: TrialStart, program: Program, before: Snapshot, now: Mapping[str, Array]
) -> int | None:
    """Number of changed entries in weights and statistics that do not train; None if all train."""
    training = program.training
    initial = {**before.weights, **_statistics(program, start.state)}
    trained = {id(v) for v in training.trained}
    pairs = zip(training.weights, training.values, strict=True)
    names = [w.name for w, v in pairs if id(v) not in trained]
    names += [s.name for s in training.frozen]
    return audit.count_differing({name: initial[name] for name in names}, now) if names else None


def moved_outputs(
    start: TrialStart, program: Program, before: Snapshot, metrics: Mapping[str, float]
) -> list[str]:
    """The causes of a move of a held output, such as `statistics of norm_1`.

    Args:
        start: The start of the trial.
        program: The program after the last step.
        before: The model before the first step.
        metrics: The trial's integrity metrics.

    Returns:
        The causes; empty if no held output moved.
    """
    if not metrics.get("integrity/output_drift"):
        return []
    final = program.effective(), [np.asarray(v.numpy()) for v in program.training.state]
    initial, outputs_held = (before.weights, start.state), start.plan.outputs_held
    return output_causes(start.model, initial, final, _probe(start), outputs_held)


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
    for weight, value in zip(training.weights, training.values, strict=True):
        masked, gradient = training.masked.get(weight.name), by_name.get(weight.name)
        if masked is None or gradient is None:
            continue
        if tuple(value.shape) != weight.shape:
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


def _npz(arrays: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _output_drift(before: Array, after: Array, outputs_held: list[int]) -> float | None:
    return float(np.abs(after - before)[..., outputs_held].max()) if outputs_held else None


def _free_loss(start: TrialStart, before: Array, after: Array) -> dict[str, float]:
    """Change of the mean squared error of the outputs that are not held, if others are held."""
    outputs_held = list(start.plan.outputs_held)
    if not outputs_held or start.data.task != "regression":
        return {}
    targets = _probe_samples(start)[1]
    errors = [
        np.delete((outputs - targets) ** 2, outputs_held, -1).mean() for outputs in (before, after)
    ]
    return {"integrity/free_loss_change": float(errors[1] - errors[0])}


def costs(start: TrialStart, plan: Plan, program: Program) -> dict[str, float]:
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
