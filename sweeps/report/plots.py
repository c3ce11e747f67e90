"""The figures of a report, as files by name."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from math import isnan
from typing import Any

from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.report.baseline import metric, score
from masksweep.sweeps.report.plot_style import look
from masksweep.sweeps.report.ranking import Standing, kinds, standings
from masksweep.sweeps.report.results_table import interval

SIZE = (6.4, 4.8)
Value = Callable[[Outcome], float | None]


def all_of(outcomes: Sequence[Outcome], form: str = "svg") -> dict[str, bytes]:
    """What can be drawn of these trials, by name: `score`, `speed`, `pareto`.

    Where there are trials of several kinds, the first two are drawn of each: `score columns`.
    """
    given = kinds(outcomes)
    dense = [o for o in outcomes if o.trial.strategy.role == "dense"]
    found: dict[str, bytes | None] = {}
    for kind, members in given.items():
        end, both = f" {kind}" if len(given) > 1 else "", [*dense, *members]
        both = [o for o in both if metric(o) == metric(members[0])]
        found[f"score{end}"] = _over_sparsity(both, score, _name_of_score(both), form)
        found[f"speed{end}"] = _over_sparsity(both, _ratio, "step time / dense", form)
    found["pareto"] = _pareto(outcomes, form)
    return {name: drawn for name, drawn in found.items() if drawn}


def _name_of_score(outcomes: Sequence[Outcome]) -> str:
    names = dict.fromkeys(map(metric, outcomes))
    return " or ".join("test accuracy %" if n == "accuracy" else "test mse" for n in names)


def _ratio(outcome: Outcome) -> float | None:
    return outcome.result.metrics.get("speed/ratio_to_dense")


def _sparsity(outcome: Outcome) -> float | None:
    given = outcome.trial.sparsity
    return given if given is not None else outcome.result.metrics.get("sparsity/achieved")


def _figure() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    axis = figure.subplots()
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(color="0.9", linewidth=0.6)
    return figure, axis


def _legend(figure: Any) -> None:
    # below: nothing that is drawn is hidden
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)


def _saved(figure: Any, form: str) -> bytes:
    from matplotlib import rc_context

    buffer = io.BytesIO()
    # text as text, and the same bytes each time
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "masksweep"}):
        metadata = {"Date": None} if form == "svg" else {}
        figure.savefig(buffer, format=form, dpi=130, metadata=metadata)
    return buffer.getvalue()


def _over_sparsity(outcomes: Sequence[Outcome], value: Value, name: str, form: str) -> bytes | None:
    """A line with its 95 % band for each strategy; dense as a level.

    None where fewer than two sparsities have a value.
    """
    done = [o for o in outcomes if o.status == "ok"]
    points: dict[str, dict[float, list[float]]] = {}
    dense: dict[str, list[float]] = {}
    for o in done:
        found, sparsity = value(o), _sparsity(o)
        if found is None or isnan(found):
            continue
        if o.trial.strategy.role == "dense":
            dense.setdefault(o.variant, []).append(found)
        elif sparsity is not None:
            name_of = ", ".join(filter(None, [o.trial.label, o.variant]))
            places = points.setdefault(name_of, {})
            places.setdefault(round(sparsity, 4), []).append(found)
    every = sorted({s for places in points.values() for s in places})
    if len(every) < 2:
        return None
    figure, axis = _figure()
    if len(dense) == 1:  # of several that train otherwise, none is the level
        _band(axis, *dense.values())
    for label, places in points.items():
        at = sorted(places)
        means, halves = zip(*(interval(places[s]) for s in at), strict=True)
        style = look(label, list(points))
        axis.plot(at, means, label=label, markersize=4, linewidth=1.4, **style)
        low = [m - (0 if isnan(h) else h) for m, h in zip(means, halves, strict=True)]
        high = [m + (0 if isnan(h) else h) for m, h in zip(means, halves, strict=True)]
        axis.fill_between(at, low, high, color=style["color"], alpha=0.12, linewidth=0)
    axis.set_xticks(every, [f"{s:g}" for s in every], rotation=45 if len(every) > 6 else 0)
    axis.set_xlabel("sparsity")
    axis.set_ylabel(name)
    if value is _ratio and max(axis.get_ylim()) > 3:
        axis.set_yscale("log")
        _write_out(axis.yaxis)
    _legend(figure)
    return _saved(figure, form)


def _write_out(scale: Any) -> None:
    """Label a log scale 1, 2, 5, 10, not with powers of ten."""
    from matplotlib.ticker import LogLocator

    scale.set_major_locator(LogLocator(subs=(1, 2, 5)))
    scale.set_major_formatter("{x:g}")
    scale.set_minor_formatter("")


def _band(axis: Any, dense: Sequence[float]) -> None:
    mean, half = interval(dense)
    axis.axhline(mean, color="0.4", linewidth=1, label="dense")
    if not isnan(half):
        axis.axhspan(mean - half, mean + half, color="0.4", alpha=0.1, linewidth=0)


def _pareto(outcomes: Sequence[Outcome], form: str) -> bytes | None:
    """Score against speed, a point for each strategy, and the front of those that hold."""
    outcomes = [o for o in outcomes if metric(o) == metric(outcomes[0])]
    by_kind = {
        kind: [s for s in standings(members) if s.score is not None and s.ratio is not None]
        for kind, members in kinds(outcomes).items()
    }
    every = [s for found in by_kind.values() for s in found]
    if not every:
        return None
    figure, axis = _figure()
    names = list(dict.fromkeys(s.strategy for s in every))
    for kind, found in by_kind.items():
        for s in found:
            style = look(s.strategy, names) | {"linestyle": ""}
            face = style["color"] if s.holds else "none"
            told = f"{s.strategy} ({kind})" if len(by_kind) > 1 else s.strategy
            at = [s.ratio], [_shown(s)]
            axis.plot(*at, markersize=7, markerfacecolor=face, label=told, **style)
            if s.limits:
                axis.hlines(_shown(s), *s.limits, color=style["color"], linewidth=0.8)
        front = _front([s for s in found if s.holds])
        axis.plot([s.ratio for s in front], [_shown(s) for s in front], color="0.6", linewidth=1)
    if max(s.ratio or 0 for s in every) > 3:
        axis.set_xscale("log")
        _write_out(axis.xaxis)
    axis.set_xlabel("step time / dense")
    axis.set_ylabel(_name_of_score(outcomes))
    _legend(figure)
    return _saved(figure, form)


def _shown(standing: Standing) -> float:
    return abs(standing.score or 0.0)


def _front(found: Sequence[Standing]) -> list[Standing]:
    """Those that no other beats in both, the fastest first."""
    front: list[Standing] = []
    for s in sorted(found, key=lambda s: (s.ratio or 0, -(s.score or 0))):
        if not front or (s.score or 0) > (front[-1].score or 0):
            front.append(s)
    return front
