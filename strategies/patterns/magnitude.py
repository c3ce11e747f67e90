"""The smallest weights after a training, round by round: lottery tickets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from masksweep.strategies.base import Array, Mask, require
from masksweep.strategies.patterns.base import Scored, Shapes
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Magnitude(Scored):
    """The smallest weights of each layer, kernel and bias as one vector, after the round before.

    Iterative magnitude pruning with rewinding (Frankle and Carbin 2019, "The Lottery Ticket
    Hypothesis"), as the authors of MNIST-1D run it (Greydanus 2020): round `r` of `rounds` masks
    `r / (rounds - 1)` of each layer, those that were smallest when the round before had been
    trained, and starts again from the initial weights. Round 0 masks nothing; a layer of few
    weights may be masked whole in the last rounds.

    The rounds before are trained as the trial is, but for `found_with`, such as
    `{"train": {"steps": 1001}}` for masks that are found early (You et al. 2020), or
    `{"data": {"shuffled": False}}` for masks from other data (Morcos et al. 2019).
    """

    name: ClassVar[str] = "magnitude"
    round: int = 91
    rounds: int = 100
    found_with: Mapping[str, Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        require(self.rounds >= 2, "rounds", self.rounds, "2 or more")
        allowed = f"from 0 to {self.rounds - 2}; the last one would mask all"
        require(0 <= self.round < self.rounds - 1, "round", self.round, allowed)

    @property
    def sparsity(self) -> float:
        """Of each layer in this round."""
        return self.round / (self.rounds - 1)

    @property
    def before(self) -> Magnitude | None:
        return replace(self, round=self.round - 1) if self.round else None

    def by_scores(self, scores: Mapping[str, Array]) -> dict[str, Mask]:
        layers: dict[str, list[str]] = {}
        for name in scores:
            layers.setdefault(name.rsplit("/", 1)[0], []).append(name)
        made: dict[str, Mask] = {}
        for names in layers.values():
            sizes = np.concatenate([np.abs(scores[n]).ravel() for n in names])
            mask = np.ones(sizes.size, bool)
            # equal ones in their own order, so that every machine drops the same
            mask[np.argsort(sizes, kind="stable")[: round(self.sparsity * sizes.size)]] = False
            ends = np.cumsum([scores[n].size for n in names])[:-1]
            parts = zip(names, np.split(mask, ends), strict=True)
            made |= {n: part.reshape(scores[n].shape) for n, part in parts}
        return {n: made[n] for n in scores}

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        """Of these shapes, for scores that are all equal: what can be known without a training."""
        return self.by_scores({n: np.zeros(s) for n, s in shapes.items()})
