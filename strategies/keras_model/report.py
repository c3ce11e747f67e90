"""The audit of a masked model, as a value that prints as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from masksweep.strategies.core.audit import bits, in_parts, moved_fraction, violations
from masksweep.strategies.core.held_weight import HeldWeight
from masksweep.strategies.core.memory import return_freed_memory
from masksweep.strategies.keras_model.masked_model import MaskedModel, require_masked
from masksweep.strategies.keras_model.sparse_dense import SparseDense, sparse_layers
from masksweep.strategies.keras_model.table import table
from masksweep.strategies.plan import Array, Plan


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


def audit(model: Any) -> Audit:
    """Compares each masked entry of a model with its held value, bit for bit.

    The weights are those that the model computes with, and that `export_plain` writes. As bits,
    -0.0 differs from 0.0, and a NaN is a violation.

    A `SparseDense` has values at its connections only, so no other entry can have one. It passes if
    its structure has the bits of the one that was given. If not, all its values are violations.

    Args:
        model: A masked model, from `apply`, or a Keras model with `SparseDense` layers.

    Returns:
        The findings for each masked weight; `ok` is the verdict.

    Raises:
        Invalid: It is not a masked model, and has no `SparseDense`; or a masked layer got LoRA or
            was quantized.

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
    sparse = sparse_layers(model)
    if not sparse:
        require_masked(model)
    return_freed_memory()  # of the training, before dense kernels are made
    audits = [_audit_layer(name, layer) for name, layer in sparse.items()]
    if isinstance(model, MaskedModel):
        model.holding.require_masked_kernels()
        audits = [*(_audit(h, model.holding.start) for h in model.holding.weights), *audits]
    violated = 0
    if isinstance(model, MaskedModel) and model.moving is not None:
        model.moving.count_violations()
        violated = sum(change.violations > 0 for change in model.mask_changes)
    return Audit(tuple(audits), violated)


def _audit_layer(name: str, layer: SparseDense) -> WeightAudit:
    values, size, start = layer.values.numpy(), math.prod(layer.shape), layer.start
    same = layer.has_given_structure() and values.shape == (layer.kept,)
    # without initial values, which a file may lack, it cannot be told what moved
    moved = 0.0
    if start is not None and start.shape == values.shape and values.size:
        moved = float((bits(start) != bits(values)).mean())
    wrong, drift = (0, 0.0) if same else (len(values), np.inf)
    return WeightAudit(name, size, size - len(values), wrong, drift, moved)


def _audit(held: HeldWeight, start: Mapping[str, Array]) -> WeightAudit:
    if held.kept_only:
        return _audit_kept_values(held, start[held.weight.name])
    masked, name = held.masked(), held.weight.name
    plan, weights = Plan((masked,)), {name: np.asarray(held.effective())}
    count, drift = violations(weights, plan)
    moved = moved_fraction(start, weights, plan) if masked.masked < masked.mask.size else 0.0
    return WeightAudit(name, masked.mask.size, masked.masked, count, drift, moved)


def _audit_kept_values(held: HeldWeight, start: Array) -> WeightAudit:
    """Audits a weight of which only the kept values are stored. No dense array is made.

    Where no value is stored, an entry is +0.0, which is its held value. So a violation is a stored
    value at a masked entry that has any bit.
    """
    size, mask, name = math.prod(held.weight.shape), held.kept, held.weight.name
    used = wrong = moved = 0
    drift = 0.0
    for places, values, before in in_parts(held.places(), held.value.numpy(), start):
        is_used = places >= 0  # a value that is left over is in no place of the weight
        used += int(is_used.sum())
        moved += int((is_used & (bits(before) != bits(values))).sum())
        is_wrong = is_used & (bits(values) != 0)
        is_wrong[is_wrong] = ~mask.at(places[is_wrong])
        wrong += int(is_wrong.sum())
        drifts = np.abs(values[is_wrong].astype(np.float64))
        drift = max(drift, float(np.where(np.isnan(drifts), np.inf, drifts).max(initial=0.0)))
    return WeightAudit(name, size, mask.masked, wrong, drift, moved / used if used else 0.0)
