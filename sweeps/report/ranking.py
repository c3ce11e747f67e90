"""How each strategy did over a whole sweep, and which of them to use."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from statistics import fmean, median

from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.config.trial import label
from masksweep.sweeps.report import atlas
from masksweep.sweeps.report.baseline import metric, score, training
from masksweep.sweeps.results import leaks

WORTH = 1.25
"""A step must be this many times faster before a strategy is preferred for it. Smaller differences
can be real, and are shown; which strategies they favour changes with the machine and its load (two
quickstarts in a row put the same two at 0.88 and 0.94)."""
MEDIAN = math.sqrt(math.pi / 2)
"""Standard error of a median beside that of a mean, of many normal values."""


@dataclass(frozen=True)
class Standing:
    """How one strategy did over all trials that masked something."""

    strategy: str
    role: str
    held: int
    """Trials in which every masked weight was held."""
    leaking: int
    """Trials in which something that must be held was seen to move. In the others that did not
    hold nothing is proven: nothing moved at all, or what was saved differs."""
    trials: int
    """Trials that ended well and held something."""
    skipped: int
    failed: int
    score: float | None
    """Mean test score, in the metric's own direction (more is better), over the settings and seeds
    that the strategies share."""
    ratio: float | None
    """The step time beside dense over the same: the median over the seeds, of the geometric means
    over the settings."""
    causes: Sequence[str]
    """Through what it leaked."""
    limits: tuple[float, float] | None = None
    """95 % interval of the ratio over the seeds (see `_limits`)."""

    @property
    def holds(self) -> bool:
        return self.trials > 0 and self.held == self.trials and not self.failed

    def faster(self, other: Standing) -> bool:
        """Whether its interval lies below the other's."""
        if self.limits is None or other.limits is None:
            return False
        return self.limits[1] < other.limits[0]

    def preferred(self, other: Standing) -> bool:
        """Whether it is faster by so much that one would choose it for that."""
        if not self.ratio or not other.ratio:
            return False
        return self.faster(other) and other.ratio / self.ratio >= WORTH


def kinds(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """The trials that mask something, by what strategies must share to be compared at all."""
    found: dict[str, list[Outcome]] = {}
    several = len({o.trial.data.name for o in outcomes}) > 1
    for o in outcomes:
        if o.trial.strategy.role != "dense":
            held = "" if o.trial.held.name == "zero" else f", held {label(o.trial.held)}"
            of = f", {o.trial.data.name}" if several else ""
            found.setdefault(f"{o.trial.pattern.name}{held}{of}", []).append(o)
    return found


def standings(outcomes: Sequence[Outcome]) -> list[Standing]:
    """A standing for each strategy of one kind of trials, in their order."""
    names = dict.fromkeys(o.trial.label for o in outcomes)
    mine = {name: [o for o in outcomes if o.trial.label == name] for name in names}
    real = [found for found in mine.values() if found[0].trial.strategy.role == "strategy"]
    places = [{_place(o) for o in found if o.status == "ok"} for found in real]
    common = set.intersection(*([p for p in places if p] or [set()]))
    shared = {n: [o for o in found if _place(o) in common] for n, found in mine.items()}
    limits = _limits(shared)
    return [
        replace(_standing(name, mine[name], shared[name]), limits=limits.get(name))
        for name in names
    ]


def _standing(name: str, mine: Sequence[Outcome], shared: Sequence[Outcome]) -> Standing:
    done = [o for o in mine if _audited(o)]
    scores = [s for o in shared if _audited(o) and (s := _score(o)) is not None]
    ratios = list(_by_seed(shared, "speed/ratio_to_dense").values())
    through = (o.result.tags.get("integrity.through", "") for o in done if not _held(o))
    causes = dict.fromkeys(c for each in through for c in each.split(", ") if c)
    return Standing(
        name,
        mine[0].trial.strategy.role,
        sum(map(_held, done)),
        sum(leaks(o.result.metrics) for o in done),
        len(done),
        sum(o.status == "skipped" for o in mine),
        sum(o.status == "failed" for o in mine),
        fmean(scores) if scores else None,
        median(ratios) if ratios else None,
        list(causes),
    )


def _place(outcome: Outcome) -> object:
    """What two strategies must agree in to be compared: all that a training follows from, but for
    the strategy itself, and whether XLA compiles it, which not every strategy allows.
    """
    return training(outcome.trial, without=("strategy", "jit"))


def _audited(outcome: Outcome) -> bool:
    return outcome.status == "ok" and "integrity/ok" in outcome.result.metrics


def _held(outcome: Outcome) -> bool:
    """Of a control: whether nothing moved that was to be held."""
    metrics = outcome.result.metrics
    if outcome.trial.strategy.role == "control":
        return not leaks(metrics)
    return metrics["integrity/ok"] == 1


def _score(outcome: Outcome) -> float | None:
    """In percent for an accuracy, minus the mean squared error otherwise: more is better."""
    found = score(outcome)
    if found is None or not isfinite(found):
        return None
    return found if metric(outcome) == "accuracy" else -found


# -- speed -----------------------------------------------------------------------------------


def _by_seed(outcomes: Sequence[Outcome], name: str) -> dict[int, float]:
    """The geometric mean of a ratio over the settings of each seed."""
    found: dict[int, list[float]] = {}
    for o in outcomes:
        if _audited(o) and (value := o.result.metrics.get(name, 0.0)) > 0:
            found.setdefault(o.trial.seed, []).append(math.log(value))
    return {seed: math.exp(fmean(logs)) for seed, logs in found.items()}


def _limits(shared: Mapping[str, Sequence[Outcome]]) -> dict[str, tuple[float, float]]:
    """95 % intervals of the strategies' ratios to dense.

    Over the seeds, on the ratios' logarithms: Student's, around their median, with a standard
    deviation that is pooled over the strategies. The noise is the machine's, and with two or three
    seeds a strategy's own would say little of it. Where no strategy has a second seed, the
    intervals are those that the trials found for themselves; without these either, there is none.
    """
    from scipy import stats

    ratios = {name: _by_seed(found, "speed/ratio_to_dense") for name, found in shared.items()}
    logs = {name: [math.log(r) for r in by.values()] for name, by in ratios.items() if by}
    if freedom := sum(len(values) - 1 for values in logs.values()):
        squares = sum((v - fmean(values)) ** 2 for values in logs.values() for v in values)
        wide = stats.t.ppf(0.975, freedom) * math.sqrt(squares / freedom)
        limits = {}
        for name, values in logs.items():
            # a median varies more than a mean does, by up to this; one of two is the mean
            half = wide * (MEDIAN if len(values) > 2 else 1) / math.sqrt(len(values))
            limits[name] = math.exp(median(values) - half), math.exp(median(values) + half)
        return limits
    found = {}
    for name, outcomes in shared.items():
        ends = [_by_seed(outcomes, f"speed/ratio_{end}") for end in ("low", "high")]
        if all(ends):
            found[name] = fmean(ends[0].values()), fmean(ends[1].values())
    return found


# -- the choice ------------------------------------------------------------------------------


def choice(found: Sequence[Standing], noise: float | None) -> list[Standing]:
    """The strategies to use, the first before the others, which tie with it; none if none can be.

    Two runs of one sweep must come to the same. So nothing is decided by a difference that a
    second run may turn around: a score counts beyond the noise between two dense seeds (and not at
    all where that is not known), a step where it is `preferred`. Those that are left are in the
    order of the leak atlas.

    Args:
        found: The standings of one kind.
        noise: How far two dense trials lie apart that differ in their seed alone, in the score's
            unit; None if that is not known.
    """
    able = [s for s in found if s.role == "strategy" and s.holds and s.score is not None]
    able = [s for s in able if not s.skipped] or able
    if noise is not None and able:
        best = max(s.score for s in able if s.score is not None)
        able = [s for s in able if s.score is not None and best - s.score <= noise]
    tie = [s for s in able if not any(other.preferred(s) for other in able)]
    return sorted(tie, key=lambda s: (atlas.rank(s.strategy), s.strategy))
