"""The leak atlas: for each trial of a sweep whether its weights were held, and if not, why not."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from masksweep.sweeps import results
from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.config.trial import Trial, label
from masksweep.sweeps.config.validation import knobs
from masksweep.sweeps.report import verdicts

EVENTS = ("none", "mask changed", "resumed", "changed, resumed")
KINDS = ("exact", "refused", "unproven", "leaks", "failed")
HELD = "integrity/violations"
"""A metric of every trial that holds something."""
STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0 2.5em; }
th, td { border: 1px solid #bbb; padding: .25em .5em; text-align: left; vertical-align: top; }
th { background: #eee; }
td.exact { background: #d6ecfa; }
td.leaks { background: #ffd9a8; }
td.refused { color: #666; }
td.unproven { background: #eee; }
td.failed { background: #000; color: #fff; }
"""


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


def page(outcomes: Sequence[Outcome], title: str) -> str:
    """The atlas as one HTML file: a table for each strategy, a row for each setting."""
    found = cells(outcomes)
    counts = {k: sum(c.kind == k for c in found) for k in KINDS}
    told = ", ".join(f"{n} {k}" for k, n in counts.items() if n)
    parts = [
        f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title>",
        f"<style>{STYLE}</style><h1>Which ways hold, and through what the others leak</h1>",
        f"<p>{len(found)} trials: {told}.</p>",
        "<p>A cell says <b>exact</b> (bit for bit at every step, and after the end), or by how much"
        " a held weight moved at most, from which step on, and through which stage of that step it"
        " moved first: <b>gradient</b> (one reached the optimizer), <b>decay</b>, <b>slots</b>"
        " (what earlier gradients left in the optimizer), <b>update</b> (the optimizer's rule"
        " itself),"
        " <b>EMA</b>, <b>constraint</b>, <b>form</b> (how the weight is written down), <b>graph</b>"
        " (the compiled step alone: the same one, taken eagerly, holds).</p>",
    ]
    for strategy in dict.fromkeys(c.strategy for c in found):
        parts.append(f"<h2>{html.escape(strategy)}</h2>{_table(found, strategy)}")
    return "\n".join(parts)


def _table(found: Sequence[Cell], strategy: str) -> str:
    mine = [c for c in found if c.strategy == strategy]
    columns = list(dict.fromkeys((c.held, c.event) for c in mine))
    by_place: dict[tuple[str, str, str], list[Cell]] = {}
    for c in mine:
        by_place.setdefault((c.setting, c.held, c.event), []).append(c)
    head = "".join(f"<th>{html.escape(held)}<br>{event}</th>" for held, event in columns)
    rows = [f"<table><tr><th>optimizer</th>{head}</tr>"]
    for setting in dict.fromkeys(c.setting for c in mine):
        row = f"<tr><th>{html.escape(setting)}</th>"
        for held, event in columns:
            there = by_place.get((setting, held, event))
            cell = _worst(there) if there else None
            kind, text = (cell.kind, cell.text) if cell else ("", "")
            row += f"<td class={kind or 'none'}>{html.escape(text)}</td>"
        rows.append(f"{row}</tr>")
    return "\n".join([*rows, "</table>"])
