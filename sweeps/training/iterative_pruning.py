"""Iterative pruning: trains the rounds that lead to a trial's masks.

Each round starts from the same initial weights. Its masks follow from the weights after the round
before.

Reference:
    Frankle and Carbin, The Lottery Ticket Hypothesis, ICLR 2019, https://arxiv.org/abs/1803.03635
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from masksweep.strategies.errors import Invalid
from masksweep.strategies.patterns.base import Scored
from masksweep.strategies.plan import Array, Plan
from masksweep.sweeps.common.storage import Folder
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.training import dense_start, saved_weights
from masksweep.sweeps.training.loop import single_trial_loop
from masksweep.sweeps.training.setup import TrialStart


def with_masks(start: TrialStart, rounds_folder: Folder | None) -> TrialStart:
    """The start with the masks that the trial's pruning rounds lead to.

    The weights after a round are saved in a folder. The rounds continue from the newest one that
    this process or another worker has trained. The masks depend on the trial's config alone, so
    they are the same with and without a folder.

    Args:
        start: The start of the trial. It is returned as it is if its pattern needs no training.
        rounds_folder: Folder for the weights after each round; None to train all rounds here.

    Raises:
        Invalid: The network of the rounds has weights of other shapes than the trial's.
    """
    if not isinstance(start.trial.pattern, Scored) or not start.plan.weights:
        return start
    rounds = start
    if start.trial.pattern.found_with is not None:
        rounds = _start_of_rounds(start, rounds_folder)
    pattern = rounds.trial.pattern
    assert isinstance(pattern, Scored)
    patterns = [pattern]
    while previous := patterns[0].before:
        patterns.insert(0, previous)
    keys = [_round_key(rounds.trial, p) for p in patterns]
    # the first round masks nothing, so its scores do not matter
    scores: Mapping[str, Array] = start.weights
    rounds_done = 0
    for number in range(len(patterns) - 1, 0, -1):
        if (saved := saved_weights.load(keys[number - 1], rounds_folder)) is not None:
            scores, rounds_done = saved, number
            break
    for number, current in enumerate(patterns):
        if number < rounds_done:
            continue
        plan = _round_plan(start.plan, current, scores)
        if current is pattern or start.trial.strategy.refuses(plan):
            break  # the strategy cannot train this round, so there is no next one
        scores = _train_round(replace(rounds, plan=plan))
        saved_weights.save(keys[number], scores, rounds_folder)
        # this round replaces the one before, unless that one was saved at the beginning:
        # other trials may start from it
        if number > rounds_done:
            saved_weights.remove(keys[number - 1], rounds_folder)
    return replace(start, plan=plan)


def _start_of_rounds(start: TrialStart, rounds_folder: Folder | None) -> TrialStart:
    """The start of the rounds, whose settings differ from the trial's (`pattern.found_with`)."""
    rounds = dense_start.start(start.trial.pruning_trial, rounds_folder)
    shapes = [{n: w.shape for n, w in s.weights.items()} for s in (rounds, start)]
    if shapes[0] != shapes[1]:
        data_name = rounds.trial.data.name
        raise Invalid(
            "pattern.found_with", data_name, "must lead to weights of the trial's own shapes"
        )
    return rounds


def _round_plan(plan: Plan, pattern: Scored, scores: Mapping[str, Array]) -> Plan:
    masks = pattern.by_scores({w.weight.name: scores[w.weight.name] for w in plan.weights})
    return replace(plan, weights=tuple(replace(w, mask=masks[w.weight.name]) for w in plan.weights))


def _train_round(start: TrialStart) -> dict[str, Array]:
    """The effective weights by name at the end of a training."""
    loop = single_trial_loop(start)
    loop.run()
    program = loop.program.single_program
    program.training.finalize()
    return program.effective()


def _round_key(trial: Trial, pattern: Scored) -> str:
    return saved_weights.key_of(trial.model_copy(update={"pattern": pattern, "compare": None}))
