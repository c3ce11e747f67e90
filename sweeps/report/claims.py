"""Checks the claims of a sweep against its trials, and shows them as tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from masksweep.sweeps.common import tables
from masksweep.sweeps.common.tables import Column
from masksweep.sweeps.config.claim import SIGNS, TESTS, Claim
from masksweep.sweeps.config.selection import Parts, select
from masksweep.sweeps.report.significance import (
    SIGNIFICANCE_LEVEL,
    Difference,
    holm,
    paired_difference,
)

if TYPE_CHECKING:
    from masksweep.sweeps.config.outcome import Outcome


METHOD_NOTE = (
    "A difference has the interval of its claim alone (bootstrap, 95 %), and p after Holm for all"
    " claims that compare; a claim that asks for a sign needs both"
)


@dataclass(frozen=True)
class CheckedClaim:
    """A claim with the result of its check."""

    name: str
    statement: str
    figure: str
    """The measured value or difference, with the number of trials or seeds."""
    allowed: str
    """The allowed values, for example `>= 0.5`."""
    passed: bool | None
    """Whether the claim is true; None if the sweep has no trial that the claim is about."""

    @property
    def verdict(self) -> str:
        """The result as a word or two: `PASS`, `FAIL` or `not checked`."""
        return {True: "PASS", False: "FAIL", None: "not checked"}[self.passed]


def check(
    claims: Mapping[str, Claim], outcomes: Sequence[Outcome], parts: Parts
) -> list[CheckedClaim]:
    """Checks each claim. A failed trial in a claim's selection fails the claim.

    Args:
        claims: The claims by name.
        outcomes: The trials of the sweep.
        parts: Names of the parts of the sweep that a trial belongs to, by trial id.

    Returns:
        The checked claims, in the same order.
    """
    groups = {
        name: [select(s, outcomes, parts) for s in (claim.trials, claim.minus) if s is not None]
        for name, claim in claims.items()
    }
    compared: dict[str, Difference] = {}
    for name, claim in claims.items():
        if claim.minus is not None:
            minuend, subtrahend = (_by_seed(group, claim.metric) for group in groups[name])
            if seeds := [seed for seed in minuend if seed in subtrahend]:
                compared[name] = paired_difference(
                    [minuend[s] for s in seeds],
                    [subtrahend[s] for s in seeds],
                )
    corrected = dict(zip(compared, holm(list(compared.values())), strict=True))
    return [
        CheckedClaim(name, claim.says, *_check(claim, groups[name], corrected.get(name)))
        for name, claim in claims.items()
    ]


def _check(
    claim: Claim, groups: Sequence[Sequence[Outcome]], difference: Difference | None
) -> tuple[str, str, bool | None]:
    """Returns (figure, allowed, passed) of a claim, as the fields of `CheckedClaim`.

    Args:
        claim: The claim.
        groups: The selected trials, and for a claim with `minus` those to subtract.
        difference: The corrected difference of the two groups, if they have a common seed.
    """
    formatter = _Formatter(claim.metric)
    allowed = _describe_allowed(claim, formatter)
    if failed := [o for group in groups for o in group if o.status == "failed"]:
        return f"{_count_trials(len(failed))} failed: {failed[0].reason}", allowed, False
    if not all(any(o.status == "ok" for o in group) for group in groups):
        return "no such trial in this sweep", allowed, None
    measured = [
        [o.result.metrics.get(claim.metric) for o in group if o.status == "ok"] for group in groups
    ]
    values = [v for group in measured for v in group]
    numbers = [v for v in values if v is not None]
    required = len(values) if claim.minus is not None else max(len(values), claim.seeds)
    if len(numbers) < required:
        return f"measured in {len(numbers)} of {_count_trials(required)}", allowed, False
    # MLflow returns an infinite value as the largest float64
    measured_trials = _count_trials(len(numbers))
    if not_finite := [v for v in numbers if not abs(v) < 1e300]:
        return f"no finite number in {len(not_finite)} of {measured_trials}", allowed, False
    if claim.minus is not None:
        if difference is None:
            return "no seed in common", allowed, False
        passed = difference.seeds >= claim.seeds and _difference_passes(claim, difference)
        return formatter.difference(difference), allowed, passed
    if claim.near is not None:
        assert claim.tolerance is not None
        mean = fmean(numbers)
        passed = any(abs(mean - n) <= claim.tolerance for n in claim.near)
        return f"{formatter.value(mean)} in the mean of {measured_trials}", allowed, passed
    least, most = formatter.value(min(numbers)), formatter.value(max(numbers))
    figure = least if most == least else f"{least} to {most}"
    passed = all(TESTS[claim.test](v, claim.limit) for v in numbers)
    skipped = sum(o.status == "skipped" for group in groups for o in group)
    skipped_note = f", {skipped} skipped" if skipped else ""
    return f"{figure} in {measured_trials}{skipped_note}", allowed, passed


def _difference_passes(claim: Claim, d: Difference) -> bool:
    match claim.test:
        case "above":
            return d.mean > claim.limit and d.p < SIGNIFICANCE_LEVEL and d.low > claim.limit
        case "below":
            return d.mean < claim.limit and d.p < SIGNIFICANCE_LEVEL and d.high < claim.limit
        case "at_most":
            return max(d.high, d.mean + d.margin) <= claim.limit
    return min(d.low, d.mean - d.margin) >= claim.limit


def _by_seed(outcomes: Sequence[Outcome], metric: str) -> dict[int, float]:
    measured = (o for o in outcomes if o.status == "ok" and metric in o.result.metrics)
    return {o.trial.seed: o.result.metrics[metric] for o in measured}


@dataclass(frozen=True)
class _Formatter:
    """Formats the values of a metric for people: an accuracy in percent."""

    metric: str

    def value(self, number: float) -> str:
        if self.metric.endswith("accuracy"):
            return f"{100 * number:z.1f} %"
        return f"{number:z.4g}"

    def difference(self, d: Difference) -> str:
        interval = "" if math.isnan(d.low) else f" [{self.value(d.low)}, {self.value(d.high)}]"
        p = "" if math.isnan(d.p) else f", p = {d.p:.2g}"
        seeds = "seed" if d.seeds == 1 else "seeds"
        return f"{self.value(d.mean)}{interval}{p}, {d.seeds} {seeds}"


def _describe_allowed(claim: Claim, formatter: _Formatter) -> str:
    if claim.near is not None and claim.tolerance is not None:
        published = " or ".join(formatter.value(n) for n in claim.near)
        return f"{published}, +-{formatter.value(claim.tolerance)}"
    return f"{SIGNS[claim.test]} {formatter.value(claim.limit)}"


def _count_trials(count: int) -> str:
    return f"{count} trial" if count == 1 else f"{count} trials"


HEADERS = ("claim", "found", "allowed", "verdict")


def table(checked: Sequence[CheckedClaim]) -> Table:
    """Returns the checked claims as a table for the terminal."""
    columns = [Column(header, wrap=header != "verdict") for header in HEADERS]
    caption = f"{METHOD_NOTE}." if any(", p = " in c.figure for c in checked) else ""
    colours = {True: "green", False: "bold red", None: "yellow"}
    cells = []
    for c in checked:
        verdict = Text(c.verdict, style=colours[c.passed])
        cells.append([Text(f"{c.name}: {c.statement}"), Text(c.figure), Text(c.allowed), verdict])
    return tables.terminal(columns, cells, caption)


def as_markdown(checked: Sequence[CheckedClaim]) -> str:
    """Returns the checked claims as a Markdown table; empty if there are none."""
    if not checked:
        return ""
    rows = [[f"{c.name}: {c.statement}", c.figure, c.allowed, c.verdict] for c in checked]
    text = tables.as_markdown(HEADERS, rows)
    return text + (f"\n{METHOD_NOTE}.\n" if any(", p = " in c.figure for c in checked) else "")
