"""Iterative pruning: trains the rounds that lead to a trial's masks.

Each round starts from the same initial weights. Its masks follow from the weights after the round
before.

Reference:
    Frankle and Carbin, The Lottery Ticket Hypothesis, ICLR 2019, https://arxiv.org/abs/1803.03635
"""

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
"""Weights by name after the newest round that this process trained, under the round's key."""


def with_masks(start: Start, shelf: Folder | None) -> Start:
    """The start with the masks that the trial's pruning rounds lead to.

    The weights after a round are saved on the shelf. The rounds continue from the newest one that
    this process or another worker has trained. The masks depend on the trial's config alone, so
    they are the same with and without a shelf.

    Args:
        start: The start of the trial. It is returned as it is if its pattern needs no training.
        shelf: Folder for the weights after each round; None to train all rounds here.

    Raises:
        Invalid: The network of the rounds has weights of other shapes than the trial's.
    """
    if not isinstance(start.trial.pattern, Scored) or not start.plan.weights:
        return start
    rounds = start if start.trial.pattern.found_with is None else _otherwise(start)
    pattern = rounds.trial.pattern
    assert isinstance(pattern, Scored)
    patterns = [pattern]
    while previous := patterns[0].before:
        patterns.insert(0, previous)
    keys = [_key(rounds.trial, p) for p in patterns]
    # the first round masks nothing, so its scores do not matter
    scores: Mapping[str, Array] = start.weights
    rounds_done = 0
    for number in range(len(patterns) - 1, 0, -1):
        if (saved_weights := _kept(keys[number - 1], shelf)) is not None:
            scores, rounds_done = saved_weights, number
            break
    for number, current in enumerate(patterns):
        if number < rounds_done:
            continue
        plan = _masked(start.plan, current, scores)
        if current is pattern or start.trial.strategy.refuses(plan):
            break  # the strategy cannot train this round, so there is no next one
        scores = _trained(replace(rounds, plan=plan))
        _keep(keys[number], scores, shelf)
        # this round replaces the one before, unless that one was on the shelf at the beginning:
        # other trials may start from it
        if shelf is not None and number > rounds_done:
            with suppress(Exception):  # a file that is left over does no harm
                shelf.remove(f"{keys[number - 1]}.npz")
    return replace(start, plan=plan)


def _otherwise(start: Start) -> Start:
    """The start of the rounds, whose settings differ from the trial's (`pattern.found_with`)."""
    rounds = setup.start(start.trial.pruning_trial)
    shapes = [{n: w.shape for n, w in s.weights.items()} for s in (rounds, start)]
    if shapes[0] != shapes[1]:
        data_name = rounds.trial.data.name
        raise Invalid(
            "pattern.found_with", data_name, "must lead to weights of the trial's own shapes"
        )
    return rounds


def _masked(plan: Plan, pattern: Scored, scores: Mapping[str, Array]) -> Plan:
    masks = pattern.by_scores({w.weight.name: scores[w.weight.name] for w in plan.weights})
    return replace(plan, weights=tuple(replace(w, mask=masks[w.weight.name]) for w in plan.weights))


def _trained(start: Start) -> dict[str, Array]:
    """The effective weights by name at the end of a training."""
    loop = alone(start)
    loop.run()
    program = loop.program.one
    program.training.finalize()
    return program.effective()


def _key(trial: Trial, pattern: Scored) -> str:
    """SHA-256 of all that determines the weights after a round: config and code versions."""
    round_trial = trial.model_copy(update={"pattern": pattern, "compare": None})
    parts = [round_trial.canonical(), code_version(), tf.__version__, keras.__version__]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _keep(key: str, scores: Mapping[str, Array], shelf: Folder | None) -> None:
    _last.clear()
    _last[key] = scores
    if shelf is not None:
        buffer = io.BytesIO()
        np.savez(buffer, **scores)  # type: ignore[arg-type]
        content = buffer.getvalue()
        digest = hashlib.sha256(content).hexdigest()
        # each file system has its own errors; without the file, the round is trained again
        with suppress(Exception):
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
    except Exception:  # missing or damaged: the round is trained again
        return None
