"""The results of a bench as tables, a plot and a JSON file."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from masksweep.sweeps.bench.cases import SIZES
from masksweep.sweeps.bench.peers import FORMATS
from masksweep.sweeps.bench.timing import Row, Untimed
from masksweep.sweeps.common import escape, tables
from masksweep.sweeps.common.tables import Column
from masksweep.sweeps.report.plot_style import line_style

MARKERS = "os^Dv<>Pp"


@dataclass
class BenchResults:
    """All results of a bench so far."""

    environment: dict[str, str]
    controls: dict[str, dict[str, float]] = field(default_factory=dict)
    """Step time of each dense control in milliseconds, by size and then by control."""
    rows: list[Row] = field(default_factory=list)
    untimed: list[Untimed] = field(default_factory=list)

    def add(self, result: Row | Untimed) -> None:
        if isinstance(result, Row):
            self.rows.append(result)
        else:
            self.untimed.append(result)

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @property
    def sizes(self) -> list[str]:
        return list(self.controls)


def all_tables(results: BenchResults) -> RenderableType:
    """Returns one table for each size, with ratios to the faster dense control."""
    parts: list[RenderableType] = []
    for size in results.sizes:
        controls = sorted(results.controls[size].items(), key=lambda item: item[1])
        widths = "-".join(map(str, SIZES[size].layer_widths))
        times = "; ".join(f"{name} {ms:.3g} ms" for name, ms in controls)
        title = Text(f"{size}: {widths}, ratio of a step to dense", style="bold")
        parts += [title, _table(results, size), Text(f"dense: {times}", style="dim"), Text()]
    parts += [Text(line, style="dim") for line in _untimed(results)]
    return Group(*parts)


def note(results: BenchResults) -> str:
    """Returns the tables as markdown."""
    return to_markdown(all_tables(results))


def to_markdown(shown: RenderableType) -> str:
    """Renders for a terminal of 80 columns, as markdown of at most 8,000 characters."""
    console = escape.console(width=80, file=io.StringIO(), record=True)
    console.print(shown)
    return f"```\n{console.export_text()[:7980]}\n```"


def _untimed(results: BenchResults) -> list[str]:
    """One line for each strategy and reason, of the cases that were not timed."""
    grouped: dict[tuple[str, str], list[Untimed]] = {}
    for result in results.untimed:
        grouped.setdefault((_name(result), result.reason), []).append(result)
    lines = []
    for (name, reason), group in grouped.items():
        patterns = ", ".join(dict.fromkeys(result.pattern for result in group))
        sizes = ", ".join(dict.fromkeys(result.size for result in group))
        word = "failed" if group[0].failed else "not timed"
        lines.append(f"{word}: {name} on {patterns} ({sizes}): {reason}")
    return lines


def _name(result: Row | Untimed) -> str:
    """Name of the strategy, with its format if it has several."""
    return result.strategy if result.format == "-" else f"{result.strategy} {result.format}"


def _table(results: BenchResults, size: str) -> Table:
    rows = [row for row in results.rows if row.size == size]
    sparsities = sorted({row.sparsity for row in rows})
    columns = [Column("strategy", wrap=True), Column("pattern", wrap=True)]
    columns += [Column(f"{sparsity:g}", right=True) for sparsity in sparsities]
    cells = []
    for (name, pattern), series in group_rows(rows).items():
        by = {row.sparsity: row for row in series}
        cells.append([name, pattern, *(_cell(by.get(sparsity)) for sparsity in sparsities)])
    return tables.terminal(columns, cells)


def _cell(row: Row | None) -> str:
    """The ratio, with half the width of its 95 % interval in percent of the ratio, if known."""
    if row is None:
        return "-"
    shown = f"{row.ratio_to_dense:.{2 if row.ratio_to_dense < 10 else 0}f}"
    if row.ratio_low is None or row.ratio_high is None:
        return shown
    return f"{shown} ±{50 * (row.ratio_high - row.ratio_low) / row.ratio_to_dense:.0f}%"


def group_rows(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """Groups rows by (strategy with its format, pattern), in the order of the rows."""
    series: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        series.setdefault((_name(row), row.pattern), []).append(row)
    return series


def drawn(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows of the plot: few enough lines to tell them apart.

    Of each strategy, these are the first of its forms, and random masks or, if it refuses them, the
    first pattern that it takes. All formats of other libraries are drawn, and `coo`, TensorFlow's
    own sparse product. The tables and the JSON file have all rows.
    """
    forms = {(row.strategy, row.format) for row in rows}
    first: dict[str, str] = {}
    for row in rows:
        first.setdefault(row.strategy, row.format)
    main = {
        (strategy, format)
        for strategy, format in forms
        if strategy in FORMATS or format in ("coo", first[strategy])
    }
    patterns: dict[str, list[str]] = {}
    for row in rows:
        patterns.setdefault(row.strategy, []).append(row.pattern)
    return [
        row
        for row in rows
        if (row.strategy, row.format) in main
        and row.pattern in ("-", "random" if "random" in (p := patterns[row.strategy]) else p[0])
    ]


NEAR_DENSE = (0.4, 2.0)
"""Limits of the ratio in the lower row of the plot, which enlarges this part of the upper row."""


def plot(results: BenchResults) -> bytes:
    """Returns a PNG: ratio to dense against sparsity, with the operation count as a lower bound.

    The rows are those of `drawn`. The upper panels show all ratios. The lower ones enlarge those
    near 1, where most strategies are.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(5.2 * len(results.sizes), 8.4), layout="constrained")
    rows = figure.subplots(2, len(results.sizes), sharex="col", sharey="row", squeeze=False)
    shown = drawn(results.rows)
    names = list(dict.fromkeys(name for name, _ in group_rows(shown)))
    patterns = list(dict.fromkeys(pattern for _, pattern in group_rows(shown)))
    # in this plot a marker stands for a pattern, so the strategy's own marker is dropped
    looks = {n: {k: v for k, v in line_style(n, names).items() if k != "marker"} for n in names}
    marker = {pattern: MARKERS[i % len(MARKERS)] for i, pattern in enumerate(patterns)}
    for axes in rows:
        for axis, size in zip(axes, results.sizes, strict=True):
            _draw(axis, [row for row in shown if row.size == size], looks, marker)
        axes[0].set_ylabel("step time / dense")
    for above, below, size in zip(*rows, results.sizes, strict=True):
        above.set_title(f"{size}: {'-'.join(map(str, SIZES[size].layer_widths))}")
        below.set_xlabel("sparsity")
        below.set_ylim(NEAR_DENSE)
        ticks = (0.5, 0.7, 1, 1.4, 2)
        below.set_yticks(ticks, map(str, ticks))
    handles = [Line2D([], [], label=n, **looks[n]) for n in names]
    handles += [
        Line2D([], [], color="0.3", marker=marker[p], linestyle="", label=p) for p in patterns
    ]
    handles.append(Line2D([], [], color="0.5", linestyle="--", label="operations"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def _draw(
    axis: Any, rows: Sequence[Row], looks: Mapping[str, Any], marker: Mapping[str, str]
) -> None:
    """Draws the lines of one size."""
    ticks = sorted({row.sparsity for row in rows})
    for (name, pattern), series in group_rows(rows).items():
        ordered = sorted(series, key=lambda row: row.sparsity)
        x, ratios = [1 - row.sparsity for row in ordered], [r.ratio_to_dense for r in ordered]
        low = [m - (r.ratio_low or m) for r, m in zip(ordered, ratios, strict=True)]
        high = [(r.ratio_high or m) - m for r, m in zip(ordered, ratios, strict=True)]
        axis.errorbar(
            x, ratios, yerr=[low, high], marker=marker[pattern], markersize=4, linewidth=1.2,
            **looks[name],
        )  # fmt: skip
    densities = [1 - tick for tick in ticks]
    axis.plot(densities, densities, "--", color="0.5", marker=".")
    axis.axhline(1, color="0.7", linewidth=0.8)
    # explicit limits, set first: a log scale finds no limits around a single sparsity
    axis.set_xlim(1.3 * max(densities), min(densities) / 1.3)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks(densities, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()


def metrics(results: BenchResults) -> list[tuple[str, float, int]]:
    """Returns (name, value, step) for MLflow; the step is the sparsity in thousandths."""
    return [
        (f"ratio/{row.size}/{name.replace(' ', '_')}/{row.pattern}", row.ratio_to_dense,
         round(1000 * row.sparsity))
        for (name, _), series in group_rows(results.rows).items()
        for row in series
    ]  # fmt: skip
