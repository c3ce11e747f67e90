"""Compares the measured products with TensorFlow's published table: claims and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from math import inf

from rich.console import Console
from rich.table import Table

from masksweep.sweeps.bench.sparse_matmul import (
    COLUMNS,
    DENSE,
    HIGH,
    LOW,
    SIDE,
    Cell,
    Dense,
    Ratios,
    Result,
)
from masksweep.sweeps.common import tables
from masksweep.sweeps.common.tables import Column
from masksweep.sweeps.report.claims import Checked

NAME = "sparse_matmul"
RANK = 0.8
"""Smallest rank correlation (Spearman) of our ratios with the published ones that passes."""


def findings(old: Ratios, result: Result, dense: Dense) -> list[Checked]:
    """Checks whether our ratios follow the trend of the published ratios.

    These rules were written before anything was measured, and have no tolerance. A series runs
    along the density, or along n at 1000 x 1000. It counts if the published ratios rise at each of
    its steps; then ours must rise at each step too. Our crossover must lie between the two
    published densities that enclose the published crossover.

    Args:
        old: The published ratios.
        result: Our measurements.
        dense: The dense product that sparse is compared with.

    Returns:
        One check for each claim.
    """
    from scipy import stats

    new = result.ratios(dense)
    against = f"sparse / {DENSE[dense]}"
    square = {cell: r for cell, r in old.items() if cell.m == cell.k == SIDE}
    checks = []
    for along, place, cells in (("density", "", old), ("n", f" at {SIDE} x {SIDE}", square)):
        claimed = [series for series in _series(cells, along) if _rises(old, series)]
        rising = sum(_rises(new, series) for series in claimed)
        says = f"{against}: rises with {along}{place} where the published ratio does"
        allowed = f"{len(claimed)} of {len(claimed)} series"
        figure = f"{rising} of {len(claimed)} series"
        checks.append(Checked(NAME, says, figure, allowed, 0 < rising == len(claimed)))
    rank = float(stats.spearmanr([old[c] for c in old], [new[c] for c in old]).statistic)
    says = f"{against}: rank correlation with the published ratios, {len(old)} cells"
    checks.append(Checked(NAME, says, f"{rank:.2f}", f"at least {RANK}", rank >= RANK))
    for n in sorted({cell.n for cell in square}):
        low, high = bracket(old, n)
        crossing = result.crossings[dense][n]
        says = f"{against}: crossover at {SIDE} x {SIDE}, n={n}"
        checks.append(
            Checked(NAME, says, said(crossing), _range(low, high), low <= crossing <= high)
        )
    return checks


def verify(console: Console) -> list[Checked]:
    """Measures the table again, prints it, and checks the claims on the products that it compares.

    `setup.prepare_process` must have been called in this process. Takes two minutes.
    """
    from masksweep.sweeps.bench import sparse_matmul

    old = {row.cell: row.ratio for row in sparse_matmul.published()}
    result = sparse_matmul.run()
    for rendered in (table(old, result), crossing_table(old, result)):
        console.print(rendered)
        console.print()
    return findings(old, result, "flagged")


def bracket(ratios: Ratios, n: int) -> tuple[float, float]:
    """Returns the two densities of a table that enclose its crossover, for an A of side `SIDE`.

    Args:
        ratios: Ratios by cell.
        n: Columns of B.

    Returns:
        The last density at which sparse is faster, 0 if there is none; and the next density,
        infinity if there is none.
    """
    square = {c.density: r for c, r in ratios.items() if (c.n, c.m, c.k) == (n, SIDE, SIDE)}
    next_ = min((d for d, r in square.items() if r >= 1), default=inf)
    return max((d for d in square if d < next_), default=0.0), next_


def _series(cells: Iterable[Cell], along: str) -> list[list[Cell]]:
    """Groups the cells that differ only in `along`, which is `density` or `n`, in its order."""
    series_by_key: dict[Cell, list[Cell]] = {}
    for cell in sorted(cells, key=lambda c: (c.density, c.n)):
        key = replace(cell, density=0) if along == "density" else replace(cell, n=0)
        series_by_key.setdefault(key, []).append(cell)
    return list(series_by_key.values())


def _rises(ratios: Ratios, series: Sequence[Cell]) -> bool:
    return all(ratios[cell] < ratios[next_] for cell, next_ in pairwise(series))


def said(crossing: float) -> str:
    """Returns a crossover as text: the density in percent below which sparse is faster."""
    if crossing == 0:
        return f"none: slower from {LOW:.1%}"
    return f"none: faster to {HIGH:.0%}" if crossing == inf else f"{100 * crossing:.2g}%"


def _range(low: float, high: float) -> str:
    return f"{low:.0%} or more" if high == inf else f"{low:.0%} to {high:.0%}"


def table(old: Ratios, result: Result) -> Table:
    """Returns the ratios for the terminal: published, ours to `flagged`, and ours to `plain`."""
    caption = "sparse / dense. doc: as published; here flag: a_is_sparse=True, mul: without"
    densities = sorted({cell.density for cell in old})
    columns = [Column("A\nm x k"), Column("B\nn", right=True)]
    columns += [Column(f"{density:.0%} non-zero\n doc flag  mul") for density in densities]
    flagged, plain = result.ratios("flagged"), result.ratios("plain")
    rows = []
    for series in _series(old, "density"):
        cells = [" ".join(_short(r[c]) for r in (old, flagged, plain)) for c in series]
        rows.append([f"{series[0].m}x{series[0].k}", str(series[0].n), *cells])
    return tables.terminal(columns, rows, caption)


def _short(ratio: float) -> str:
    """The ratio in four characters, if it is at most 9999."""
    return f"{ratio:4.{2 if ratio < 9.995 else 1 if ratio < 99.95 else 0}f}"


def crossing_table(old: Ratios, result: Result) -> Table:
    """Returns the densities below which sparse is faster, published and ours, for the terminal."""
    headers = (f"{SIDE}x{SIDE}, n", "doc", *(f"here: {name}" for name in DENSE.values()))
    rows = []
    for n in COLUMNS:
        crossovers = [said(result.crossings[dense][n]) for dense in DENSE]
        published = any(cell.n == n for cell in old)
        rows.append([str(n), _range(*bracket(old, n)) if published else "-", *crossovers])
    return tables.terminal([Column(header, right=True) for header in headers], rows)
