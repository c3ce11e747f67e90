"""Masks by rank: keep the entries with the largest scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from masksweep.strategies.errors import require
from masksweep.strategies.plan import Array, Mask

Scope = Literal["weight", "global"]
"""Whether the entries of each weight are ranked, or those of all weights together."""


def check_scope(scope: str) -> None:
    """Raises `Invalid` unless the scope is `weight` or `global`."""
    require(scope in ("weight", "global"), "scope", scope, "weight or global")


def keep_largest(scores: Mapping[str, Array], sparsity: float, scope: Scope) -> dict[str, Mask]:
    """Returns masks that keep the entries with the largest scores.

    Exactly `round(sparsity * size)` entries are masked: of each weight, or of all together. Of
    equal scores, the first is masked first.

    Args:
        scores: Scores by weight name, in the shapes of the weights.
        sparsity: Fraction of the entries that is masked, in [0, 1).
        scope: Which entries are ranked together.

    Returns:
        Boolean masks by name (True = kept), in the order and with the shapes of `scores`.

    Example:
        >>> masks = keep_largest({"a": np.array([3, 1]), "b": np.array([2, 4])}, 0.5, "global")
        >>> {name: mask.tolist() for name, mask in masks.items()}
        {'a': [True, False], 'b': [False, True]}
    """
    if scope == "weight":
        return {name: _largest(array, sparsity) for name, array in scores.items()}
    kept = _largest(np.concatenate([a.ravel() for a in scores.values()]), sparsity)
    ends = np.cumsum([a.size for a in scores.values()])[:-1]
    parts = zip(scores.items(), np.split(kept, ends), strict=True)
    return {name: part.reshape(array.shape) for (name, array), part in parts}


def _largest(scores: Array, sparsity: float) -> Mask:
    mask = np.ones(scores.size, bool)
    # a stable sort keeps the order of equal values, so every machine masks the same
    order = np.argsort(scores, axis=None, kind="stable")
    mask[order[: round(sparsity * scores.size)]] = False
    return mask.reshape(scores.shape)
