"""One trial: train once under one strategy, audit what it held. No Ray, no MLflow."""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from strategies.base import Array, Invalid, Plan, Weight
from sweeps.config import Trial
from sweeps.data import Arrays
from sweeps.memory import Peak, bytes_of
from sweeps.seeds import derive, permutation

if TYPE_CHECKING:
    from sweeps.program import Program, Progress

Emit = Callable[[int, Mapping[str, float]], None]
"""(epoch from 1, metrics by name): called at the end of each epoch but the last."""
CHUNK_SECONDS = 2.0
PROBE = 256
"""Samples on which the live and the baked model are compared."""


@dataclass(frozen=True)
class TrialResult:
    """What one trial found."""

    status: Literal["ok", "skipped"]
    reason: str = ""
    """Why it was skipped."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Final metrics by their names in the house."""
    tags: Mapping[str, str] = field(default_factory=dict)
    artifacts: Mapping[str, bytes] = field(default_factory=dict)
    """Content by file name."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Name, digest and shapes of the training data."""
    epochs: int = 0
    seconds: float = 0.0


def prepare_process(threads: int, num_gpus: float = 0) -> None:
    """Set what TensorFlow fixes at its first use. Call it once, before any other use of it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if not num_gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    tf.config.experimental.enable_op_determinism()


def build_model(trial: Trial, data: Arrays) -> Any:
    """The trial's network with its initial values, which depend on the seed alone."""
    import keras

    keras.utils.set_random_seed(derive(trial.seed, "weights"))
    return trial.model.build(data.shape, data.outputs)


def plan_for(
    trial: Trial, weights: list[Weight], initial: Mapping[str, Array], outputs: int
) -> Plan:
    """The trial's plan. Raises `Invalid` where targets, masks or held values do not fit."""
    from strategies.weights import make_plan

    if trial.strategy.role == "dense":
        return Plan()
    for index in trial.outputs_held:
        if index >= outputs:
            raise Invalid(
                "outputs_held", index, f"must be below {outputs}, the outputs of the model"
            )
    try:
        return make_plan(
            weights,
            initial,
            masks=trial.pattern.masks,
            held=trial.held.values,
            targets=trial.targets,
            outputs_held=trial.outputs_held,
            seed=derive(trial.seed, "masks"),
        )
    except Invalid as error:
        for group in ("pattern", "held"):
            if error.key in (f.name for f in fields(getattr(trial, group))):
                raise Invalid(f"{group}.{error.key}", error.value, error.allowed) from error
        raise


def schedule(trial: Trial, samples: int) -> tuple[int, int]:
    """(steps of an epoch, steps in all). An epoch's last samples are left out if no full batch."""
    batch = trial.train.batch_size
    if batch > samples:
        raise Invalid("train.batch_size", batch, f"must be at most {samples}, the training samples")
    epoch = samples // batch
    return epoch, trial.train.steps or trial.train.epochs * epoch


def run(trial: Trial, emit: Emit = lambda epoch, metrics: None) -> TrialResult:
    """Run one trial in this process, for which `prepare_process` was called.

    A plan that the strategy refuses is not approximated: the result is `skipped`, with the reason.
    """
    import tensorflow as tf

    from strategies.weights import describe, values
    from sweeps import environment
    from sweeps.program import Progress

    tic, peak = time.perf_counter(), Peak()
    data = trial.data.load()
    model = build_model(trial, data)
    initial = values(model)
    plan = plan_for(trial, describe(model), initial, data.outputs)
    if reason := trial.strategy.refuses(plan):
        return TrialResult("skipped", reason)

    state = [np.asarray(v.numpy()) for v in model.non_trainable_variables]
    program = _program(trial, data, model, plan)
    program.reset(initial, state, plan, trial.optimizer.learning_rate)
    compiled = program.compile_seconds
    probe = (data.validation or data.test)[0][:PROBE]
    start = _Start(program.effective(), program.raw(), program.predict(probe))

    samples = len(data.train[0])
    x, y = (tf.constant(a) for a in data.train)
    epoch, total = schedule(trial, samples)
    found, number, chunk = Progress(), 0, 64
    while found.steps < total:
        order = _order(trial, samples, epoch, number)
        end, part = min(total, found.steps + epoch), Progress()
        while found.steps < end:
            steps, toc = min(chunk, end - found.steps), time.perf_counter()
            new = program.run(x, y, order, found.steps, steps, trial.audit.every, total)
            chunk = 1 + int(steps * CHUNK_SECONDS / (time.perf_counter() - toc))
            found, part = found + new, part + new
        number += 1
        if found.steps < total:  # the last epoch's metrics are the result's own
            emit(number, _train_metrics(program, part) | _metrics(program, "validation", data))
    program.training.finalize()

    weights = program.effective()
    metrics = _train_metrics(program, part) | _metrics(program, "validation", data)
    metrics |= _metrics(program, "test", data)
    metrics |= {"speed/compile_s": program.compile_seconds - compiled}
    integrity, artifacts, sha256 = _audit(plan, program, model, weights, start, probe, found)
    metrics |= integrity | _costs(trial, program, model, plan)
    metrics |= _speed(trial, data, program, initial, state, (x, y, order))
    if (largest := peak.bytes()) is not None:
        metrics["memory/peak_bytes"] = largest
    described = {
        "name": data.name,
        "digest": data.digest,
        "features": list(data.train[0].shape),
        "targets": list(data.train[1].shape),
    }
    return TrialResult(
        "ok",
        metrics=metrics,
        tags={"trial.weights_sha256": sha256},
        artifacts=artifacts | {"environment.txt": environment.describe().encode()},
        data=described,
        epochs=number,
        seconds=time.perf_counter() - tic,
    )


@dataclass(frozen=True)
class _Start:
    """The model before its first step."""

    weights: Mapping[str, Array]
    raw: Mapping[str, Array]
    outputs: Array


def _program(trial: Trial, data: Arrays, model: Any, plan: Plan) -> Program:
    from sweeps import program

    shape = program.Shape.of(
        plan,
        trial.strategy,
        trial.optimizer,
        model=trial.model,
        inputs=data.shape,
        outputs=data.outputs,
        task=data.task,
        trainable=tuple(trial.trainable),
        jit=trial.jit,
    )
    return program.program(shape, model, plan)


def _order(trial: Trial, samples: int, epoch: int, number: int) -> Array:
    """The samples of one epoch's batches, `[steps, batch]`."""
    batch = trial.train.batch_size
    rows = (
        permutation(samples, trial.seed, f"order/{number}")
        if trial.train.shuffle
        else np.arange(samples, dtype=np.int32)
    )
    return rows[: epoch * batch].reshape(epoch, batch)


def _score_name(program: Program) -> str:
    return "accuracy" if program.shape.task == "classification" else "mse"


def _train_metrics(program: Program, part: Progress) -> dict[str, float]:
    """Means over the steps of an epoch, as the weights were at each."""
    loss, score = part.loss / part.steps, part.score / part.steps
    return {"train/loss": loss, f"train/{_score_name(program)}": score}


def _metrics(
    program: Program, part: Literal["validation", "test"], data: Arrays
) -> dict[str, float]:
    split = getattr(data, part)
    if split is None:
        return {}
    loss, score = program.evaluate(*split)
    return {f"{part}/loss": loss, f"{part}/{_score_name(program)}": score}


def _audit(
    plan: Plan,
    program: Program,
    model: Any,
    weights: Mapping[str, Array],
    start: _Start,
    probe: Array,
    found: Progress,
) -> tuple[dict[str, float], dict[str, bytes], str]:
    """(integrity metrics, artifacts, digest of the baked weights)."""
    from strategies import audit
    from strategies.weights import values

    outputs = program.predict(probe)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        state = [np.asarray(v.numpy()) for v in program.training.state]
        baked = audit.bake(model, weights, state, path)
        artifacts = {"model.keras": path.read_bytes()}
    reloaded = values(baked)
    if not plan.weights:
        return {}, artifacts, audit.digest(reloaded)
    held = list(plan.outputs_held)
    count, drift = audit.violations(reloaded, plan)
    integrity = audit.Integrity(
        violations=count,
        peak_violations=max(count, found.peak_violations),
        first_violation_step=found.first,
        max_drift=drift,
        peak_drift=max(drift, found.peak_drift),
        slot_leak=program.training.slot_leak(),
        raw_drift=program.raw_drift(start.raw),
        moved=audit.moved(start.weights, reloaded, plan),
        agreement=float(np.abs(outputs - np.asarray(baked(probe, training=False))).max()),
        tolerance=audit.AGREEMENT * max(1.0, float(np.abs(outputs).max())),
        output_drift=float(np.abs(outputs - start.outputs)[..., held].max()) if held else None,
        reloaded_exactly=audit.same(reloaded, weights),
    )
    buffer = io.BytesIO()
    masks: dict[str, Any] = {w.weight.name: w.mask for w in plan.weights}
    np.savez_compressed(buffer, **masks)
    artifacts["masks.npz"] = buffer.getvalue()
    return integrity.metrics(), artifacts, audit.digest(reloaded)


def _costs(trial: Trial, program: Program, model: Any, plan: Plan) -> dict[str, float]:
    from sweeps.flops import step_ratio

    training = program.training
    kept = [v for m in training.masked.values() for v in (m.layout, m.held)]
    found: dict[str, float] = {
        "memory/parameters_bytes": bytes_of([*training.values, *kept]),
        "memory/optimizer_bytes": bytes_of(training.optimizer.variables),
    }
    if plan.weights:
        found |= {"sparsity/achieved": plan.sparsity, "flops/step_ratio": step_ratio(model, plan)}
    return found


def _speed(
    trial: Trial,
    data: Arrays,
    program: Program,
    initial: Mapping[str, Array],
    state: list[Array],
    samples: tuple[Any, Any, Array],
) -> dict[str, float]:
    from sweeps.speed import compare

    control = _program(trial.control, data, build_model(trial, data), Plan())
    control.reset(initial, state, Plan(), trial.optimizer.learning_rate)
    speed = compare(program, control, *samples)
    return {
        "speed/step_ms": speed.step_ms,
        "speed/dense_step_ms": speed.dense_step_ms,
        "speed/ratio_to_dense": speed.ratio,
        "speed/samples_per_s": 1000 * trial.train.batch_size / speed.step_ms,
    }
