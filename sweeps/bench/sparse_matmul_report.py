"""What the measured products say beside TensorFlow's published table: claims, and tables."""

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
"""Least rank correlation of our ratios with the published ones."""


def findings(old: Ratios, result: Result, dense: Dense) -> list[Checked]:
    """Whether the trend of the published ratios, whatever it is, is that of ours.

    Written before anything was measured. It has no tolerance: a series along the density, or along
    n at 1000 x 1000, counts if the published ratios rise at each of its steps, and then ours must.
    A crossover must lie between the two published densities that enclose theirs.
    """
    from scipy import stats

    new = result.ratios(dense)
    against = f"sparse / {DENSE[dense]}"
    square = {cell: r for cell, r in old.items() if cell.m == cell.k == SIDE}
    found = []
    for along, where, cells in (("density", "", old), ("n", f" at {SIDE} x {SIDE}", square)):
        claimed = [series for series in _series(cells, along) if _rises(old, series)]
        good = sum(_rises(new, series) for series in claimed)
        says = f"{against}: rises with {along}{where} where the published ratio does"
        allowed = f"{len(claimed)} of {len(claimed)} series"
        figure = f"{good} of {len(claimed)} series"
        found.append(Checked(NAME, says, figure, allowed, 0 < good == len(claimed)))
    rank = float(stats.spearmanr([old[c] for c in old], [new[c] for c in old]).statistic)
    says = f"{against}: rank correlation with the published ratios, {len(old)} cells"
    found.append(Checked(NAME, says, f"{rank:.2f}", f"at least {RANK}", rank >= RANK))
    for n in sorted({cell.n for cell in square}):
        low, high = bracket(old, n)
        crossing = result.crossings[dense][n]
        says = f"{against}: crossover at {SIDE} x {SIDE}, n={n}"
        found.append(
            Checked(NAME, says, said(crossing), _range(low, high), low <= crossing <= high)
        )
    return found


def verify(console: Console) -> list[Checked]:
    """Measure the table anew, show it, and check the claims on what it compares.

    For a process that `prepare.prepare_process` was called in; it takes two minutes.
    """
    from masksweep.sweeps.bench import sparse_matmul

    old = {row.cell: row.ratio for row in sparse_matmul.published()}
    result = sparse_matmul.run()
    for shown in (table(old, result), crossing_table(old, result)):
        console.print(shown)
        console.print()
    return findings(old, result, "flagged")


def bracket(ratios: Ratios, n: int) -> tuple[float, float]:
    """The densities beside the crossover at `SIDE`: the last with sparse faster, and the next.

    0 and infinity where there is none.
    """
    square = {c.density: r for c, r in ratios.items() if (c.n, c.m, c.k) == (n, SIDE, SIDE)}
    next_ = min((d for d, r in square.items() if r >= 1), default=inf)
    return max((d for d in square if d < next_), default=0.0), next_


def _series(cells: Iterable[Cell], along: str) -> list[list[Cell]]:
    """The cells that differ in `density` or `n` alone, in its order."""
    found: dict[Cell, list[Cell]] = {}
    for cell in sorted(cells, key=lambda c: (c.density, c.n)):
        rest = replace(cell, density=0) if along == "density" else replace(cell, n=0)
        found.setdefault(rest, []).append(cell)
    return list(found.values())


def _rises(ratios: Ratios, series: Sequence[Cell]) -> bool:
    return all(ratios[one] < ratios[next_] for one, next_ in pairwise(series))


def said(crossing: float) -> str:
    """A crossover in words: the non-zero share in percent below which sparse is faster."""
    if crossing == 0:
        return f"none: slower from {LOW:.1%}"
    return f"none: faster to {HIGH:.0%}" if crossing == inf else f"{100 * crossing:.2g}%"


def _range(low: float, high: float) -> str:
    return f"{low:.0%} or more" if high == inf else f"{low:.0%} to {high:.0%}"


def table(old: Ratios, result: Result) -> Table:
    """Ratios for the terminal: as published, and here, to `flagged` and to `plain`."""
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
    """Four characters, up to 9999."""
    return f"{ratio:4.{2 if ratio < 9.995 else 1 if ratio < 99.95 else 0}f}"


def crossing_table(old: Ratios, result: Result) -> Table:
    """For the terminal: the share of non-zeros below which sparse is faster."""
    headers = (f"{SIDE}x{SIDE}, n", "doc", *(f"here: {name}" for name in DENSE.values()))
    rows = []
    for n in COLUMNS:
        here = [said(result.crossings[dense][n]) for dense in DENSE]
        known = any(cell.n == n for cell in old)
        rows.append([str(n), _range(*bracket(old, n)) if known else "-", *here])
    return tables.terminal([Column(header, right=True) for header in headers], rows)
