"""The table of a model before it is trained: its weights, how they are masked, and refusals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from masksweep.strategies.core.weight_summary import WeightSummary, whole
from masksweep.strategies.patterns import Scored
from masksweep.strategies.plan import variable_of
from masksweep.sweeps.common.tables import Column, terminal
from masksweep.sweeps.common.text import pluralize
from masksweep.sweeps.config.display import label
from masksweep.sweeps.config.plan import PlannedTrial
from masksweep.sweeps.training.model_summary import ModelSummary

GAP = 2
"""Number of spaces between two columns."""
SHOWN_KERNELS = 2
"""Number of kernels of which is shown how much their masks cut off."""
DENSE = "dense"
"""The cell of a weight that is not masked."""


@dataclass(frozen=True)
class Masks:
    """The trials that mask a model in the same way, up to the seed."""

    label: str
    """The pattern with its held values, as `random 0.9, held init`; `-` if nothing is masked."""
    trials: Sequence[PlannedTrial]
    summary: ModelSummary
    """The model with the masks of the first trial."""

    @property
    def is_dense(self) -> bool:
        """Whether nothing is masked."""
        return self.trials[0].trial.strategy.role == "dense"

    @property
    def is_found_later(self) -> bool:
        """Whether the masks need a training, or the model's gradients."""
        pattern = self.trials[0].trial.pattern
        return not self.is_dense and (isinstance(pattern, Scored) or pattern.needs_model)

    @property
    def pattern(self) -> str:
        """The label without the held values."""
        return self.label.replace(f", held {label(self.trials[0].trial.held)}", "")

    @property
    def held(self) -> str:
        """The held values, as `constant 0.5`; `-` if nothing is masked."""
        held = self.trials[0].trial.held
        value = getattr(held, "value", None)
        text = label(held) if value is None else f"{held.name} {value:g}"
        return "-" if self.is_dense else text


def print_model(model: Sequence[Masks], console: Console) -> None:
    """Prints a model: the densities of its weights, and what holds or refuses each of its masks.

    Args:
        model: The ways in which the model is masked.
        console: Where to print.
    """
    trial, summary = model[0].trials[0].trial, model[0].summary
    total = whole("", summary.weights)
    console.print(f"{_described(trial.model)} on {_described(trial.data)}", style="bold")
    console.print(summary.samples)
    flops = f", {total.flops:,} FLOPs for each sample" if total.flops else ""
    frozen = sum(w.size for w in summary.weights if w.name in summary.frozen)
    weights = f"{total.size:,} weights" + (f" ({frozen:,} frozen)" if frozen else "")
    console.print(f"{pluralize(len(summary.weights), 'variable')}, {weights}{flops}")
    if summary.unknown:
        console.print(f"FLOPs are unknown: {summary.unknown}")
    console.print()
    _print_weights(model, console)
    _print_strategies(model, console)
    for masks in model:
        if cut_off := next((p.cut_off for p in masks.trials if p.cut_off), ""):
            kernels = cut_off.split("; ")
            more = len(kernels) - SHOWN_KERNELS
            rest = f"; and {pluralize(more, 'more kernel')}" if more > 0 else ""
            text = f"{'; '.join(kernels[:SHOWN_KERNELS])}{rest}"
            console.print(f"{masks.label} cuts off: {text}", style="dim")
        for chosen in dict.fromkeys(
            f"{p.trial.label}, {p.chosen}" for p in masks.trials if p.chosen
        ):
            console.print(f"{masks.label}: {chosen}", style="dim")
    for name in dict.fromkeys(m.trials[0].trial.pattern.name for m in model if m.is_found_later):
        text = "chooses while it trains; only the numbers in each layer are known before"
        console.print(f"{name} {text}", style="dim")


def _described(component: Any) -> str:
    """Returns the name of a model or data set with its settings, or with its file."""
    path = getattr(component, "path", None)
    return f"{label(component)} {path}" if path else label(component)


def _print_weights(model: Sequence[Masks], console: Console) -> None:
    """Prints the weights with a column for each of the masks; more tables if one is too wide."""
    head, base_rows = ["weight", "shape", "weights", "FLOPs"], _base_rows(model)
    if model[0].summary.frozen:
        head.append("trained")
        base_rows = [[*row, cell] for row, cell in zip(base_rows, _trained(model), strict=False)]
    base = [Column(title, right=i > 0, wrap=i == 0) for i, title in enumerate(head)]
    masked = [masks for masks in model if not masks.is_dense]
    columns = [Column(masks.label.replace(", ", "\n"), right=True) for masks in masked]
    cells = [_cells(masks, model) for masks in masked]
    widths = [_width(c, texts) + GAP for c, texts in zip(columns, cells, strict=True)]
    while True:
        used = sum(_width(c, [r[i] for r in base_rows]) + GAP for i, c in enumerate(base))
        count = 1
        while count < len(columns) and used + sum(widths[: count + 1]) - GAP <= console.width:
            count += 1
        rows: list[list[str | Text]] = [
            [*row, *(_styled(texts[number]) for texts in cells[:count])]
            for number, row in enumerate(base_rows)
        ]
        console.print(terminal([*base, *columns[:count]], rows, gap=GAP))
        console.print()
        columns, cells, widths = columns[count:], cells[count:], widths[count:]
        if not columns:
            return
        base, base_rows = base[:1], [row[:1] for row in base_rows]


def _base_rows(model: Sequence[Masks]) -> list[list[str]]:
    """Returns the first cells of each row, which are the same for all masks."""
    own, others = _split(model[0], model)
    rows = [[w.name, " x ".join(map(str, w.shape)), f"{w.size:,}", _count(w.flops)] for w in own]
    if others:
        kinds = ", ".join(sorted({variable_of(w.name) for w in others}))
        rest = whole("", others)
        rows.append([f"{len(others)} others ({kinds})", "", f"{rest.size:,}", _count(rest.flops)])
    total = whole("", model[0].summary.weights)
    rows.append(["all", "", f"{total.size:,}", _count(total.flops)])
    extra = [] if all(masks.is_dense for masks in model) else ["not masked", "FLOPs as masked"]
    return rows + [[name, "", "", ""] for name in extra]


def _trained(model: Sequence[Masks]) -> list[str]:
    """Returns the cells that tell which weights are frozen, in the order of `_base_rows`."""
    own, others = _split(model[0], model)
    frozen = model[0].summary.frozen
    rows = [[w] for w in own] + [others] * bool(others)
    counts = [(sum(w.name in frozen for w in row), len(row)) for row in rows]
    cells = ["yes" if not n else "frozen" if n == of else f"{n} frozen" for n, of in counts]
    return [*cells, "", "", ""]


def _cells(masks: Masks, model: Sequence[Masks]) -> list[str]:
    """Returns the cells of the column of these masks, in the order of `_base_rows`."""
    own, others = _split(masks, model)
    total = whole("", masks.summary.weights)
    parts = [f"{w.density:.3g}" if w.strategy else DENSE for w in own] + [DENSE] * bool(others)
    kept = f"{total.size - total.masked:,}"
    return [*parts, f"{total.density:.3g}", kept, _count(total.masked_flops)]


def _split(masks: Masks, model: Sequence[Masks]) -> tuple[list[WeightSummary], list[WeightSummary]]:
    """Splits the weights into those that have a row of their own, and the others.

    Biases and vectors, such as those of a normalization, have none unless something masks them.
    """
    masked = {w.name for m in model for w in m.summary.weights if w.strategy}
    own, others = list[WeightSummary](), list[WeightSummary]()
    for w in masks.summary.weights:
        is_small = len(w.shape) < 2 or variable_of(w.name).endswith("bias")
        (others if is_small and w.name not in masked else own).append(w)
    return (own, others) if len(others) > 1 else (list(masks.summary.weights), [])


def _print_strategies(model: Sequence[Masks], console: Console) -> None:
    """Prints which strategies take the masks, and which refuse them.

    Masks of which the same is true share a row.
    """
    rows: dict[str, list[Masks]] = {}
    for masks in model:
        rows.setdefault(_strategies(masks).markup, []).append(masks)
    columns = [Column("masks"), Column("held"), Column("trials", right=True)]
    table = terminal(
        [*columns, Column("strategies", wrap=True)],
        [
            [
                "\n".join(masks.pattern for masks in same),
                "\n".join(masks.held for masks in same),
                str(sum(len(masks.trials) for masks in same)),
                _strategies(same[0]),
            ]
            for same in rows.values()
        ],
        gap=GAP,
    )
    for column in table.columns:
        column.vertical = "top"
    console.print(table)


def _strategies(masks: Masks) -> Text:
    """Returns the names of the strategies that take the masks, then the refusals of the others."""
    taken = dict.fromkeys(p.trial.label for p in masks.trials if not p.refusal)
    refusals: dict[str, dict[str, None]] = {}
    for p in masks.trials:
        if p.refusal:
            refusals.setdefault(p.refusal, {})[p.trial.label] = None
    lines = [Text(", ".join(taken))] if taken else []
    for reason, names in refusals.items():
        lines.append(Text(f"refused by {', '.join(names)}: {reason}", style="yellow"))
    return Text("\n").join(lines)


def _styled(cell: str) -> Text:
    return Text(cell, style="dim" if cell == DENSE else "")


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def _width(column: Column, cells: Sequence[str]) -> int:
    return max(map(len, [*column.header.split("\n"), *cells]))
