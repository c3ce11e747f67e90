"""Results of each strategy over a whole sweep, and the choice of the strategies to use."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from statistics import fmean, median

from masksweep.sweeps.config.display import label
from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.report import leak_atlas_results
from masksweep.sweeps.report.baseline import metric, score, training_key
from masksweep.sweeps.report.data_sets import data_labels
from masksweep.sweeps.results import leaks

MIN_SPEEDUP = 1.25
"""A strategy is preferred for its speed only if its step is this many times faster. Smaller
differences can be real, and are shown, but which strategies they favour changes with the machine
and its load (two runs of the quickstart, one after the other, measured 0.88 and 0.94 for the same
two strategies)."""
MEDIAN_ERROR_RATIO = math.sqrt(math.pi / 2)
"""Ratio of the standard error of the median to that of the mean, for many normal values."""


@dataclass(frozen=True)
class StrategySummary:
    """Results of one strategy over all trials of one kind (see `group_by_kind`)."""

    strategy: str
    role: str
    held: int
    """Number of trials that passed their audit; of a control, those that did not leak."""
    leaking: int
    """Number of trials in which a value that must be held was seen to move. The other trials that
    failed their audit prove nothing: no weight moved, or the saved model differs."""
    trials: int
    """Number of trials that ended well and were audited."""
    skipped: int
    failed: int
    score: float | None
    """Mean score over the settings and seeds that all strategies have. More is better: an accuracy
    in percent, or minus a loss."""
    ratio: float | None
    """Step time as a ratio to the dense control, over the same settings and seeds: the geometric
    mean over the settings of each seed, then the median over the seeds."""
    causes: Sequence[str]
    """Stages of the training step through which the strategy leaked, for example `decay`."""
    limits: tuple[float, float] | None = None
    """95 % interval of the ratio over the seeds (see `_ratio_intervals`)."""

    @property
    def holds(self) -> bool:
        """Whether all trials passed their audit and none failed."""
        return self.trials > 0 and self.held == self.trials and not self.failed

    def is_faster_than(self, other: StrategySummary) -> bool:
        """Returns whether the interval of the ratio lies below that of the other strategy."""
        if self.limits is None or other.limits is None:
            return False
        return self.limits[1] < other.limits[0]

    def is_preferred_to(self, other: StrategySummary) -> bool:
        """Returns whether `is_faster_than` is true, by a factor of at least `MIN_SPEEDUP`."""
        if not self.ratio or not other.ratio:
            return False
        return self.is_faster_than(other) and other.ratio / self.ratio >= MIN_SPEEDUP


def group_by_kind(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Groups the trials that mask weights. Only strategies of one group can be compared.

    Args:
        outcomes: The trials of a sweep. Dense ones are left out, and those that trained nothing,
            since any way of holding holds there.

    Returns:
        Trials by kind: pattern, schedule if not static, held values if not zero, data set if there
        are several, and metric if there are several objectives, for example `columns, held init`.
    """
    by_kind: dict[str, list[Outcome]] = {}
    data_of = data_labels(outcomes)
    several = len(set(data_of.values())) > 1
    several_objectives = len({o.trial.objective for o in outcomes}) > 1
    for o in outcomes:
        if o.trial.strategy.role != "dense" and not o.trial.still_reason:
            held_label = "" if o.trial.held.name == "zero" else f", held {label(o.trial.held)}"
            data = f", {data_of[o.trial.id]}" if several else ""
            moves = "" if o.trial.schedule.name == "static" else f", {label(o.trial.schedule)}"
            by = f", {o.trial.score_metric.name}" if several_objectives else ""
            kind = f"{o.trial.pattern.name}{moves}{held_label}{data}{by}"
            by_kind.setdefault(kind, []).append(o)
    return by_kind


def summarize_strategies(outcomes: Sequence[Outcome]) -> list[StrategySummary]:
    """Returns the results of each strategy.

    Args:
        outcomes: Trials of one kind (see `group_by_kind`).

    Returns:
        A summary for each strategy, in the order of the trials.
    """
    names = dict.fromkeys(o.trial.label for o in outcomes)
    groups = {name: [o for o in outcomes if o.trial.label == name] for name in names}
    strategies = [group for group in groups.values() if group[0].trial.strategy.role == "strategy"]
    places = [{_comparison_key(o) for o in group if o.status == "ok"} for group in strategies]
    common = set.intersection(*([p for p in places if p] or [set()]))
    shared = {n: [o for o in group if _comparison_key(o) in common] for n, group in groups.items()}
    limits = _ratio_intervals(shared)
    return [
        replace(_summarize(name, groups[name], shared[name]), limits=limits.get(name))
        for name in names
    ]


def _summarize(
    name: str, outcomes: Sequence[Outcome], shared: Sequence[Outcome]
) -> StrategySummary:
    audited = [o for o in outcomes if _audited(o)]
    scores = [s for o in shared if _audited(o) and (s := _score(o)) is not None]
    ratios = list(_by_seed(shared, "speed/ratio_to_dense").values())
    through = (o.result.tags.get("integrity.through", "") for o in audited if not _held(o))
    causes = dict.fromkeys(c for each in through for c in each.split(", ") if c)
    return StrategySummary(
        name,
        outcomes[0].trial.strategy.role,
        sum(map(_held, audited)),
        sum(leaks(o.result.metrics) for o in audited),
        len(audited),
        sum(o.status == "skipped" for o in outcomes),
        sum(o.status == "failed" for o in outcomes),
        fmean(scores) if scores else None,
        median(ratios) if ratios else None,
        list(causes),
    )


def _comparison_key(outcome: Outcome) -> object:
    """Returns a key of the settings and seed in which two trials must agree to be compared.

    These are all settings that determine a training, without the strategy itself and without
    `jit`: not every strategy can be compiled by XLA.
    """
    return training_key(outcome.trial, without=("strategy", "jit"))


def _audited(outcome: Outcome) -> bool:
    return outcome.status == "ok" and "integrity/ok" in outcome.result.metrics


def _held(outcome: Outcome) -> bool:
    """Returns whether an audited trial held. A control holds if no held value moved."""
    metrics = outcome.result.metrics
    if outcome.trial.strategy.role == "control":
        return not leaks(metrics)
    return metrics["integrity/ok"] == 1


def _score(outcome: Outcome) -> float | None:
    """Returns the accuracy in percent, or minus the loss: more is better.

    An infinite score, or NaN, is that of a training that diverged: nothing is worse.
    """
    number = score(outcome)
    if number is None:
        return None
    return metric(outcome).sign * number if isfinite(number) else -math.inf


# -- speed -----------------------------------------------------------------------------------


def _by_seed(outcomes: Sequence[Outcome], name: str) -> dict[int, float]:
    """Returns the geometric mean of a ratio over the settings of each seed."""
    logs_by_seed: dict[int, list[float]] = {}
    for o in outcomes:
        if _audited(o) and (value := o.result.metrics.get(name, 0.0)) > 0:
            logs_by_seed.setdefault(o.trial.seed, []).append(math.log(value))
    return {seed: math.exp(fmean(logs)) for seed, logs in logs_by_seed.items()}


def _ratio_intervals(shared: Mapping[str, Sequence[Outcome]]) -> dict[str, tuple[float, float]]:
    """Returns 95 % intervals of the ratios of step time to dense, by strategy.

    The intervals are Student's, around the median over the seeds, for the logarithms of the ratios.
    The standard deviation is pooled over the strategies: the noise comes from the machine, and the
    two or three seeds of a single strategy are too few to estimate it. If no strategy has a second
    seed, the intervals are those that the trials measured themselves, if any.
    """
    from scipy import stats

    ratios = {name: _by_seed(measured, "speed/ratio_to_dense") for name, measured in shared.items()}
    logs = {
        name: [math.log(r) for r in by_seed.values()] for name, by_seed in ratios.items() if by_seed
    }
    if freedom := sum(len(values) - 1 for values in logs.values()):
        squares = sum((v - fmean(values)) ** 2 for values in logs.values() for v in values)
        unit_half = stats.t.ppf(0.975, freedom) * math.sqrt(squares / freedom)
        limits = {}
        for name, values in logs.items():
            # a median varies more than a mean, by up to MEDIAN_ERROR_RATIO; of two it is the mean
            factor = MEDIAN_ERROR_RATIO if len(values) > 2 else 1
            half = unit_half * factor / math.sqrt(len(values))
            limits[name] = math.exp(median(values) - half), math.exp(median(values) + half)
        return limits
    measured = {}
    for name, outcomes in shared.items():
        ends = [_by_seed(outcomes, f"speed/ratio_{end}") for end in ("low", "high")]
        if all(ends):
            measured[name] = fmean(ends[0].values()), fmean(ends[1].values())
    return measured


# -- the choice ------------------------------------------------------------------------------


def choose_strategies(
    results: Sequence[StrategySummary], noise: float | None
) -> list[StrategySummary]:
    """Returns the strategies to use. All of them are equally good within the noise.

    Two runs of the same sweep must lead to the same choice. So only differences count that a second
    run would confirm: a score must be better by more than the noise between two dense seeds (scores
    do not count if the noise is not known), and a step must be faster by a factor (see
    `is_preferred_to`). Strategies of which no trial was skipped come before all others. A strategy
    of which a training diverged is never chosen.

    Args:
        results: The results of the strategies of one kind.
        noise: How far apart two dense trials lie that differ only in their seed, in the unit of
            the score; None if that is not known.

    Returns:
        The strategies in the order of the leak atlas, the first one recommended. Empty if no
        strategy held in all trials and has a finite score.
    """
    scores = {
        s.strategy: s.score
        for s in results
        if s.role == "strategy" and s.holds and s.score is not None and isfinite(s.score)
    }
    candidates = [s for s in results if s.strategy in scores]
    candidates = [s for s in candidates if not s.skipped] or candidates
    if candidates and noise is not None:
        best = max(scores[s.strategy] for s in candidates)
        candidates = [s for s in candidates if best - scores[s.strategy] <= noise]
    tie = [s for s in candidates if not any(other.is_preferred_to(s) for other in candidates)]
    return sorted(tie, key=lambda s: (leak_atlas_results.rank(s.strategy), s.strategy))
