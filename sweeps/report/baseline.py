"""Every strategy against a baseline: paired by seed, with intervals and corrected tests."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from masksweep.sweeps.common import tables
from masksweep.sweeps.common.tables import Column
from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.report.significance import (
    SIGNIFICANT,
    Difference,
    noise_floor,
    paired,
    simultaneous,
)

DIGITS = 8
"""The most decimals of a difference."""
DENSE = "dense"
"""The baseline where none is given: the control that masks nothing."""


@dataclass(frozen=True)
class Compared:
    """One strategy, pattern and variant against the baseline of the same seeds."""

    strategy: str
    pattern: str
    metric: str
    difference: Difference
    """In points of percent for an accuracy. Intervals and p-values hold for the whole table at
    once."""


def against(outcomes: Sequence[Outcome], baseline: str = DENSE) -> list[Compared]:
    """Test scores of every group minus those of a baseline, where two seeds have both.

    The baseline is a strategy by its label. The partner of a trial is what it would be itself under
    that strategy: of the same seed, model, data and its order, optimizer, steps, and of the same
    masks and held values where the baseline has any. How either is audited, timed or packed does
    not count.
    """
    theirs = [o for o in outcomes if o.trial.label == baseline]
    scores = {training(o.trial): score(o) for o in theirs if o.status == "ok"}
    groups: dict[tuple[str, str], list[tuple[float, float]]] = {}
    metrics: dict[tuple[str, str], str] = {}
    for o in outcomes if theirs else ():
        if o.status != "ok" or o.trial.strategy.role == "dense" or o.trial.label == baseline:
            continue
        own, other = score(o), scores.get(training(o.trial.under(theirs[0].trial.strategy)))
        if own is None or other is None:
            continue
        key = o.trial.label, ", ".join(filter(None, [o.trial.pattern_label, o.variant]))
        groups.setdefault(key, []).append((own, other))
        metrics[key] = metric(o)
    found = {k: paired(*zip(*pairs, strict=True)) for k, pairs in groups.items() if len(pairs) > 1}
    corrected = simultaneous(list(found.values()))
    return [Compared(*k, metrics[k], d) for k, d in zip(found, corrected, strict=True)]


def training(trial: Trial, without: Sequence[str] = ()) -> str:
    """What a training follows from, as a key; without some parts of the config."""
    apart = ("audit", "speed", "pack", "compare", *without)
    config = {k: v for k, v in trial.canonical().items() if k not in apart}
    if trial.strategy.role == "dense":  # it has no masks to change, and resumes to the same bits
        train = config["train"]
        config["train"] = {k: v for k, v in train.items() if k not in ("switch_at", "resume_at")}
    return json.dumps(config, sort_keys=True)


def floors(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """By metric, how far two dense trials lie apart that differ in nothing but their seed."""
    groups: dict[tuple[str, str], list[float]] = {}
    for o in outcomes:
        own = score(o) if o.status == "ok" else None
        if o.trial.strategy.role == "dense" and own is not None:
            groups.setdefault((metric(o), o.variant), []).append(own)
    found: dict[str, float] = {}
    for (name, _), values in groups.items():
        floor = noise_floor(values)
        if not math.isnan(floor):
            found[name] = max(floor, found.get(name, 0.0))
    return found


def metric(outcome: Outcome) -> str:
    """What a trial's test score is."""
    return outcome.trial.score


def score(outcome: Outcome) -> float | None:
    """The test score, an accuracy in percent; None if there is none."""
    name = metric(outcome)
    found = outcome.result.metrics.get(f"test/{name}")
    return None if found is None else found * (100 if name == "accuracy" else 1)


def rows(
    outcomes: Sequence[Outcome], baseline: str = DENSE
) -> list[tuple[str, str, str, str, str]]:
    """Strategy, pattern, difference with its interval, p, seeds."""
    return [
        (c.strategy, c.pattern, _figure(c), _p(c.difference), str(c.difference.seeds))
        for c in against(outcomes, baseline)
    ]


def headers(baseline: str = DENSE) -> tuple[str, str, str, str, str]:
    """The names of the columns."""
    return "strategy", "pattern", f"test score minus {baseline}", "p (Bonferroni)", "seeds"


def _figure(compared: Compared) -> str:
    d, digits = compared.difference, 1 if compared.metric == "accuracy" else 4
    # a limit beside zero must not look as if it were zero, nor on its other side
    while digits < DIGITS and any(x and not float(f"{x:.{digits}f}") for x in (d.low, d.high)):
        digits += 1
    return f"{d.mean:+z.{digits}f} [{d.low:+z.{digits}f}, {d.high:+z.{digits}f}]"


def _p(difference: Difference) -> str:
    shown = f"{difference.p:.3f}"
    if difference.p < 0.001:
        return "< 0.001"
    if difference.p < SIGNIFICANT:
        return shown if float(shown) < SIGNIFICANT else f"{difference.p:.5f}"
    return f"{shown} (not clear)"


def method(compared: int) -> str:
    """What the intervals and p-values of a table with so many rows are."""
    many = f"of all {compared} rows at once (Bonferroni)" if compared > 1 else "of this row"
    return (
        f"Intervals (95 %) and p are {many}, by Student's t over the seeds: where p is below"
        f" {SIGNIFICANT}, and there alone, the interval leaves out zero."
    )


def note(outcomes: Sequence[Outcome]) -> str:
    """What the figures must be seen against; empty without two dense trials."""
    by_data: dict[str, list[Outcome]] = {}
    for o in outcomes:
        by_data.setdefault(o.trial.data.name, []).append(o)
    told = []
    for name, members in by_data.items():
        under = f" ({name})" if len(by_data) > 1 else ""
        for metric, floor in floors(members).items():
            unit = "points of accuracy" if metric == "accuracy" else f"in {metric}"
            told.append(f"{floor:.{1 if metric == 'accuracy' else 4}f} {unit}{under}")
    if not told:
        return ""
    return (
        f"Noise: two dense trials that differ in their seed alone lie {' and '.join(told)} apart."
    )


def table(outcomes: Sequence[Outcome]) -> Table | None:
    """The comparison for the terminal; None if there is none."""
    found = rows(outcomes)
    if not found:
        return None
    columns = [Column(header, wrap=header == "pattern") for header in headers()]
    return tables.terminal(columns, found)


def as_markdown(outcomes: Sequence[Outcome]) -> str:
    """The comparison as a table in markdown; empty if there is none."""
    found = rows(outcomes)
    if not found:
        return ""
    text = tables.as_markdown(headers(), found)
    return f"{text}\n{method(len(found))}\n\n{note(outcomes)}\n"
