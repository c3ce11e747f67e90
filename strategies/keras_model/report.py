"""The audit of a masked model, as a value that prints as a table."""

from __future__ import annotations

from dataclasses import dataclass

from masksweep.strategies.base import Plan
from masksweep.strategies.core.audit import moved_fraction, violations
from masksweep.strategies.keras_model.masked_model import MaskedModel, require_masked
from masksweep.strategies.keras_model.table import table


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
    violated_changes: int = 0
    """After how many changes of the masks a masked entry moved; 0 without a schedule. Entries are
    compared before each change and at this audit."""

    @property
    def ok(self) -> bool:
        """Whether every masked entry has its held value, and a kept entry changed.

        If the masks move, this is asked of the masks before each change too.

        Where nothing changed, a mask that holds proves nothing: train first. This is not asked of
        weights that have no kept entry.
        """
        moved = [w.moved for w in self.weights if w.masked < w.size]
        held = not self.violated_changes and not any(w.violations for w in self.weights)
        return held and (any(moved) or not moved)

    def __str__(self) -> str:
        rows = [
            [w.name, f"{w.masked:,}", f"{w.violations:,}", f"{w.drift:.3g}", f"{w.moved:.1%}"]
            for w in self.weights
        ]
        verdict = "ok" if self.ok else "not ok"
        if self.violated_changes:
            verdict = f"not ok: entries moved after {self.violated_changes} changes of the masks"
        elif not self.ok and not any(w.violations for w in self.weights):
            verdict = "not ok: no kept entry has changed, so it proves nothing; train first"
        return f"{table(['weight', 'masked', 'violated', 'drift', 'moved'], rows)}\n{verdict}"


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
    require_masked(masked)
    weights, start, found = masked.dense_weights(), masked.holding.start, []
    for w in masked.plan.weights:
        alone, name = Plan((w,)), w.weight.name
        count, drift = violations(weights, alone)
        moved = moved_fraction({name: start[name]}, weights, alone) if w.mask.any() else 0.0
        found.append(WeightAudit(name, w.mask.size, int((~w.mask).sum()), count, drift, moved))
    if masked.moving is not None:
        masked.moving.count_violations()
    return Audit(tuple(found), sum(record.violations > 0 for record in masked.mask_changes))
