"""Claims: what must come out of a sweep, as data, and whether it did."""

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
from masksweep.sweeps.config.selection import Parts, selected
from masksweep.sweeps.report.significance import SIGNIFICANT, Difference, holm, paired

if TYPE_CHECKING:
    from masksweep.sweeps.config.outcome import Outcome


METHOD = (
    "A difference has the interval of its claim alone (bootstrap, 95 %), and p after Holm for all"
    " claims that compare; a claim that asks for a sign needs both"
)


@dataclass(frozen=True)
class Checked:
    """A claim and what was found."""

    name: str
    says: str
    figure: str
    """What was found, with the number of trials or seeds."""
    allowed: str
    passed: bool | None
    """None where the sweep has no trial that it is about."""

    @property
    def verdict(self) -> str:
        """In a word or two."""
        return {True: "PASS", False: "FAIL", None: "not checked"}[self.passed]


def check(claims: Mapping[str, Claim], outcomes: Sequence[Outcome], parts: Parts) -> list[Checked]:
    """Every claim with what was found. A failed trial in a selection fails its claim."""
    found = {
        name: [selected(s, outcomes, parts) for s in (claim.trials, claim.minus) if s is not None]
        for name, claim in claims.items()
    }
    compared: dict[str, Difference] = {}
    for name, claim in claims.items():
        if claim.minus is not None:
            one, other = (_by_seed(group, claim.metric) for group in found[name])
            if common := [seed for seed in one if seed in other]:
                compared[name] = paired([one[s] for s in common], [other[s] for s in common])
    corrected = dict(zip(compared, holm(list(compared.values())), strict=True))
    return [
        Checked(name, claim.says, *_check(claim, found[name], corrected.get(name)))
        for name, claim in claims.items()
    ]


def _check(
    claim: Claim, groups: Sequence[Sequence[Outcome]], difference: Difference | None
) -> tuple[str, str, bool | None]:
    """(figure, what is allowed, whether it passed) of a claim on these trials."""
    shown = _Shown(claim.metric)
    allowed = _allowed(claim, shown)
    if failed := [o for group in groups for o in group if o.status == "failed"]:
        return f"{_trials(len(failed))} failed: {failed[0].reason}", allowed, False
    if not all(any(o.status == "ok" for o in group) for group in groups):
        return "no such trial in this sweep", allowed, None
    measured = [
        [o.result.metrics.get(claim.metric) for o in group if o.status == "ok"] for group in groups
    ]
    values = [v for group in measured for v in group]
    found = [v for v in values if v is not None]
    wanted = len(values) if claim.minus is not None else max(len(values), claim.seeds)
    if len(found) < wanted:
        return f"measured in {len(found)} of {_trials(wanted)}", allowed, False
    # MLflow gives an infinity back as the largest number that there is
    if wild := [v for v in found if not abs(v) < 1e300]:
        return f"no finite number in {len(wild)} of {_trials(len(found))}", allowed, False
    if claim.minus is not None:
        if difference is None:
            return "no seed in common", allowed, False
        enough = difference.seeds >= claim.seeds
        return shown.difference(difference), allowed, enough and _compared(claim, difference)
    if claim.near is not None:
        assert claim.tolerance is not None
        mean = fmean(found)
        passed = any(abs(mean - n) <= claim.tolerance for n in claim.near)
        return f"{shown.value(mean)} in the mean of {_trials(len(found))}", allowed, passed
    least, most = shown.value(min(found)), shown.value(max(found))
    figure = least if most == least else f"{least} to {most}"
    passed = all(TESTS[claim.test](v, claim.limit) for v in found)
    skipped = sum(o.status == "skipped" for group in groups for o in group)
    more = f", {skipped} skipped" if skipped else ""
    return f"{figure} in {_trials(len(found))}{more}", allowed, passed


def _compared(claim: Claim, found: Difference) -> bool:
    match claim.test:
        case "above":
            return found.mean > claim.limit and found.p < SIGNIFICANT and found.low > claim.limit
        case "below":
            return found.mean < claim.limit and found.p < SIGNIFICANT and found.high < claim.limit
        case "at_most":
            return max(found.high, found.mean + found.margin) <= claim.limit
    return min(found.low, found.mean - found.margin) >= claim.limit


def _by_seed(outcomes: Sequence[Outcome], metric: str) -> dict[int, float]:
    measured = (o for o in outcomes if o.status == "ok" and metric in o.result.metrics)
    return {o.trial.seed: o.result.metrics[metric] for o in measured}


@dataclass(frozen=True)
class _Shown:
    """Figures of a metric as a person reads them: an accuracy in percent."""

    metric: str

    def value(self, found: float) -> str:
        if self.metric.endswith("accuracy"):
            return f"{100 * found:z.1f} %"
        return f"{found:z.4g}"

    def difference(self, d: Difference) -> str:
        interval = "" if math.isnan(d.low) else f" [{self.value(d.low)}, {self.value(d.high)}]"
        p = "" if math.isnan(d.p) else f", p = {d.p:.2g}"
        seeds = "seed" if d.seeds == 1 else "seeds"
        return f"{self.value(d.mean)}{interval}{p}, {d.seeds} {seeds}"


def _allowed(claim: Claim, shown: _Shown) -> str:
    if claim.near is not None and claim.tolerance is not None:
        published = " or ".join(shown.value(n) for n in claim.near)
        return f"{published}, +-{shown.value(claim.tolerance)}"
    return f"{SIGNS[claim.test]} {shown.value(claim.limit)}"


def _trials(count: int) -> str:
    return f"{count} trial" if count == 1 else f"{count} trials"


HEADERS = ("claim", "found", "allowed", "verdict")


def table(checked: Sequence[Checked]) -> Table:
    """The claims for the terminal."""
    columns = [Column(header, wrap=header != "verdict") for header in HEADERS]
    caption = f"{METHOD}." if any(", p = " in c.figure for c in checked) else ""
    colours = {True: "green", False: "bold red", None: "yellow"}
    cells = []
    for c in checked:
        verdict = Text(c.verdict, style=colours[c.passed])
        cells.append([Text(f"{c.name}: {c.says}"), Text(c.figure), Text(c.allowed), verdict])
    return tables.terminal(columns, cells, caption)


def as_markdown(checked: Sequence[Checked]) -> str:
    """The claims as a table in markdown; empty without any."""
    if not checked:
        return ""
    rows = [[f"{c.name}: {c.says}", c.figure, c.allowed, c.verdict] for c in checked]
    text = tables.as_markdown(HEADERS, rows)
    return text + (f"\n{METHOD}.\n" if any(", p = " in c.figure for c in checked) else "")
