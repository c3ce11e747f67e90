"""What needs the models' shapes: found before the first trial, and not in this process."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from masksweep.strategies.base import Invalid
from masksweep.sweeps.common.child import Child, Lost
from masksweep.sweeps.config.trial import Trial, parse, recorded
from masksweep.sweeps.results import Answer

Ask = Callable[[Sequence[Trial]], Sequence[Answer]]
"""`answers`, in a process that has TensorFlow."""


def check(trials: Sequence[Trial], ask: Ask) -> dict[str, Answer]:
    """What there is to say of trials, by trial id: refusals, and what is cut off.

    Each distinct shape is asked for once. Raises `Invalid` for a plan that cannot be made.
    """
    shapes = {trial.id: _shape(trial) for trial in trials}
    distinct: dict[str, Trial] = {}
    for trial in trials:
        distinct.setdefault(shapes[trial.id], trial)
    found = dict(zip(distinct, ask(list(distinct.values())), strict=True))
    return {i: answer for i, shape in shapes.items() if any(answer := found[shape])}


class Preflight:
    """A process that loads TensorFlow beside this one, and answers.

    So this one stays small, takes no GPU, and can do something else until then.
    """

    def __enter__(self) -> Self:
        self._child = Child(_load)
        return self

    def __exit__(self, *_: Any) -> None:
        self._child.end()

    def ask(self, trials: Sequence[Trial]) -> Sequence[Answer]:
        """`answers`. Raises what that raises."""
        try:
            return self._child.submit(_answers, [recorded(trial) for trial in trials]).result()
        except Lost:
            raise Invalid("model", "", "ended the process that built it; too large?") from None


def _load() -> None:
    from masksweep.sweeps.training.setup import prepare_process

    prepare_process(threads=1)


def _answers(configs: Sequence[Mapping[str, Any]]) -> list[Answer]:
    try:
        return answers([parse(config) for config in configs])
    except Invalid:
        raise
    except Exception:  # it may be one that cannot travel
        raise RuntimeError(traceback.format_exc()) from None


def _shape(trial: Trial) -> str:
    config = trial.canonical()
    kept = {k: v for k, v in config.items() if k not in ("optimizer", "audit", "jit")}
    kept["train"] = trial.train.batch_size, trial.train.switch_at
    return json.dumps(kept, sort_keys=True)


def answers(trials: Sequence[Trial]) -> list[Answer]:
    """What there is to say of each trial's plan; builds each distinct model once.

    For a process that `setup.prepare_process` was called in. Raises `Invalid` for a plan that
    cannot be made.
    """
    from masksweep.strategies.base import Array, match_each
    from masksweep.strategies.core.connections import cut_off
    from masksweep.strategies.core.moving_statistics import frozen_statistics
    from masksweep.strategies.patterns import Scored
    from masksweep.sweeps.components.initializers import Network
    from masksweep.sweeps.training.setup import network, plan_for, refusal, schedule, switched

    initials: dict[Network, dict[str, Array]] = {}
    found = []
    for trial in trials:
        data = trial.data.load()
        schedule(trial, len(data.train[0]))
        try:
            net = network(trial, data)
        except Exception as error:  # Keras' own reasons are of many kinds
            reason = str(error).strip().splitlines()[0]
            raise Invalid("model", trial.model, f"cannot be built: {reason}") from None
        # whether a plan can be made does not hang on the seed
        if net not in initials:
            initials[net] = net.initial(0)[0]
        initial = initials[net]
        match_each("trainable", [w.name for w in net.weights], trial.trainable)
        frozen_statistics(net.model, trial.trainable, trial.statistics)
        plan = plan_for(trial, net.weights, initial, data.outputs)
        known = not isinstance(trial.pattern, Scored)  # those go by a training
        kernels = [str(k) for k in cut_off(plan) if known and (k.units or k.inputs)]
        found.append(Answer(refusal(trial, plan) or "", "; ".join(kernels)))
        if trial.train.switch_at and not found[-1].refusal:
            switched(trial, net.weights, plan, initial)
    return found
