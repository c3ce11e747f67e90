"""The table of a sweep, with a row for each strategy, pattern and variant."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from statistics import fmean, median

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from masksweep.sweeps.common import escape, tables
from masksweep.sweeps.common.tables import Column
from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.config.score_metric import ScoreMetric
from masksweep.sweeps.report import claims
from masksweep.sweeps.report.claims import CheckedClaim
from masksweep.sweeps.report.verdicts import control_held, describe_problem, is_inconclusive
from masksweep.sweeps.results import leaks, violated

HOLDS_UNTRAINED = "holds, untrained"
"""The verdict on trials that trained nothing: their masks were applied, and nothing could leak."""
NEUTRAL_VERDICTS = ("-", "control", "inconclusive", HOLDS_UNTRAINED)
"""Verdicts that are neither good nor bad."""
HEADERS = ("strategy", "pattern", "step /\ndense", "weights\nviolated", "verdict", "ok/fail\n/skip")


@dataclass(frozen=True)
class Row:
    """A row of the table: all trials of one strategy, pattern and variant."""

    strategy: str
    pattern: str
    """The pattern and the variant."""
    score: str
    """Mean of the score with its 95 % interval (Student's t over the seeds)."""
    ratio: str
    """Median over the trials of the step time, as a ratio to the dense control."""
    violated: str
    """Largest number of masked entries that differed from their held value at an audited step."""
    verdict: str
    counts: str
    """Number of trials that ended well, failed, and were skipped: `5/0/0`."""
    as_expected: bool
    """Whether no trial failed, and the verdict is as it must be: strategies hold, controls leak."""
    problem: str
    """Text after the verdict: a trial with a problem, and its cause; empty if there is none."""


def mean_and_interval(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean of values and its 95 % confidence interval by Student's t.

    Args:
        values: The values, for example the scores of the seeds.

    Returns:
        The mean, and half of the width of the interval. The half is NaN for fewer than two values,
        or if one is infinite or NaN; the mean is NaN for none.
    """
    from scipy import stats

    if len(values) < 2 or not all(map(isfinite, values)):
        return sum(values) / len(values) if values else nan, nan
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return fmean(values), float(half)


def any_control_held(outcomes: Iterable[Outcome]) -> bool:
    """Returns whether a control held although it must leak. Then no verdict can be trusted."""
    return any(map(control_held, outcomes))


def rows(outcomes: Iterable[Outcome]) -> list[Row]:
    """Returns a row for each strategy, pattern and variant, in the order of the trials."""
    groups: dict[tuple[str, str, str, ScoreMetric], list[Outcome]] = {}
    for outcome in outcomes:
        trial = outcome.trial
        key = (trial.label, trial.pattern_label, outcome.variant, trial.score_metric)
        groups.setdefault(key, []).append(outcome)
    return [
        _row(strategy, ", ".join(filter(None, [pattern, variant])), members)
        for (strategy, pattern, variant, _), members in groups.items()
    ]


def _row(strategy: str, pattern: str, members: Sequence[Outcome]) -> Row:
    trial_metrics = [o.result.metrics for o in members if o.status == "ok"]

    def column(name: str) -> list[float]:
        return [metrics[name] for metrics in trial_metrics if name in metrics]

    by = members[0].trial.score_metric
    scores = column(by.key)
    mean, half = mean_and_interval(scores)
    unit, digits = by.unit, by.decimals
    score = f"{mean * unit:.{digits}f}" if scores else "-"
    if half == half:
        score += f" ± {half * unit:.{digits}f}"
    ratios = column("speed/ratio_to_dense")
    most = max(column("integrity/peak_violations"), default=None)
    verdict, good = _verdict(members)
    counts = [sum(o.status == s for o in members) for s in ("ok", "failed", "skipped")]
    return Row(
        strategy,
        pattern,
        score,
        f"{median(ratios):.2f}" if ratios else "-",
        "-" if most is None else f"{most:,.0f}",
        verdict,
        "/".join(map(str, counts)),
        good and not counts[1],
        describe_problem(members),
    )


def _verdict(members: Sequence[Outcome]) -> tuple[str, bool]:
    """Returns the verdict on trials of one strategy, and whether it is as it must be."""
    role = members[0].trial.strategy.role
    metrics = [o.result.metrics for o in members if o.status == "ok"]
    holds = [m["integrity/ok"] for m in metrics if "integrity/ok" in m]
    if role == "dense":
        return "control", True
    if not holds:
        return "-", True
    if role == "control":
        if any_control_held(members):
            return "HOLDS, must leak", False
        unreachable = sum(map(is_inconclusive, members))
        return "inconclusive" if unreachable == len(holds) else "leaks, as it must", True
    if all(holds):
        untrained = all(o.trial.still_reason for o in members)
        return HOLDS_UNTRAINED if untrained else "holds", True
    failing = [m for m in metrics if m.get("integrity/ok") == 0]
    if any(map(violated, failing)):
        word = "LEAKS"
    elif any(map(leaks, failing)):
        word = "MOVES"  # an output that is held, or a weight that must not train
    else:
        word = "UNPROVEN"
    return f"{word} in {len(failing)} of {len(holds)}", False


def headers(outcomes: Sequence[Outcome]) -> list[str]:
    """Returns the names of the columns. Some have a line break."""
    titles = dict.fromkeys(o.trial.score_metric.title for o in outcomes)
    strategy, pattern, *others = HEADERS
    return [strategy, pattern, " or\n".join(titles).replace(" ", "\n", 1), *others]


def headers_in_one_line(outcomes: Sequence[Outcome]) -> list[str]:
    """Returns the names of the columns without line breaks."""
    return [header.replace("\n/", "/").replace("\n", " ") for header in headers(outcomes)]


def table(outcomes: Sequence[Outcome]) -> Table:
    """Returns the rows as a table for the terminal."""
    columns = [
        # only patterns may be broken into lines
        Column("pattern", wrap=True, min_width=12)
        if header == "pattern"
        else Column(header, right=header not in ("strategy", "verdict"))
        for header in headers(outcomes)
    ]
    cells: list[list[RenderableType]] = []
    for row in rows(outcomes):
        colour = "green" if row.as_expected else "bold red"
        verdict = Text(row.verdict, style="" if row.verdict in NEUTRAL_VERDICTS else colour)
        name = row.strategy.replace("(", "\n(")
        cells.append([name, row.pattern, row.score, row.ratio, row.violated, verdict, row.counts])
    return tables.terminal(columns, cells, gap=1)  # the table must fit into 80 characters


def as_text(outcomes: Sequence[Outcome], checked: Sequence[CheckedClaim] = ()) -> str:
    """Returns the table as plain text, followed by the table of the claims.

    Args:
        outcomes: The trials of a sweep.
        checked: The checked claims; without any, their table is left out.
    """
    console = escape.console(file=io.StringIO(), width=120)
    console.print(table(outcomes))
    if checked:
        console.print()
        console.print(claims.table(checked))
    assert isinstance(console.file, io.StringIO)
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())


def as_markdown(outcomes: Sequence[Outcome]) -> str:
    """Returns the table as Markdown."""
    names = headers_in_one_line(outcomes)
    cells = (
        [r.strategy, r.pattern, r.score, r.ratio, r.violated, r.verdict, r.counts]
        for r in rows(outcomes)
    )
    return tables.as_markdown(names, cells)
