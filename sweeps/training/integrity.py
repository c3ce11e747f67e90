"""Audits a trained model: whether what is held has its values, bit for bit."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from masksweep.strategies.core import audit
from masksweep.strategies.core.moving_statistics import statistics
from masksweep.strategies.core.slots import slot_leak
from masksweep.strategies.core.weights import values
from masksweep.strategies.plan import Array, Plan
from masksweep.sweeps.results import Diverged
from masksweep.sweeps.training import model_ends, weight_images
from masksweep.sweeps.training.output_causes import output_causes
from masksweep.sweeps.training.program import Program
from masksweep.sweeps.training.setup import TrialStart
from masksweep.sweeps.training.snapshot import Snapshot, probe, probe_samples, take_snapshot
from masksweep.sweeps.training.steps import Progress

MAX_HALF_DIFFERENCE = {"mixed_float16": 16 * 2**-10, "mixed_bfloat16": 16 * 2**-7}
"""As `audit.MAX_OUTPUT_DIFFERENCE`, for models that compute with 16 bits: 16 roundings."""


def audit_trained(
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

    Raises:
        Diverged: The model computes NaN.
    """
    after = take_snapshot(start, program)
    if np.isnan(after.outputs).any():  # the loss of a step is computed before its update
        raise Diverged(f"diverged: the outputs are NaN after step {progress.steps}")
    state = [np.asarray(v.numpy()) for v in program.training.state]
    baked, content = _saved(start, after, state, loader)
    artifacts, reloaded = {"model.keras": content}, values(baked)
    live, saved = _statistics(program, state), {s.name: s for s in statistics(baked)}
    reloaded_state = {name: np.asarray(saved[name].variable.numpy()) for name in live}
    sha256 = audit.digest(reloaded)
    artifacts |= _mask_files(start, plan, before, reloaded)
    outputs_held = list(plan.outputs_held)
    holds = any(not w.mask.all() for w in (*plan.weights, *start.pattern_plan.weights))
    if not holds and not outputs_held:
        return {}, artifacts, sha256  # nothing is held, so there is nothing to audit
    count, drift = audit.violations(reloaded, plan)
    outputs = _outputs(start, baked)
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
        tolerance=_max_difference(start, outputs),
        output_drift=_output_drift(before.outputs, after.outputs, outputs_held),
        reloaded_exactly=audit.same_weights(reloaded, after.weights)
        and audit.same_weights(reloaded_state, live),
        frozen_violations=_count_frozen_changes(start, program, before, reloaded | reloaded_state),
        must_move=not start.trial.still_reason,
    )
    metrics = verdict.metrics() | _free_loss(start, before.outputs, after.outputs)
    return metrics, artifacts, sha256


def _saved(
    start: TrialStart, after: Snapshot, state: list[Array], loader: audit.Loader | None
) -> tuple[Any, bytes]:
    """The trained model as it is loaded from its file, and the content of the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        baked = audit.save_and_reload(start.model, after.weights, state, path, loader)
        return baked, path.read_bytes()


def _outputs(start: TrialStart, model: Any) -> Array:
    """The outputs of a model for the samples of the probe, of several heads side by side."""
    by_head = model(probe(start), training=False)
    return np.asarray(model_ends.side_by_side(model, start.data.heads, by_head))


def _max_difference(start: TrialStart, outputs: Array) -> float:
    """The largest difference of outputs that rounding can cause."""
    policy = start.trial.train.mixed_precision
    relative = MAX_HALF_DIFFERENCE[policy] if policy else audit.MAX_OUTPUT_DIFFERENCE
    return relative * max(1.0, float(np.abs(outputs).max()))


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
    return output_causes(start.model, initial, final, probe(start), outputs_held)


def _mask_files(
    start: TrialStart, plan: Plan, before: Snapshot, reloaded: Mapping[str, Array]
) -> dict[str, bytes]:
    """Files of the masks and held values, and pictures of the weights; none without masks."""
    if not plan.weights:
        return {}
    files = {"masks.npz": _npz({w.weight.name: w.mask for w in plan.weights})}
    if start.trial.held.name != "zero":  # zeros need no file
        files["held.npz"] = _npz({w.weight.name: w.held for w in plan.weights})
    return files | weight_images.draw_weights(plan, before.weights, reloaded)


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
    targets = probe_samples(start)[1]
    errors = [
        np.delete((outputs - targets) ** 2, outputs_held, -1).mean() for outputs in (before, after)
    ]
    return {"integrity/free_loss_change": float(errors[1] - errors[0])}
