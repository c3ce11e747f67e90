"""What needs the models' shapes: found before the first trial, in a process of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from strategies.base import Invalid
from sweeps.config import Trial


def check(trials: Sequence[Trial]) -> dict[str, str]:
    """The reason of each trial that its strategy refuses, by trial id.

    Builds each distinct model once. TensorFlow is loaded in a child process, so that this one
    stays small and takes no GPU. Raises `Invalid` for a plan that cannot be made.
    """
    distinct: dict[str, Trial] = {}
    shape_of = {trial.id: _shape(trial) for trial in trials}
    for trial in trials:
        distinct.setdefault(shape_of[trial.id], trial)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            reasons = pool.submit(_reasons, list(distinct.values())).result()
        except BrokenProcessPool as error:
            raise Invalid("model", "", "ended the process that built it; too large?") from error
    found = dict(zip(distinct, reasons, strict=True))
    return {i: reason for i, shape in shape_of.items() if (reason := found[shape])}


def _shape(trial: Trial) -> str:
    config = trial.canonical()
    kept = {k: v for k, v in config.items() if k not in ("optimizer", "audit", "jit")}
    kept["train"] = trial.train.batch_size
    return json.dumps(kept, sort_keys=True)


def _reasons(trials: Sequence[Trial]) -> list[str | None]:
    from strategies.base import Array, Weight, match_each
    from strategies.weights import describe, values
    from sweeps.prepare import build_model, plan_for, prepare_process, schedule

    # TensorFlow greets on stderr, past every setting; what goes wrong is raised to the parent
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    prepare_process(threads=1)
    models: dict[object, tuple[list[Weight], dict[str, Array]]] = {}
    reasons = []
    for trial in trials:
        data = trial.data.load()
        schedule(trial, len(data.train[0]))
        if (trial.model, trial.data) not in models:
            try:
                model = build_model(trial, data)
            except Exception as error:  # Keras' own reasons are of many kinds
                reason = str(error).strip().splitlines()[0]
                raise Invalid("model", trial.model, f"cannot be built: {reason}") from None
            models[trial.model, trial.data] = describe(model), values(model)
        weights, initial = models[trial.model, trial.data]
        match_each("trainable", [w.name for w in weights], trial.trainable)
        plan = plan_for(trial, weights, initial, data.outputs)
        reasons.append(trial.strategy.refuses(plan))
    return reasons
