"""Patterns that go by a training: the rounds before a trial, each trained from the same start."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf

from masksweep.strategies.base import Array, Invalid, Plan
from masksweep.strategies.patterns.base import Scored
from masksweep.sweeps.common.provenance import code_version
from masksweep.sweeps.common.storage import Folder
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.training import setup
from masksweep.sweeps.training.loop import alone
from masksweep.sweeps.training.setup import Start

_last: dict[str, Mapping[str, Array]] = {}
"""The weights after the newest round that this process trained."""


def with_masks(start: Start, shelf: Folder | None) -> Start:
    """The start with the masks that the rounds before it lead to.

    Goes on from the newest round that was trained before, here or by another worker: their
    weights are kept on the shelf. All of it follows from the trial's config alone, so the masks
    are the same without. Raises `Invalid` where the rounds' network has other shapes.
    """
    if not isinstance(start.trial.pattern, Scored) or not start.plan.weights:
        return start
    rounds = start if start.trial.pattern.found_with is None else _otherwise(start)
    pattern = rounds.trial.pattern
    assert isinstance(pattern, Scored)
    chain = [pattern]
    while earlier := chain[0].before:
        chain.insert(0, earlier)
    keys = [_key(rounds.trial, p) for p in chain]
    scores: Mapping[str, Array] = start.weights  # the first round masks nothing, whatever they are
    trained = 0
    for number in range(len(chain) - 1, 0, -1):
        if (found := _kept(keys[number - 1], shelf)) is not None:
            scores, trained = found, number
            break
    for number, current in enumerate(chain):
        if number < trained:
            continue
        plan = _masked(start.plan, current, scores)
        if current is pattern or start.trial.strategy.refuses(plan):
            break  # a round that cannot be held leads to no other
        scores = _trained(replace(rounds, plan=plan))
        _keep(keys[number], scores, shelf)
        # those that another trial began with are kept
        if shelf is not None and number > trained:
            with suppress(Exception):  # what cannot be removed does no harm
                shelf.remove(f"{keys[number - 1]}.npz")
    return replace(start, plan=plan)


def _otherwise(start: Start) -> Start:
    """What the rounds start from, where they have something otherwise than the trial."""
    made = setup.start(start.trial.rounds)
    shapes = [{n: w.shape for n, w in s.weights.items()} for s in (made, start)]
    if shapes[0] != shapes[1]:
        given = made.trial.data.name
        raise Invalid("pattern.found_with", given, "must lead to weights of the trial's own shapes")
    return made


def _masked(plan: Plan, pattern: Scored, scores: Mapping[str, Array]) -> Plan:
    masks = pattern.by_scores({w.weight.name: scores[w.weight.name] for w in plan.weights})
    return replace(plan, weights=tuple(replace(w, mask=masks[w.weight.name]) for w in plan.weights))


def _trained(start: Start) -> dict[str, Array]:
    """The effective weights at the end of a training."""
    loop = alone(start)
    loop.run()
    program = loop.program.one
    program.training.finalize()
    return program.effective()


def _key(trial: Trial, pattern: Scored) -> str:
    """What the weights after a round follow from."""
    earlier = trial.model_copy(update={"pattern": pattern, "compare": None})
    told = [earlier.canonical(), code_version(), tf.__version__, keras.__version__]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _keep(key: str, scores: Mapping[str, Array], shelf: Folder | None) -> None:
    _last.clear()
    _last[key] = scores
    if shelf is not None:
        buffer = io.BytesIO()
        np.savez(buffer, **scores)  # type: ignore[arg-type]
        content = buffer.getvalue()
        digest = hashlib.sha256(content).hexdigest()
        with suppress(Exception):  # file systems have errors of their own; it is trained again then
            shelf.write(f"{key}.npz", digest.encode() + content)


def _kept(key: str, shelf: Folder | None) -> Mapping[str, Array] | None:
    if key in _last:
        return _last[key]
    if shelf is None:
        return None
    try:
        content = shelf.read(f"{key}.npz")
        if hashlib.sha256(content[64:]).hexdigest().encode() != content[:64]:
            return None
        with np.load(io.BytesIO(content[64:]), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception:  # not there, or damaged: it is trained again
        return None
