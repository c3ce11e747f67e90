"""The table of a sweep: a row for each strategy, pattern and variant."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from statistics import fmean, median
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from sweeps import claims, escape
from sweeps.amiss import alarms, amiss, inconclusive, leaks, violated
from sweeps.claims import Checked
from sweeps.config import Trial, flat
from sweeps.trial import TrialResult

PLAIN = ("-", "control", "inconclusive")
"""Verdicts that are neither good nor bad."""
Status = Literal["ok", "failed", "skipped"]
HEADERS = ("strategy", "pattern", "step /\ndense", "weights\nviolated", "verdict", "ok/fail\n/skip")


@dataclass(frozen=True)
class Outcome:
    """One trial and how it ended."""

    trial: Trial
    variant: str
    """What tells it apart from trials of the same strategy and pattern."""
    status: Status
    result: TrialResult = field(default_factory=lambda: TrialResult("ok"))
    reason: str = ""

    @property
    def name(self) -> str:
        return ", ".join(filter(None, [self.trial.name, self.variant]))


@dataclass(frozen=True)
class Row:
    """All seeds of one strategy, pattern and variant."""

    strategy: str
    pattern: str
    score: str
    """Mean of the test score with its 95 % interval (Student's t over the seeds)."""
    ratio: str
    """Median of the step time, as a ratio to the dense control."""
    violated: str
    """The most masked weights that differed from their held value at any audited step."""
    verdict: str
    counts: str
    good: bool
    """Whether nothing here is amiss: real strategies hold, and the control leaks."""
    amiss: str
    """What follows the verdict where something is: a trial in which, and its cause."""


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half of its 95 % interval by Student's t; the half is NaN for a single value."""
    from scipy import stats

    if len(values) < 2:
        return fmean(values) if values else nan, nan
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return fmean(values), float(half)


def variants(trials: Sequence[Trial]) -> dict[str, str]:
    """What tells each trial apart, beside the seed, from others of its strategy and pattern.

    By trial id: the settings in which they differ, as `adamw, train.epochs=2`; empty if in none.
    """
    alike: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        alike.setdefault((trial.label, trial.pattern_label), []).append(trial)
    told = {}
    for members in alike.values():
        settings = {t.id: flat(t.canonical()) for t in members}
        keys = dict.fromkeys(k for s in settings.values() for k in s)
        differ = [k for k in keys if len({repr(s.get(k)) for s in settings.values()}) > 1]
        differ = [k for k in differ if k not in ("seed", "jit", "pack")]
        # another optimizer says it all, where its own settings only differ with it
        differ = [k for k in differ if not _follows(k, differ, list(settings.values()))]
        for trial in members:
            found = {k: settings[trial.id].get(k) for k in differ}
            told[trial.id] = ", ".join(
                str(v) if k in GROUPS else f"{k}={v}" for k, v in found.items() if v is not None
            )
    return told


GROUPS = ("model", "data", "optimizer")


def _follows(key: str, differ: Sequence[str], settings: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a setting of an object is the same wherever the object's name is."""
    group, _, knob = key.partition(".")
    if not knob or group not in differ:
        return False
    found: dict[str, set[str]] = {}
    for s in settings:
        found.setdefault(s[group], set()).add(repr(s.get(key)))
    return all(len(values) == 1 for values in found.values())


def controls_hold(outcomes: Iterable[Outcome]) -> bool:
    """Whether a control that must leak held, so that no verdict can be trusted."""
    return any(map(alarms, outcomes))


def rows(outcomes: Iterable[Outcome]) -> list[Row]:
    """One row for each strategy, pattern and variant, in the order of the trials."""
    groups: dict[tuple[str, str, str], list[Outcome]] = {}
    for outcome in outcomes:
        key = (outcome.trial.label, outcome.trial.pattern_label, outcome.variant)
        groups.setdefault(key, []).append(outcome)
    return [
        _row(strategy, ", ".join(filter(None, [pattern, variant])), members)
        for (strategy, pattern, variant), members in groups.items()
    ]


def _row(strategy: str, pattern: str, members: Sequence[Outcome]) -> Row:
    done = [o.result.metrics for o in members if o.status == "ok"]

    def column(name: str) -> list[float]:
        return [metrics[name] for metrics in done if name in metrics]

    classify = members[0].trial.data.task == "classification"
    scores = column("test/accuracy" if classify else "test/mse")
    mean, half = interval(scores)
    unit, digits = (100, 1) if classify else (1, 4)
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
        amiss(members),
    )


def _verdict(members: Sequence[Outcome]) -> tuple[str, bool]:
    """The verdict on trials of one strategy, and whether it is what it must be."""
    role = members[0].trial.strategy.role
    metrics = [o.result.metrics for o in members if o.status == "ok"]
    holds = [m["integrity/ok"] for m in metrics if "integrity/ok" in m]
    if role == "dense":
        return "control", True
    if not holds:
        return "-", True
    if role == "control":
        if controls_hold(members):
            return "HOLDS, must leak", False
        still = sum(map(inconclusive, members))
        return "inconclusive" if still == len(holds) else "leaks, as it must", True
    if all(holds):
        return "holds", True
    failing = [m for m in metrics if m.get("integrity/ok") == 0]
    if any(map(violated, failing)):
        word = "LEAKS"
    elif any(map(leaks, failing)):
        word = "MOVES"  # an output that is held, or what does not train
    else:
        word = "UNPROVEN"
    return f"{word} in {len(failing)} of {len(holds)}", False


def headers(outcomes: Sequence[Outcome]) -> list[str]:
    """The names of the columns, of which some take two lines."""
    names = {"classification": "accuracy %", "regression": "mse"}
    tasks = dict.fromkeys(names[o.trial.data.task] for o in outcomes)
    strategy, pattern, *others = HEADERS
    return [strategy, pattern, f"test\n{' or '.join(tasks)}", *others]


def table(outcomes: Sequence[Outcome]) -> Table:
    """The rows as a table for the terminal."""
    made = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for header in headers(outcomes):
        made.add_column(
            header,
            justify="left" if header in ("strategy", "pattern", "verdict") else "right",
            vertical="bottom",
            no_wrap=header != "pattern",  # figures and names never break
            min_width=12 if header == "pattern" else None,
        )
    for row in rows(outcomes):
        colour = "green" if row.good else "bold red"
        plain = row.verdict in PLAIN
        made.add_row(
            row.strategy.replace("(", "\n("),
            row.pattern,
            row.score,
            row.ratio,
            row.violated,
            Text(row.verdict, style="" if plain else colour),
            row.counts,
        )
    return made


def as_text(outcomes: Sequence[Outcome], checked: Sequence[Checked] = ()) -> str:
    """The table as plain text, and that of the claims."""
    console = escape.console(file=io.StringIO(), width=120)
    console.print(table(outcomes))
    if checked:
        console.print()
        console.print(claims.table(checked))
    assert isinstance(console.file, io.StringIO)
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())


def as_markdown(outcomes: Sequence[Outcome]) -> str:
    """The table as markdown."""
    names = [header.replace("\n", " ") for header in headers(outcomes)]
    cells = (
        [r.strategy, r.pattern, r.score, r.ratio, r.violated, r.verdict, r.counts]
        for r in rows(outcomes)
    )
    return escape.markdown_table(names, cells)
