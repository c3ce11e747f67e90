"""What is measured of a trial: scores, integrity, costs, speed."""

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
from masksweep.sweeps.common.memory import bytes_of
from masksweep.sweeps.training import setup, timing, weight_images
from masksweep.sweeps.training.flops import step_ratio
from masksweep.sweeps.training.output_causes import output_causes
from masksweep.sweeps.training.program import Program
from masksweep.sweeps.training.setup import Start
from masksweep.sweeps.training.steps import Progress
from masksweep.sweeps.training.vectorized import Packed

if TYPE_CHECKING:
    from masksweep.sweeps.training.state import Position

PROBE = 256
"""Samples on which the live and the baked model are compared."""


Part = Literal["validation", "test"]


@dataclass(frozen=True)
class Snapshot:
    """A program's model at one moment."""

    weights: Mapping[str, Array]
    """Effective, dense, by name."""
    raw: Mapping[str, Array]
    """Raw variables behind the masked weights, where they have the weight's shape."""
    outputs: Array
    """On the probe, `[samples, outputs]`."""


def snapshot(start: Start, program: Program) -> Snapshot:
    """The model as it is now."""
    return Snapshot(program.effective(), program.raw(), program.predict(_probe(start)))


def _probe(start: Start) -> Array:
    return (start.data.validation or start.data.test)[0][:PROBE]


def epoch(start: Start, program: Program, at: Position) -> dict[str, float]:
    """Means over an epoch's steps, as the weights were at each, and the worst that its audits saw.

    Without the latter where nothing is held, or no step of the epoch was audited.
    """
    part, done, every = at.part, at.found.steps, start.trial.audit.every
    found = named("train", program, (part.loss / part.steps, part.score / part.steps))
    last = done == setup.schedule(start.trial, len(start.data.train[0]))[1]
    holds = any(not w.mask.all() for w in start.plan.weights)
    if holds and (last or done // every > (done - part.steps) // every):
        found["audit/violations"] = float(part.peak_violations)
        found["audit/drift"] = part.peak_drift
    return found


def named(part: str, program: Program, found: tuple[float, float]) -> dict[str, float]:
    """(loss, score) by the names of their metrics."""
    score = "accuracy" if program.shape.task == "classification" else "mse"
    return dict(zip((f"{part}/loss", f"{part}/{score}"), found, strict=True))


def integrity(
    start: Start,
    plan: Plan,
    program: Program,
    before: Snapshot,
    found: Progress,
    loader: audit.Loader | None = None,
) -> tuple[dict[str, float], dict[str, bytes], str]:
    """Audit the baked, saved, reloaded model; (metrics, artifacts, digest of its weights).

    The plan is what is held at the end.
    """
    after = snapshot(start, program)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        state = [np.asarray(v.numpy()) for v in program.training.state]
        baked = audit.bake(start.model, after.weights, state, path, loader)
        artifacts = {"model.keras": path.read_bytes()}
    reloaded = values(baked)
    now, moving = _statistics(program, state), {s.name: s for s in statistics(baked)}
    loaded = {name: np.asarray(moving[name].variable.numpy()) for name in now}
    sha256 = audit.digest(reloaded)
    masks = {w.weight.name: w.mask for w in plan.weights}
    if masks:
        artifacts["masks.npz"] = _npz(masks)
        if start.trial.held.name != "zero":  # which needs no file to be known
            artifacts["held.npz"] = _npz({w.weight.name: w.held for w in plan.weights})
        artifacts |= weight_images.of_weights(plan, before.weights, reloaded)
    held = list(plan.outputs_held)
    if all(mask.all() for mask in masks.values()) and not held:
        return {}, artifacts, sha256  # nothing is held, so there is nothing to audit
    count, drift = audit.violations(reloaded, plan)
    outputs = np.asarray(baked(_probe(start), training=False))
    verdict = audit.Integrity(
        violations=count,
        peak_violations=max(count, found.peak_violations),
        first_violation_step=found.first,
        max_drift=drift,
        peak_drift=max(drift, found.peak_drift),
        slot_leak=slot_leak(program.training),
        raw_drift=program.raw_drift(before.raw),
        moved=audit.moved(before.weights, reloaded, plan),
        agreement=float(np.abs(after.outputs - outputs).max()),
        tolerance=audit.AGREEMENT * max(1.0, float(np.abs(outputs).max())),
        output_drift=_output_drift(before.outputs, after.outputs, held),
        reloaded_exactly=audit.same(reloaded, after.weights) and audit.same(loaded, now),
        frozen_violations=_frozen(start, program, before, reloaded | loaded),
    )
    found_metrics = verdict.metrics() | _free_loss(start, before.outputs, after.outputs)
    return found_metrics, artifacts, sha256


def _statistics(program: Program, state: Sequence[Array]) -> dict[str, Array]:
    """The statistics by name, from all non-trainable variables in the model's order."""
    places = {id(v): array for v, array in zip(program.training.state, state, strict=True)}
    return {s.name: places[id(s.variable)] for s in statistics(program.training.model)}


def _frozen(
    start: Start, program: Program, before: Snapshot, now: Mapping[str, Array]
) -> int | None:
    """How many entries changed of what does not train; None where all does."""
    training = program.training
    begun = {**before.weights, **_statistics(program, start.state)}
    trained = {id(v) for v in training.trained}
    pairs = zip(training.weights, training.values, strict=True)
    names = [w.name for w, v in pairs if id(v) not in trained]
    names += [s.name for s in training.frozen]
    return audit.differing({n: begun[n] for n in names}, now) if names else None


def moved_outputs(
    start: Start, program: Program, before: Snapshot, metrics: Mapping[str, float]
) -> list[str]:
    """What made a held output move, as `statistics of norm_1`; empty where none moved."""
    if not metrics.get("integrity/output_drift"):
        return []
    now = program.effective(), [np.asarray(v.numpy()) for v in program.training.state]
    begun, held = (before.weights, start.state), start.plan.outputs_held
    return output_causes(start.model, begun, now, _probe(start), held)


def gradients(start: Start, program: Program, batch: tuple[Any, Any]) -> dict[str, float]:
    """What the optimizer gets at the first step: at masked entries the most, at kept the least.

    Absolute values. Where a strategy trains kept values only, a masked entry has no gradient: 0.
    """
    import tensorflow as tf

    training, held, kept = program.training, [], []
    found = program.gradients(*batch)
    for weight, value in zip(training.weights, training.values, strict=True):
        masked, gradient = training.masked.get(weight.name), found.get(weight.name)
        if masked is None or gradient is None:
            continue
        if tuple(value.shape) != weight.shape:
            none = tf.zeros(weight.shape, gradient.dtype)
            gradient = training.spread(gradient, masked, none)
        sizes, mask = np.abs(np.asarray(gradient)), masked.kept.numpy()
        held += [sizes[~mask].max(initial=0.0)]
        kept += [sizes[mask].min(initial=np.inf)]
    if not held:
        return {}
    # NumPy's, which do not pass over what is no number
    return {
        "integrity/held_gradient": float(np.max(held)),
        "integrity/kept_gradient": float(np.min(kept)),
    }


def _npz(arrays: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _output_drift(before: Array, after: Array, held: list[int]) -> float | None:
    return float(np.abs(after - before)[..., held].max()) if held else None


def _free_loss(start: Start, before: Array, after: Array) -> dict[str, float]:
    """How the squared error of the outputs that are not held changed on the probe, if some are."""
    held = list(start.plan.outputs_held)
    if not held or start.data.task != "regression":
        return {}
    targets = (start.data.validation or start.data.test)[1][:PROBE]
    errors = [np.delete((outputs - targets) ** 2, held, -1).mean() for outputs in (before, after)]
    return {"integrity/free_loss_change": float(errors[1] - errors[0])}


def costs(start: Start, program: Program) -> dict[str, float]:
    """Memory of weights (with what is kept of masks and held values), of the optimizer; flops.

    And how sparse the masked weights are, with the units and inputs that are cut off.
    """
    training = program.training
    constants = start.trial.strategy.bind().constants
    kept = sum(a.nbytes for w in start.plan.weights for a in constants(w))
    found: dict[str, float] = {
        "memory/parameters_bytes": bytes_of(training.values) + kept,
        "memory/optimizer_bytes": bytes_of(training.optimizer.variables),
    }
    if start.plan.weights:
        found["sparsity/achieved"] = start.plan.sparsity
        found["flops/step_ratio"] = step_ratio(start.model, start.plan)
    if kernels := cut_off(start.plan):
        found["sparsity/cut_off_units"] = sum(k.units for k in kernels)
        found["sparsity/cut_off_inputs"] = sum(k.inputs for k in kernels)
    return found


def step_time(start: Start, program: Program, samples: tuple[Any, Any, Array]) -> dict[str, float]:
    """The step's time beside the dense control's. Trains `program` on: the last thing to do."""
    dense = replace(start, trial=start.trial.control, plan=Plan())
    rounds = start.trial.speed.rounds
    timed = timing.compare(program, setup.program_for(dense), *samples, rounds)
    return _timed(start, timed)


def step_time_of_pack(
    starts: Sequence[Start], packed: Packed, samples: tuple[Any, Any, Array]
) -> dict[str, float]:
    """As `step_time`, a trial's share of the pack's step beside that of as many dense ones."""
    first = starts[0]
    dense = [replace(s, trial=s.trial.control, plan=Plan()) for s in starts]
    control = setup.packed_for(dense[0])
    control.fill([setup.lane(control, start) for start in dense])
    timed = timing.compare(packed, control, *samples, first.trial.speed.rounds)
    return _timed(first, timed.shared(packed.width))


def _timed(start: Start, timed: timing.Speed) -> dict[str, float]:
    found = {
        "speed/step_ms": timed.step_ms,
        "speed/dense_step_ms": timed.dense_step_ms,
        "speed/ratio_to_dense": timed.ratio,
        "speed/samples_per_s": 1000 * start.trial.train.batch_size / timed.step_ms,
    }
    if timed.limits:
        found["speed/ratio_low"], found["speed/ratio_high"] = timed.limits
    if timed.dense_to_dense is not None:
        found["speed/dense_to_dense"] = timed.dense_to_dense
    return found
