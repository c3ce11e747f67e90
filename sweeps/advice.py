"""What a sweep says in a few sentences: which strategy to use, at what cost, and which leak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean, median

from rich.console import Console
from rich.text import Text

from sweeps.compared import floors, metric, score
from sweeps.config import label
from sweeps.report import Outcome


@dataclass(frozen=True)
class Standing:
    """How one strategy did over all trials that masked something."""

    strategy: str
    role: str
    held: int
    """Trials in which every masked weight was held."""
    trials: int
    """Trials that ended well and held something."""
    skipped: int
    failed: int
    score: float | None
    """Mean test score, in the metric's own direction (more is better), over the settings and seeds
    that the strategies share."""
    ratio: float | None
    """Median of the step time beside dense, over the same."""
    causes: Sequence[str]
    """Through what it leaked."""

    @property
    def holds(self) -> bool:
        return self.trials > 0 and self.held == self.trials and not self.failed


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
    return [_standing(name, mine[name], common) for name in names]


def _standing(name: str, mine: Sequence[Outcome], common: set[object]) -> Standing:
    done = [o for o in mine if o.status == "ok" and "integrity/ok" in o.result.metrics]
    shared = [o for o in done if _place(o) in common]
    scores = [s for o in shared if (s := _score(o)) is not None]
    ratios = [
        o.result.metrics["speed/ratio_to_dense"]
        for o in shared
        if "speed/ratio_to_dense" in o.result.metrics
    ]
    through = (o.result.tags.get("integrity.through", "") for o in done if not _held(o))
    causes = dict.fromkeys(c for each in through for c in each.split(", ") if c)
    return Standing(
        name,
        mine[0].trial.strategy.role,
        sum(map(_held, done)),
        len(done),
        sum(o.status == "skipped" for o in mine),
        sum(o.status == "failed" for o in mine),
        fmean(scores) if scores else None,
        median(ratios) if ratios else None,
        list(causes),
    )


def _place(outcome: Outcome) -> object:
    """What two strategies must agree in to be compared."""
    return outcome.trial.pattern_label, outcome.variant, outcome.trial.seed


def _held(outcome: Outcome) -> bool:
    return outcome.result.metrics["integrity/ok"] == 1


def _score(outcome: Outcome) -> float | None:
    """In percent for an accuracy, minus the mean squared error otherwise: more is better."""
    found = score(outcome)
    if found is None or not isfinite(found):
        return None
    return found if metric(outcome) == "accuracy" else -found


def chosen(found: Sequence[Standing], noise: float) -> Standing | None:
    """The fastest of the strategies that hold and score as the best of them, up to the noise."""
    able = [s for s in found if s.role == "strategy" and s.holds and s.score is not None]
    able = [s for s in able if not s.skipped] or able
    if not able:
        return None
    best = max(s.score for s in able if s.score is not None)
    near = [s for s in able if s.score is not None and best - s.score <= noise]
    return min(near, key=lambda s: (s.ratio is None, s.ratio or 0.0))


def sentences(outcomes: Sequence[Outcome]) -> list[tuple[str, str]]:
    """(what it is about, the sentence): the whole sweep on one screen."""
    floor, timing = floors(outcomes), _timing(outcomes)
    given = kinds(outcomes)
    told, leaks, apart = [], [], []
    for kind, members in given.items():
        classify = members[0].trial.data.task == "classification"
        noise = floor.get("accuracy" if classify else "mse", 0.0)
        under = f" ({kind})" if len(given) > 1 else ""
        found = standings(members)
        told += _use(found, under, noise, timing, classify)
        leaks += [_leak(s) + under for s in found if s.role == "strategy" and s.held < s.trials]
        told += [(f"Control{under}", _control(s)) for s in found if s.role == "control"]
        apart += [
            f"{s.strategy}{under}: {n} {word}"
            for s in found
            for n, word in ((s.skipped, "skipped"), (s.failed, "failed"))
            if n
        ]
    tried = any(o.status == "ok" and o.trial.strategy.role == "strategy" for o in outcomes)
    none = "none of the strategies" if tried else "no strategy was tried"
    told.append(("Leak", f"{'; '.join(leaks) or none}."))
    return told + ([("Not run", f"{'; '.join(apart)} .")] if apart else [])


def _timing(outcomes: Sequence[Outcome]) -> float | None:
    """The factor, its median, by which a dense step was faster or slower than itself."""
    dense = [o.result.metrics for o in outcomes if o.trial.strategy.role == "dense"]
    ratios = [m["speed/ratio_to_dense"] for m in dense if "speed/ratio_to_dense" in m]
    factors = [max(r, 1 / r) for r in ratios if r > 0]
    return median(factors) if factors else None


def show(outcomes: Sequence[Outcome], console: Console) -> None:
    """Print the sentences."""
    for about, told in sentences(outcomes):
        console.print(Text.assemble((f"{about}: ", "bold"), told))


def _use(
    found: Sequence[Standing], under: str, noise: float, timing: float | None, classify: bool
) -> list[tuple[str, str]]:
    pick = chosen(found, noise)
    if pick is None:
        return [(f"Use{under}", "none: no strategy held in every trial, or none was scored.")]
    cost = "" if pick.ratio is None else f", a step takes {pick.ratio:.2f} of the dense one's"
    held = f"{pick.strategy}: it held in all of {pick.trials} trials{cost}."
    apart = f"{noise:.1f} points" if classify else f"{noise:.4g}"
    seeds = f"; two seeds of the dense control lie {apart} apart" if noise else ""
    told = [(f"Use{under}", f"{held} {_scored(pick, classify)}{seeds}.")]
    others = [s for s in found if s.role == "strategy" and s.holds and s is not pick]
    near = [s.strategy for s in others if timing and _as_good(s, pick, noise, timing)]
    if near:
        itself = f"a dense step beside itself is off by a factor of {timing:.2f}"
        told.append((f"As good{under}", f"{', '.join(near)}, to the noise: {itself}."))
    if others:
        said = "; ".join(_beside(s, pick, classify) for s in others)
        told.append((f"Also hold{under}", f"{said}."))
    return told


def _as_good(other: Standing, pick: Standing, noise: float, timing: float) -> bool:
    """Whether neither score nor speed can tell them apart."""
    if other.score is None or pick.score is None or other.ratio is None or pick.ratio is None:
        return False
    scored = not other.skipped and abs(other.score - pick.score) <= noise
    return scored and other.ratio <= pick.ratio * timing**2  # either may be off as much


def _leak(standing: Standing) -> str:
    through = f", through {', '.join(standing.causes)}" if standing.causes else ""
    amiss = standing.trials - standing.held
    return f"{standing.strategy} in {amiss} of {standing.trials} trials{through}"


def _control(standing: Standing) -> str:
    if not standing.trials:
        return f"{standing.strategy} has not run: no verdict can be trusted."
    if standing.held:
        return f"{standing.strategy} HOLDS: no verdict can be trusted."
    return f"{standing.strategy} leaks in every trial, as it must."


def _scored(standing: Standing, classify: bool) -> str:
    assert standing.score is not None
    name = "Its mean accuracy" if classify else "Its mean squared error"
    return f"{name} is {_figure(abs(standing.score), classify)}"


def _figure(value: float, classify: bool) -> str:
    return f"{value:.1f} %" if classify else f"{value:.4g}"


def _beside(other: Standing, pick: Standing, classify: bool) -> str:
    parts = []
    if other.score is not None and pick.score is not None:
        gap = other.score - pick.score
        parts.append(f"{gap:+z.1f} points" if classify else f"{-gap:+z.4g} in mse")
    if other.ratio is not None:
        parts.append(f"step {other.ratio:.2f}")
    return f"{other.strategy} ({', '.join(parts)})" if parts else other.strategy
