"""The `magnitude` pattern: mask the smallest trained weights, round by round (lottery tickets)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from masksweep.strategies.errors import Invalid, require
from masksweep.strategies.patterns.base import Scored, Shapes
from masksweep.strategies.plan import Array, Mask
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Magnitude(Scored):
    """The smallest weights of each layer after the round before (lottery tickets).

    This is iterative magnitude pruning with rewinding (Frankle and Carbin 2019), as the author of
    MNIST-1D runs it (Greydanus 2020). Round `r` of `rounds` masks the fraction `r / (rounds - 1)`
    of each layer: the weights with the smallest magnitudes after the training of round `r - 1`.
    Then the round starts again from the initial weights. The kernel and the bias of a layer are
    ranked together. Round 0 masks nothing. In the last rounds, all weights of a small layer may be
    masked.

    The earlier rounds are trained with the settings of the trial, except those in `found_with`. For
    example `{"train": {"steps": 1001}}` finds the masks early in training (You et al. 2020), and
    `{"data": {"shuffled": False}}` finds them on other data (Morcos et al. 2019).

    Raises:
        Invalid: `rounds` is below 2, or `round` is not in `0 .. rounds - 2`.

    Example:
        >>> scores = {"a/kernel": np.array([[0.1, -3.0], [2.0, -0.2]])}
        >>> Magnitude(round=2, rounds=5).by_scores(scores)["a/kernel"].tolist()
        [[False, True], [True, False]]

    Reference:
        Frankle and Carbin, The Lottery Ticket Hypothesis, ICLR 2019, arXiv:1803.03635.
        Greydanus, Scaling Down Deep Learning, 2020, arXiv:2011.14439.
        You et al., Drawing Early-Bird Tickets, ICLR 2020, arXiv:1909.11957.
        Morcos et al., One Ticket to Win Them All, NeurIPS 2019, arXiv:1906.02773.
    """

    name: ClassVar[str] = "magnitude"
    round: int = 91
    """This round, counted from 0, at most `rounds - 2`."""
    rounds: int = 100
    """Number of rounds; the last one would mask all weights, so it cannot be chosen."""
    found_with: Mapping[str, Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        require(self.rounds >= 2, "rounds", self.rounds, "2 or more")
        allowed = f"from 0 to {self.rounds - 2}; the last one would mask all"
        if isinstance(self.round, float):
            allowed = f"a whole number {allowed}. Smallest masks a fraction of the weights"
            raise Invalid("round", self.round, allowed)
        require(0 <= self.round < self.rounds - 1, "round", self.round, allowed)

    @property
    def sparsity(self) -> float:
        """Fraction of each layer that this round masks, in [0, 1)."""
        return self.round / (self.rounds - 1)

    @property
    def before(self) -> Magnitude | None:
        return replace(self, round=self.round - 1) if self.round else None

    def by_scores(self, scores: Mapping[str, Array]) -> dict[str, Mask]:
        layers: dict[str, list[str]] = {}
        for name in scores:
            layers.setdefault(name.rsplit("/", 1)[0], []).append(name)
        masks: dict[str, Mask] = {}
        for names in layers.values():
            sizes = np.concatenate([np.abs(scores[n]).ravel() for n in names])
            mask = np.ones(sizes.size, bool)
            # a stable sort keeps the order of equal values, so every machine masks the same
            mask[np.argsort(sizes, kind="stable")[: round(self.sparsity * sizes.size)]] = False
            ends = np.cumsum([scores[n].size for n in names])[:-1]
            parts = zip(names, np.split(mask, ends), strict=True)
            masks |= {n: part.reshape(scores[n].shape) for n, part in parts}
        return {n: masks[n] for n in scores}

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        """Returns masks that have the right number of masked entries in each layer only.

        Which entries are masked depends on the scores, which are not known without a training. So
        this takes equal scores for all entries.
        """
        return self.by_scores({n: np.zeros(s) for n, s in shapes.items()})
