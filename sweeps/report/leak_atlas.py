"""The leak atlas: for each trial of a sweep whether its weights were held, and if not, why not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from masksweep.sweeps import results
from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.config.trial import Trial, label
from masksweep.sweeps.config.validation import knobs
from masksweep.sweeps.report import verdicts
from masksweep.sweeps.report.templating import render

EVENTS = ("none", "mask changed", "resumed", "changed, resumed")
KINDS = ("exact", "refused", "unproven", "leaks", "failed")
HELD = "integrity/violations"
"""A metric of every trial that holds something."""


@dataclass(frozen=True)
class Cell:
    """One trial of the atlas."""

    strategy: str
    setting: str
    """The optimizer and what is set beside it."""
    held: str
    event: str
    kind: str
    """One of `KINDS`."""
    drift: float = 0.0
    step: int | None = None
    """The first with a violation; None if only the end of the training made one."""
    through: str = ""
    reason: str = ""

    @property
    def text(self) -> str:
        """What the page says."""
        if self.kind != "leaks":
            return self.kind if self.kind == "exact" else f"{self.kind}: {self.reason}"
        far = f"{self.drift:.2g}" if self.drift else "only the sign of 0"
        since = f"from step {self.step}" if self.step is not None else "at the end"
        return f"{far}, {since}, through {self.through or '?'}"


def cells(outcomes: Iterable[Outcome]) -> list[Cell]:
    """A cell for each trial that holds something, in the order of the trials."""
    masking = (o for o in outcomes if o.trial.strategy.role != "dense")
    return [_cell(o) for o in masking if o.status != "ok" or HELD in o.result.metrics]


def _cell(outcome: Outcome) -> Cell:
    trial, metrics = outcome.trial, outcome.result.metrics
    where = (label(trial.strategy), _setting(trial), label(trial.held), _event(trial))
    if outcome.status != "ok":
        kind = "refused" if outcome.status == "skipped" else "failed"
        return Cell(*where, kind, reason=outcome.reason)
    if verdicts.inconclusive(outcome):
        return Cell(*where, "unproven", reason="no gradient reaches what is masked")
    if not results.violated(metrics):
        if metrics["integrity/ok"]:
            return Cell(*where, "exact")
        return Cell(*where, "unproven", reason=results.unproven(metrics))
    first = metrics.get("integrity/first_violation_step")
    drifts = [metrics["integrity/max_drift"], metrics["integrity/peak_drift"]]
    drift = math.inf if any(map(math.isnan, drifts)) else max(drifts)
    through = outcome.result.tags.get("integrity.through", "")
    return Cell(*where, "leaks", drift, None if first is None else int(first), through)


def _setting(trial: Trial) -> str:
    """`sgd, momentum=0.9, l2=0.01`: what is not default, but for the learning rate."""
    given = knobs(trial.optimizer, defaults=False)
    model = knobs(trial.model, defaults=False)
    given |= {k: model[k] for k in ("l2", "constraint") if k in model}
    found = {k: v for k, v in given.items() if k not in ("name", "learning_rate")}
    parts = [trial.optimizer.name, *(k if v is True else f"{k}={v}" for k, v in found.items())]
    return ", ".join(parts)


def _worst(given: Sequence[Cell]) -> Cell:
    """Of several trials in one place, the one that says the most against it."""
    return max(given, key=lambda c: (KINDS.index(c.kind), c.drift))


def _event(trial: Trial) -> str:
    return EVENTS[bool(trial.train.switch_at) + 2 * bool(trial.train.resume_at)]


@dataclass(frozen=True)
class Table:
    """The cells of a strategy."""

    strategy: str
    columns: list[tuple[str, str]]
    """(held values, event)."""
    rows: list[tuple[str, list[Cell | None]]]
    """(setting, a cell for each column)."""


def page(outcomes: Sequence[Outcome], title: str) -> str:
    """The atlas as one HTML file: a table for each strategy, a row for each setting."""
    all_cells = cells(outcomes)
    counts = {k: sum(c.kind == k for c in all_cells) for k in KINDS}
    by_kind = ", ".join(f"{n} {k}" for k, n in counts.items() if n)
    tables = [_table(all_cells, name) for name in dict.fromkeys(c.strategy for c in all_cells)]
    trials = f"{len(all_cells)} trials: {by_kind}."
    return render("leak_atlas.html", title=title, trials=trials, tables=tables)


def _table(all_cells: Sequence[Cell], strategy: str) -> Table:
    own = [c for c in all_cells if c.strategy == strategy]
    columns = list(dict.fromkeys((c.held, c.event) for c in own))
    by_place: dict[tuple[str, str, str], list[Cell]] = {}
    for c in own:
        by_place.setdefault((c.setting, c.held, c.event), []).append(c)
    rows: list[tuple[str, list[Cell | None]]] = []
    for setting in dict.fromkeys(c.setting for c in own):
        places = (by_place.get((setting, *column)) for column in columns)
        rows.append((setting, [_worst(there) if there else None for there in places]))
    return Table(strategy, columns, rows)
