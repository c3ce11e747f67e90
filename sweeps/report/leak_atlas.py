"""The leak atlas: an HTML page that shows for each trial whether its masked weights were held."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from masksweep.sweeps import results
from masksweep.sweeps.config.display import label
from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.config.validation import as_section
from masksweep.sweeps.report import verdicts
from masksweep.sweeps.report.templating import render

CELL_KINDS = ("exact", "refused", "unproven", "leaks", "failed")
"""Kinds of cells, from the best to the worst."""
VIOLATIONS_METRIC = "integrity/violations"
"""A metric that every trial with masked weights has."""


@dataclass(frozen=True)
class Cell:
    """One trial of the atlas."""

    strategy: str
    setting: str
    """Optimizer, its settings, weight penalty and constraint, for example `sgd, l2=0.01`."""
    held: str
    """The held values, for example `zero`."""
    event: str
    """What happens in the middle of the training: `none`, `mask changed`, `resumed`, the name of a
    mask schedule, or two of them."""
    kind: str
    """One of `CELL_KINDS`."""
    drift: float = 0.0
    """Largest distance of a masked entry from its held value; infinite if one is NaN."""
    step: int | None = None
    """First audited step with a violation; None if only the final audit has one."""
    through: str = ""
    """Stages of the training step that moved the weight, for example `decay, slots`."""
    reason: str = ""
    """Why the cell is neither `exact` nor `leaks`."""

    @property
    def text(self) -> str:
        """The text of the cell on the page."""
        if self.kind != "leaks":
            return self.kind if self.kind == "exact" else f"{self.kind}: {self.reason}"
        far = f"{self.drift:.2g}" if self.drift else "only the sign of 0"
        since = f"from step {self.step}" if self.step is not None else "at the end"
        return f"{far}, {since}, through {self.through or '?'}"


def cells(outcomes: Iterable[Outcome]) -> list[Cell]:
    """Returns a cell for each trial that masks a weight, in the order of the trials."""
    masking = (o for o in outcomes if o.trial.strategy.role != "dense")
    return [_cell(o) for o in masking if o.status != "ok" or VIOLATIONS_METRIC in o.result.metrics]


def _cell(outcome: Outcome) -> Cell:
    trial, metrics = outcome.trial, outcome.result.metrics
    where = (label(trial.strategy), _setting(trial), label(trial.held), _event(trial))
    if outcome.status != "ok":
        kind = "refused" if outcome.status == "skipped" else "failed"
        return Cell(*where, kind, reason=outcome.reason)
    if verdicts.is_inconclusive(outcome):
        return Cell(*where, "unproven", reason="no gradient reaches what is masked")
    if not results.violated(metrics):
        if metrics["integrity/ok"]:
            return Cell(*where, "exact")
        return Cell(*where, "unproven", reason=results.unproven_reason(metrics))
    first = metrics.get("integrity/first_violation_step")
    drifts = [metrics["integrity/max_drift"], metrics["integrity/peak_drift"]]
    drift = math.inf if any(map(math.isnan, drifts)) else max(drifts)
    through = outcome.result.tags.get("integrity.through", "")
    return Cell(*where, "leaks", drift, None if first is None else int(first), through)


def _setting(trial: Trial) -> str:
    """Returns the settings that are not default, without the learning rate.

    For example `sgd, momentum=0.9, l2=0.01`.
    """
    settings = as_section(trial.optimizer, defaults=False)
    model = as_section(trial.model, defaults=False)
    settings |= {k: model[k] for k in ("l2", "constraint") if k in model}
    shown = {k: v for k, v in settings.items() if k not in ("name", "learning_rate")}
    parts = [trial.optimizer.name, *(k if v is True else f"{k}={v}" for k, v in shown.items())]
    return ", ".join(parts)


def _worst(cells: Sequence[Cell]) -> Cell:
    """Returns the worst of several cells: by its kind, then by its drift."""
    return max(cells, key=lambda c: (CELL_KINDS.index(c.kind), c.drift))


def _event(trial: Trial) -> str:
    events = []
    if trial.train.switch_at:
        events.append("mask changed")
    elif trial.moves_masks:
        events.append(trial.schedule.name)
    if trial.train.resume_at:
        events.append("resumed")
    return ", ".join(events) or "none"


@dataclass(frozen=True)
class Table:
    """The cells of one strategy."""

    strategy: str
    columns: list[tuple[str, str]]
    """(held values, event) of each column."""
    rows: list[tuple[str, list[Cell | None]]]
    """(setting, cells) of each row, with one cell for each column. None where there is no trial."""


def page(outcomes: Sequence[Outcome], title: str) -> str:
    """Returns the atlas as one HTML file: a table for each strategy, a row for each setting.

    Args:
        outcomes: The trials of the sweep. Trials of several seeds share a cell, which shows the
            worst of them.
        title: Title of the page.
    """
    all_cells = cells(outcomes)
    counts = {k: sum(c.kind == k for c in all_cells) for k in CELL_KINDS}
    by_kind = ", ".join(f"{n} {k}" for k, n in counts.items() if n)
    tables = [_table(all_cells, name) for name in dict.fromkeys(c.strategy for c in all_cells)]
    trials = f"{len(all_cells)} trials: {by_kind}."
    return render("leak_atlas.html", title=title, trials=trials, tables=tables)


def _table(all_cells: Sequence[Cell], strategy: str) -> Table:
    strategy_cells = [c for c in all_cells if c.strategy == strategy]
    columns = list(dict.fromkeys((c.held, c.event) for c in strategy_cells))
    cells_by_place: dict[tuple[str, str, str], list[Cell]] = {}
    for c in strategy_cells:
        cells_by_place.setdefault((c.setting, c.held, c.event), []).append(c)
    rows: list[tuple[str, list[Cell | None]]] = []
    for setting in dict.fromkeys(c.setting for c in strategy_cells):
        row = (cells_by_place.get((setting, *column)) for column in columns)
        rows.append((setting, [_worst(same_place) if same_place else None for same_place in row]))
    return Table(strategy, columns, rows)
