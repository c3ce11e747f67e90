"""Draws the plots of a report."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from math import isnan
from typing import Any

from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.report import flops_plot
from masksweep.sweeps.report.baseline import metric, score
from masksweep.sweeps.report.plot_style import dense_style, line_style, method_style
from masksweep.sweeps.report.ranking import StrategySummary, group_by_kind, summarize_strategies
from masksweep.sweeps.report.results_table import mean_and_interval

FIGURE_INCHES = (6.4, 4.8)
Value = Callable[[Outcome], float | None]


def draw_plots(outcomes: Sequence[Outcome], form: str = "svg") -> dict[str, bytes]:
    """Draws all plots for which the trials have values.

    Args:
        outcomes: The trials of a sweep.
        form: Format of the images, `svg` or `png`.

    Returns:
        Content of each image by name: `score`, `speed`, `pareto`, and `flops` if masks move. If
        the trials are of several kinds (see `ranking.group_by_kind`), there are such plots of each
        kind, for example `score columns`, but for `flops`.
    """
    by_kind = group_by_kind(outcomes)
    dense = [o for o in outcomes if o.trial.strategy.role == "dense"]
    images: dict[str, bytes | None] = {
        name: _plot_over_flops(members, form)
        for name, members in flops_plot.by_data(outcomes).items()
    }
    for kind, members in by_kind.items():
        suffix, drawn = f" {kind}" if len(by_kind) > 1 else "", [*dense, *members]
        data = [o.trial.data for o in members]
        drawn = [o for o in drawn if metric(o) == metric(members[0]) and o.trial.data in data]
        images[f"score{suffix}"] = _plot_over_sparsity(drawn, score, _score_label(drawn), form)
        images[f"speed{suffix}"] = _plot_over_sparsity(drawn, _ratio, "step time / dense", form)
        images[f"pareto{suffix}"] = _plot_pareto(members, form)
    return {name: image for name, image in images.items() if image}


def _score_label(outcomes: Sequence[Outcome]) -> str:
    return " or ".join(dict.fromkeys(metric(o).title for o in outcomes))


def _ratio(outcome: Outcome) -> float | None:
    return outcome.result.metrics.get("speed/ratio_to_dense")


def _sparsity(outcome: Outcome) -> float | None:
    configured = outcome.trial.sparsity
    return configured if configured is not None else outcome.result.metrics.get("sparsity/achieved")


def _new_figure() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=FIGURE_INCHES, layout="constrained")
    axis = figure.subplots()
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(color="0.9", linewidth=0.6)
    return figure, axis


def _add_legend(figure: Any) -> None:
    # below the plot, where it hides no point
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)


def _to_image(figure: Any, form: str) -> bytes:
    from matplotlib import rc_context

    buffer = io.BytesIO()
    # text stays text, and the same plot has the same bytes
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "masksweep"}):
        metadata = {"Date": None} if form == "svg" else {}
        figure.savefig(buffer, format=form, dpi=130, metadata=metadata)
    return buffer.getvalue()


def _plot_over_sparsity(
    outcomes: Sequence[Outcome], value: Value, name: str, form: str
) -> bytes | None:
    """Draws values over sparsity: a line with a 95 % band for each strategy.

    Dense trials are drawn as a horizontal line.

    Args:
        outcomes: The trials.
        value: Returns the value of a trial; None or NaN is left out.
        name: Label of the y axis.
        form: Format of the image, `svg` or `png`.

    Returns:
        The image; None if fewer than two sparsities have a value.
    """
    done = [o for o in outcomes if o.status == "ok"]
    points: dict[str, dict[float, list[float]]] = {}
    dense: dict[str, list[float]] = {}
    for o in done:
        number, sparsity = value(o), _sparsity(o)
        if number is None or isnan(number):
            continue
        if o.trial.strategy.role == "dense":
            dense.setdefault(o.variant, []).append(number)
        elif sparsity is not None:
            series = ", ".join(filter(None, [o.trial.label, o.variant]))
            by_sparsity = points.setdefault(series, {})
            by_sparsity.setdefault(round(sparsity, 4), []).append(number)
    sparsities = sorted({s for by_sparsity in points.values() for s in by_sparsity})
    if len(sparsities) < 2:
        return None
    figure, axis = _new_figure()
    if len(dense) == 1:  # dense trials of several settings have no common level
        _draw_dense_band(axis, *dense.values())
    for label, by_sparsity in points.items():
        x = sorted(by_sparsity)
        means, halves = zip(*(mean_and_interval(by_sparsity[s]) for s in x), strict=True)
        style = line_style(label, list(points))
        axis.plot(x, means, label=label, markersize=4, linewidth=1.4, **style)
        low = [m - (0 if isnan(h) else h) for m, h in zip(means, halves, strict=True)]
        high = [m + (0 if isnan(h) else h) for m, h in zip(means, halves, strict=True)]
        axis.fill_between(x, low, high, color=style["color"], alpha=0.12, linewidth=0)
    axis.set_xticks(
        sparsities, [f"{s:g}" for s in sparsities], rotation=45 if len(sparsities) > 6 else 0
    )
    axis.set_xlabel("sparsity")
    axis.set_ylabel(name)
    if value is _ratio and max(axis.get_ylim()) > 3:
        axis.set_yscale("log")
        _label_log_scale(axis.yaxis)
    _add_legend(figure)
    return _to_image(figure, form)


def _label_log_scale(scale: Any) -> None:
    """Labels a log scale with 1, 2, 5, 10, not with powers of ten."""
    from matplotlib.ticker import LogLocator

    scale.set_major_locator(LogLocator(subs=(1, 2, 5)))
    scale.set_major_formatter("{x:g}")
    scale.set_minor_formatter("")


def _draw_dense_band(axis: Any, dense: Sequence[float]) -> None:
    mean, half = mean_and_interval(dense)
    axis.axhline(mean, color="0.4", linewidth=1, label="dense")
    if not isnan(half):
        axis.axhspan(mean - half, mean + half, color="0.4", alpha=0.1, linewidth=0)


def _plot_over_flops(outcomes: Sequence[Outcome], form: str) -> bytes | None:
    """Draws the score over the FLOPs of the training: a line for each way to move masks."""
    lines = flops_plot.lines(outcomes)
    dense = [label for label in lines if flops_plot.is_dense(label)]
    moving = [label for label in lines if label not in dense]
    figure, axis = _new_figure()
    for label, points in lines.items():
        flops, scores = sorted(points), [points[f] for f in sorted(points)]
        means, halves = zip(*(mean_and_interval(values) for values in scores), strict=True)
        style = dense_style(label, dense) if label in dense else method_style(label, moving)
        bars = [0 if isnan(half) else half for half in halves]
        axis.errorbar(
            flops, means, yerr=bars, label=label, markersize=5, linewidth=1.3, capsize=2, **style
        )
    axis.set_xscale("log")
    _label_log_scale(axis.xaxis)
    axis.set_xlabel("training FLOPs / dense")
    axis.set_ylabel(_score_label(outcomes))
    _add_legend(figure)
    return _to_image(figure, form)


def _plot_pareto(outcomes: Sequence[Outcome], form: str) -> bytes | None:
    """Draws score against speed: a point for each strategy.

    A line joins the strategies on the Pareto front, among those that hold.
    """
    strategies = [
        s for s in summarize_strategies(outcomes) if s.score is not None and s.ratio is not None
    ]
    if not strategies:
        return None
    figure, axis = _new_figure()
    sign, names = metric(outcomes[0]).sign, [s.strategy for s in strategies]
    for s in strategies:
        style = line_style(s.strategy, names) | {"linestyle": ""}
        face = style["color"] if s.holds else "none"
        point = [s.ratio], [sign * (s.score or 0)]
        axis.plot(*point, markersize=7, markerfacecolor=face, label=s.strategy, **style)
        if s.limits:
            axis.hlines(point[1], *s.limits, color=style["color"], linewidth=0.8)
    front = _pareto_front([s for s in strategies if s.holds])
    scores = [sign * (s.score or 0) for s in front]
    axis.plot([s.ratio for s in front], scores, color="0.6", linewidth=1)
    if max(s.ratio or 0 for s in strategies) > 3:
        axis.set_xscale("log")
        _label_log_scale(axis.xaxis)
    axis.set_xlabel("step time / dense")
    axis.set_ylabel(_score_label(outcomes))
    _add_legend(figure)
    return _to_image(figure, form)


def _pareto_front(summaries: Sequence[StrategySummary]) -> list[StrategySummary]:
    """Returns the summaries that no other beats in both score and speed, the fastest first."""
    front: list[StrategySummary] = []
    for s in sorted(summaries, key=lambda s: (s.ratio or 0, -(s.score or 0))):
        if not front or (s.score or 0) > (front[-1].score or 0):
            front.append(s)
    return front
