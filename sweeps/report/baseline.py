"""Compares each strategy with a baseline: paired by seed, with intervals and corrected tests."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from masksweep.sweeps.common import tables
from masksweep.sweeps.common.tables import Column
from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.config.score_metric import ScoreMetric
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.report.data_sets import data_labels
from masksweep.sweeps.report.significance import (
    SIGNIFICANCE_LEVEL,
    Difference,
    bonferroni,
    noise_floor,
    paired_difference,
)

MAX_DECIMALS = 8
"""Largest number of decimals that a difference is shown with."""
DEFAULT_BASELINE = "dense"
"""The default baseline: the control that masks nothing."""


@dataclass(frozen=True)
class Comparison:
    """The comparison of one strategy, pattern and variant with the baseline of the same seeds."""

    strategy: str
    pattern: str
    metric: ScoreMetric
    difference: Difference
    """Strategy minus baseline, for an accuracy in percentage points. Intervals and p-values are
    corrected for the number of rows of the whole table."""


def compare_with_baseline(
    outcomes: Sequence[Outcome], baseline: str = DEFAULT_BASELINE
) -> list[Comparison]:
    """Compares the scores of each strategy, pattern and variant with those of a baseline.

    Each trial is paired with the baseline trial that trains in the same way: with the same seed,
    model, data, order of the data, optimizer and steps. If the baseline masks weights, the masks
    and held values must be the same too. Settings of audit, timing and packing are ignored.

    Args:
        outcomes: All trials, including those of the baseline.
        baseline: Label of the strategy to compare with.

    Returns:
        One comparison for each group with at least two pairs, in the order of the trials.
    """
    baselines = [o for o in outcomes if o.trial.label == baseline]
    partners = {training_key(o.trial): o for o in baselines if o.status == "ok"}
    groups: dict[tuple[str, str, ScoreMetric], list[tuple[float, float]]] = {}
    for o in outcomes if baselines else ():
        if o.status != "ok" or o.trial.strategy.role == "dense" or o.trial.label == baseline:
            continue
        under_baseline = o.trial.with_strategy(baselines[0].trial.strategy)
        partner = partners.get(training_key(under_baseline))
        own, other = score(o), None if partner is None else score(partner, metric(o))
        if own is None or other is None or not math.isfinite(own - other):
            continue
        pattern = ", ".join(filter(None, [o.trial.pattern_label, o.variant]))
        groups.setdefault((o.trial.label, pattern, metric(o)), []).append((own, other))
    differences = {
        group: paired_difference(*zip(*pairs, strict=True))
        for group, pairs in groups.items()
        if len(pairs) > 1
    }
    corrected = bonferroni(list(differences.values()))
    return [Comparison(*group, d) for group, d in zip(differences, corrected, strict=True)]


def training_key(trial: Trial, without: Sequence[str] = ()) -> str:
    """Returns a key of all settings that determine how a trial trains.

    Args:
        trial: The trial.
        without: Sections of the config to leave out as well.

    Returns:
        The settings as JSON. Trials with equal keys train in the same way.
    """
    excluded = ("audit", "speed", "pack", "compare", *without)
    config = {k: v for k, v in trial.canonical().items() if k not in excluded}
    if trial.strategy.role == "dense":  # it has no masks to change, and resuming changes no bit
        train = config["train"]
        config["train"] = {k: v for k, v in train.items() if k not in ("switch_at", "resume_at")}
    return json.dumps(config, sort_keys=True)


def noise_floors(outcomes: Sequence[Outcome]) -> dict[ScoreMetric, float]:
    """Returns how far apart two dense trials lie that differ only in their seed.

    Args:
        outcomes: Trials of any strategies; only dense ones that ended well are used.

    Returns:
        The noise floor by metric, in the unit of `score`. If there are dense trials of several
        settings, it is the largest of their noise floors.
    """
    groups: dict[tuple[ScoreMetric, str], list[float]] = {}
    for o in outcomes:
        dense_score = score(o) if o.status == "ok" else None
        if o.trial.strategy.role == "dense" and dense_score is not None:
            groups.setdefault((metric(o), o.variant), []).append(dense_score)
    floor_by_metric: dict[ScoreMetric, float] = {}
    for (by, _), values in groups.items():
        floor = noise_floor(values)
        if not math.isnan(floor):
            floor_by_metric[by] = max(floor, floor_by_metric.get(by, 0.0))
    return floor_by_metric


def metric(outcome: Outcome) -> ScoreMetric:
    """Returns the metric that the trial is compared by."""
    return outcome.trial.score_metric


def score(outcome: Outcome, by: ScoreMetric | None = None) -> float | None:
    """Returns the value of a metric, an accuracy in percent; None if the trial has none.

    Args:
        outcome: The trial.
        by: The metric; by default `metric`.
    """
    by = by or metric(outcome)
    value = outcome.result.metrics.get(by.key)
    return None if value is None else value * by.unit


def rows(
    outcomes: Sequence[Outcome], baseline: str = DEFAULT_BASELINE
) -> list[tuple[str, str, str, str, str]]:
    """Returns the cells of the comparison: strategy, pattern, difference, p-value, seeds.

    Args:
        outcomes: All trials, including those of the baseline.
        baseline: Label of the strategy to compare with.
    """
    return [
        (c.strategy, c.pattern, _format_difference(c), _format_p(c.difference),
         str(c.difference.seeds))
        for c in compare_with_baseline(outcomes, baseline)
    ]  # fmt: skip


def headers(
    outcomes: Sequence[Outcome], baseline: str = DEFAULT_BASELINE
) -> tuple[str, str, str, str, str]:
    """Returns the names of the columns; see `rows`."""
    names = " or ".join(dict.fromkeys(metric(o).name for o in outcomes))
    return "strategy", "pattern", f"{names} minus {baseline}", "p (Bonferroni)", "seeds"


def _format_difference(compared: Comparison) -> str:
    d, digits = compared.difference, compared.metric.decimals
    # a limit that is not zero must not be rounded to zero
    limits = (d.low, d.high)
    while digits < MAX_DECIMALS and any(x and not float(f"{x:.{digits}f}") for x in limits):
        digits += 1
    return f"{d.mean:+z.{digits}f} [{d.low:+z.{digits}f}, {d.high:+z.{digits}f}]"


def _format_p(difference: Difference) -> str:
    shown = f"{difference.p:.3f}"
    if difference.p < 0.001:
        return "< 0.001"
    if difference.p < SIGNIFICANCE_LEVEL:
        return shown if float(shown) < SIGNIFICANCE_LEVEL else f"{difference.p:.5f}"
    return f"{shown} (not clear)"


def method_note(row_count: int) -> str:
    """Returns a sentence on the intervals and p-values of a table with `row_count` rows."""
    scope = f"of all {row_count} rows at once (Bonferroni)" if row_count > 1 else "of this row"
    return (
        f"Intervals (95 %) and p are {scope}, by Student's t over the seeds: where p is below"
        f" {SIGNIFICANCE_LEVEL}, and only there, the interval does not contain zero."
    )


def noise_note(outcomes: Sequence[Outcome]) -> str:
    """Returns a sentence on the noise between seeds; empty without two dense trials."""
    by_data: dict[str, list[Outcome]] = {}
    data_of = data_labels(outcomes)
    for o in outcomes:
        by_data.setdefault(data_of[o.trial.id], []).append(o)
    parts = []
    for name, members in by_data.items():
        suffix = f" ({name})" if len(by_data) > 1 else ""
        for by, floor in noise_floors(members).items():
            unit = f"points of {by.name}" if by.is_accuracy else f"in {by.name}"
            parts.append(f"{floor:.{by.decimals}f} {unit}{suffix}")
    if not parts:
        return ""
    noise = " and ".join(parts)
    return f"Noise: two dense trials that differ in their seed alone lie {noise} apart."


def table(outcomes: Sequence[Outcome]) -> Table | None:
    """Returns the comparison for the terminal; None if no strategy can be compared."""
    cells = rows(outcomes)
    if not cells:
        return None
    strategy, pattern, difference, p, seeds = headers(outcomes)
    if " or " in difference:  # several metrics: one in each line, or 80 columns do not do
        difference = difference.replace(" or ", " or\n").replace(" minus ", "\nminus ")
    columns = [
        Column(strategy), Column(pattern, wrap=True, min_width=12), Column(difference), Column(p),
        Column(seeds),
    ]  # fmt: skip
    return tables.terminal(columns, cells)


def as_markdown(outcomes: Sequence[Outcome]) -> str:
    """Returns the comparison as a Markdown table; empty if no strategy can be compared."""
    cells = rows(outcomes)
    if not cells:
        return ""
    text = tables.as_markdown(headers(outcomes), cells)
    return f"{text}\n{method_note(len(cells))}\n\n{noise_note(outcomes)}\n"
