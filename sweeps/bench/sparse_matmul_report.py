"""Compares the measured products with TensorFlow's published table: claims and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from math import inf

from rich.console import Console
from rich.table import Table

from masksweep.sweeps.bench.sparse_matmul import (
    COLUMN_COUNTS,
    DENSE,
    MATRIX_SIDE,
    MAX_DENSITY,
    MIN_DENSITY,
    Cell,
    Dense,
    Ratios,
    Result,
)
from masksweep.sweeps.common import tables
from masksweep.sweeps.common.tables import Column
from masksweep.sweeps.report.claims import CheckedClaim

CHECK_NAME = "sparse_matmul"
MIN_RANK_CORRELATION = 0.8
"""Smallest rank correlation (Spearman) of our ratios with the published ones that passes."""


def check_claims(published_ratios: Ratios, result: Result, dense: Dense) -> list[CheckedClaim]:
    """Checks whether our ratios follow the trend of the published ratios.

    These rules were written before anything was measured, and have no tolerance. A series runs
    along the density, or along n at 1000 x 1000. It counts if the published ratios rise at each of
    its steps; then ours must rise at each step too. Our crossover must lie between the two
    published densities that enclose the published crossover.

    Args:
        published_ratios: The published ratios.
        result: Our measurements.
        dense: The dense product that sparse is compared with.

    Returns:
        One check for each claim.
    """
    from scipy import stats

    new = result.ratios(dense)
    against = f"sparse / {DENSE[dense]}"
    square = {cell: r for cell, r in published_ratios.items() if cell.m == cell.k == MATRIX_SIDE}
    checks = []
    side = f"{MATRIX_SIDE} x {MATRIX_SIDE}"
    for along, place, cells in (("density", "", published_ratios), ("n", f" at {side}", square)):
        claimed = [series for series in _series(cells, along) if _rises(published_ratios, series)]
        rising = sum(_rises(new, series) for series in claimed)
        says = f"{against}: rises with {along}{place} where the published ratio does"
        allowed = f"{len(claimed)} of {len(claimed)} series"
        figure = f"{rising} of {len(claimed)} series"
        checks.append(CheckedClaim(CHECK_NAME, says, figure, allowed, 0 < rising == len(claimed)))
    cells_in_order = list(published_ratios)
    rank = float(
        stats.spearmanr(
            [published_ratios[c] for c in cells_in_order], [new[c] for c in cells_in_order]
        ).statistic
    )
    says = f"{against}: rank correlation with the published ratios, {len(published_ratios)} cells"
    allowed, passed = f"at least {MIN_RANK_CORRELATION}", rank >= MIN_RANK_CORRELATION
    checks.append(CheckedClaim(CHECK_NAME, says, f"{rank:.2f}", allowed, passed))
    for n in sorted({cell.n for cell in square}):
        low, high = bracket(published_ratios, n)
        crossing = result.crossings[dense][n]
        says = f"{against}: crossover at {side}, n={n}"
        figure, allowed = format_crossover(crossing), _format_range(low, high)
        checks.append(CheckedClaim(CHECK_NAME, says, figure, allowed, low <= crossing <= high))
    return checks


def verify(console: Console) -> list[CheckedClaim]:
    """Measures the table again, prints it, and checks the claims on the products that it compares.

    `process.prepare_process` must have been called in this process. Takes two minutes.
    """
    from masksweep.sweeps.bench import sparse_matmul

    published_ratios = {row.cell: row.ratio for row in sparse_matmul.published()}
    result = sparse_matmul.run()
    for rendered in (table(published_ratios, result), crossing_table(published_ratios, result)):
        console.print(rendered)
        console.print()
    return check_claims(published_ratios, result, "flagged")


def bracket(ratios: Ratios, n: int) -> tuple[float, float]:
    """Returns the two densities of a table that enclose its crossover.

    The A of the table has the side `MATRIX_SIDE`.

    Args:
        ratios: Ratios by cell.
        n: Columns of B.

    Returns:
        The last density at which sparse is faster, 0 if there is none; and the next density,
        infinity if there is none.
    """
    sizes = (n, MATRIX_SIDE, MATRIX_SIDE)
    square = {c.density: r for c, r in ratios.items() if (c.n, c.m, c.k) == sizes}
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


def format_crossover(crossing: float) -> str:
    """Returns a crossover as text: the density in percent below which sparse is faster."""
    if crossing == 0:
        return f"none: slower from {MIN_DENSITY:.1%}"
    return f"none: faster to {MAX_DENSITY:.0%}" if crossing == inf else f"{100 * crossing:.2g}%"


def _format_range(low: float, high: float) -> str:
    return f"{low:.0%} or more" if high == inf else f"{low:.0%} to {high:.0%}"


def table(published_ratios: Ratios, result: Result) -> Table:
    """Returns the ratios for the terminal: published, ours to `flagged`, and ours to `plain`."""
    caption = "sparse / dense. doc: as published; here flag: a_is_sparse=True, mul: without"
    densities = sorted({cell.density for cell in published_ratios})
    columns = [Column("A\nm x k"), Column("B\nn", right=True)]
    columns += [Column(f"{density:.0%} non-zero\n doc flag  mul") for density in densities]
    flagged, plain = result.ratios("flagged"), result.ratios("plain")
    rows = []
    for series in _series(published_ratios, "density"):
        cells = [
            " ".join(_format_ratio(r[c]) for r in (published_ratios, flagged, plain))
            for c in series
        ]
        rows.append([f"{series[0].m}x{series[0].k}", str(series[0].n), *cells])
    return tables.terminal(columns, rows, caption)


def _format_ratio(ratio: float) -> str:
    """The ratio in four characters, if it is at most 9999."""
    return f"{ratio:4.{2 if ratio < 9.995 else 1 if ratio < 99.95 else 0}f}"


def crossing_table(published_ratios: Ratios, result: Result) -> Table:
    """Returns the densities below which sparse is faster, published and ours, for the terminal."""
    side = f"{MATRIX_SIDE}x{MATRIX_SIDE}"
    headers = (f"{side}, n", "doc", *(f"here: {name}" for name in DENSE.values()))
    rows = []
    for n in COLUMN_COUNTS:
        crossovers = [format_crossover(result.crossings[dense][n]) for dense in DENSE]
        published = any(cell.n == n for cell in published_ratios)
        published_range = _format_range(*bracket(published_ratios, n)) if published else "-"
        rows.append([str(n), published_range, *crossovers])
    return tables.terminal([Column(header, right=True) for header in headers], rows)
