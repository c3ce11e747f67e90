"""The audit and the summary of a masked model, as values that print as tables."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from rich.console import Console
from rich.table import Table

from masksweep.strategies.base import Invalid, Plan
from masksweep.strategies.core.audit import moved_fraction, one_if_equal, violations
from masksweep.strategies.keras_model.masked_model import MaskedModel


@dataclass(frozen=True)
class WeightAudit:
    """What the audit found in one masked weight."""

    name: str
    size: int
    """Number of entries."""
    masked: int
    """Number of masked entries."""
    violations: int
    """Number of masked entries that differ in any bit from their held value."""
    drift: float
    """Largest distance of a masked entry from its held value."""
    moved: float
    """Fraction of the kept entries that changed since `apply`, in [0, 1]."""


@dataclass(frozen=True)
class Audit:
    """The result of `audit`. It prints as a table."""

    weights: tuple[WeightAudit, ...]

    @property
    def ok(self) -> bool:
        """Whether every masked entry has its held value, and a kept entry changed.

        Where nothing changed, a mask that holds proves nothing: train first. This is not asked of
        weights that have no kept entry.
        """
        moved = [w.moved for w in self.weights if w.masked < w.size]
        return not any(w.violations for w in self.weights) and (any(moved) or not moved)

    def __str__(self) -> str:
        rows = [
            [w.name, f"{w.masked:,}", f"{w.violations:,}", f"{w.drift:.3g}", f"{w.moved:.1%}"]
            for w in self.weights
        ]
        verdict = "ok" if self.ok else "not ok"
        if not self.ok and not any(w.violations for w in self.weights):
            verdict = "not ok: no kept entry has changed, so it proves nothing; train first"
        return f"{_table(['weight', 'masked', 'violated', 'drift', 'moved'], rows)}\n{verdict}"


def audit(masked: MaskedModel) -> Audit:
    """Compares each masked entry of a masked model with its held value, bit for bit.

    The weights are those that the model computes with, and that `export_plain` writes. As bits,
    -0.0 differs from 0.0, and a NaN is a violation.

    Args:
        masked: A masked model, from `apply`.

    Returns:
        The findings for each masked weight; `ok` is the verdict.

    Raises:
        Invalid: It is not a masked model.

    Example:
        >>> import keras
        >>> from masksweep import strategies
        >>> layers = [keras.Input((4,)), keras.layers.Dense(8, name="hidden"),
        ...           keras.layers.Dense(1, name="output")]
        >>> masked = strategies.apply(keras.Sequential(layers), strategies.Random(0.5))
        >>> print(strategies.audit(masked))
        weight         masked  violated  drift  moved
        hidden/kernel      16         0      0   0.0%
        not ok: no kept entry has changed, so it proves nothing; train first
    """
    _require_masked(masked)
    weights, start, found = masked.dense_weights(), masked.holding.start, []
    for w in masked.plan.weights:
        alone, name = Plan((w,)), w.weight.name
        count, drift = violations(weights, alone)
        moved = moved_fraction({name: start[name]}, weights, alone) if w.mask.any() else 0.0
        found.append(WeightAudit(name, w.mask.size, int((~w.mask).sum()), count, drift, moved))
    return Audit(tuple(found))


@dataclass(frozen=True)
class WeightSummary:
    """How one weight of a masked model is held."""

    name: str
    shape: tuple[int, ...]
    density: float
    """Fraction of the entries that train, in [0, 1]."""
    held: str
    """The value of its masked entries, or `values` if they differ. Empty if it is not masked."""
    strategy: str
    """Name of the strategy. Empty if it is not masked."""


@dataclass(frozen=True)
class Summary:
    """The result of `summary`. It prints as a table."""

    weights: tuple[WeightSummary, ...]

    @property
    def density(self) -> float:
        """Fraction of all entries of the model's weights that train, in [0, 1]."""
        sizes = [prod(w.shape) for w in self.weights]
        kept = sum(s * w.density for s, w in zip(sizes, self.weights, strict=True))
        return kept / sum(sizes)

    def __str__(self) -> str:
        rows = [
            [w.name, " x ".join(map(str, w.shape)), f"{w.density:.4g}", w.held, w.strategy]
            for w in self.weights
        ]
        rows.append(["all", f"{sum(prod(w.shape) for w in self.weights):,}",
                     f"{self.density:.4g}", "", ""])  # fmt: skip
        return _table(["weight", "shape", "density", "held", "strategy"], rows)


def summary(masked: MaskedModel) -> Summary:
    """Describes the weights of a masked model: what is masked, at which value, and how.

    Args:
        masked: A masked model, from `apply`.

    Returns:
        One entry for each weight that trains, or would if its layer were not frozen, in the model's
        order. It prints as a table.

    Raises:
        Invalid: It is not a masked model.

    Example:
        >>> import keras
        >>> from masksweep import strategies
        >>> layers = [keras.Input((4,)), keras.layers.Dense(8, name="hidden"),
        ...           keras.layers.Dense(1, use_bias=False, name="output")]
        >>> masked = strategies.apply(keras.Sequential(layers), strategies.Random(0.75))
        >>> print(strategies.summary(masked))
        weight         shape  density  held  strategy
        hidden/kernel  4 x 8     0.25     0  hard_mask
        hidden/bias        8        1
        output/kernel  8 x 1        1
        all               48      0.5
    """
    _require_masked(masked)
    plan, strategies = masked.plan, masked.holding.strategies
    entries = []
    for name, values in masked.dense_weights().items():
        w = plan.find(name)
        if w is None:
            entries.append(WeightSummary(name, values.shape, 1.0, "", ""))
            continue
        held = one_if_equal(w.held[~w.mask])
        text = "values" if held.size > 1 else f"{float(held):.4g}" if held.size else ""
        density = float(w.mask.mean()) if w.mask.size else 1.0
        entries.append(WeightSummary(name, values.shape, density, text, strategies[name].name))
    return Summary(tuple(entries))


def _require_masked(model: object) -> None:
    if not isinstance(model, MaskedModel):
        raise Invalid("model", type(model).__name__, "must be a masked model, made by apply")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a plain table; names are aligned to the left, other columns to the right."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for i, title in enumerate(header):
        left = i == 0 or title == "strategy"
        table.add_column(title, justify="left" if left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console(file=io.StringIO(), width=10_000, color_system=None)
    console.print(table)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in lines)
