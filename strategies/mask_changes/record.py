"""What is recorded of each change of the masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from masksweep.strategies.plan import Plan
from masksweep.strategies.schedules.base import Masks


@dataclass
class WeightChange:
    """What a change of the masks did to one weight."""

    size: int
    """Number of entries of the weight."""
    kept: int
    """Number of entries that are kept from now on."""
    cut: int
    """Number of entries that were kept before, and are masked now."""
    grown: int
    """Number of entries that were masked before, and are kept now."""
    zeros: int
    """Number of masked entries that are held at zero."""
    overlap: float
    """Jaccard index of the kept entries before and after: how many were kept both times, relative
    to those that were kept at least once; 1.0 if none was."""


@dataclass
class ChangeRecord:
    """One change of the masks. The start of the training is recorded too, as step 0."""

    step: int
    """Training steps that were done before."""
    weights: dict[str, WeightChange]
    """By weight name."""
    dense_gradients: bool = False
    """Whether the schedule asked for the gradients of the dense weights."""
    stale_slots: dict[str, float] = field(default_factory=dict)
    """By the kind of an optimizer's slot, such as `momentum`: the largest distance from its initial
    value at an entry that was cut. Kinds without any distance are left out. Such a slot moves the
    entry at the next steps, unless the strategy holds it."""
    violations: int = 0
    """Most masked entries that differed from their held values, bit for bit, at one of the audits
    up to the next change."""
    measures: dict[str, float] = field(default_factory=dict)
    """What `MaskChanges.measure` computed from the masks that are in force from now on."""

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> ChangeRecord:
        """Returns the record that is given as plain values (`dataclasses.asdict`)."""
        weights = {name: WeightChange(**values) for name, values in plain["weights"].items()}
        return cls(**{**plain, "weights": weights})

    @property
    def density(self) -> float:
        """Fraction of the entries of all weights that is kept, in [0, 1]."""
        size = sum(w.size for w in self.weights.values())
        return sum(w.kept for w in self.weights.values()) / size if size else 1.0


def changes_between(before: Masks, after: Masks, plan: Plan) -> dict[str, WeightChange]:
    """Returns what a change of the masks did, by weight name.

    Args:
        before: The masks before, by weight name.
        after: The masks from now on.
        plan: The plan from now on.
    """
    changes = {}
    for masked_weight in plan.weights:
        name = masked_weight.weight.name
        old, new = before[name], after[name]
        both, kept = int((old & new).sum()), int(new.sum())
        once = int(old.sum()) + kept - both
        cut, grown = int(old.sum()) - both, kept - both
        overlap = both / once if once else 1.0
        changes[name] = WeightChange(new.size, kept, cut, grown, masked_weight.zeros, overlap)
    return changes
