"""The `set` schedule: drop the weights nearest to zero, and grow others at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.core.weight_name import stable
from masksweep.strategies.errors import require
from masksweep.strategies.patterns.drawing import normal
from masksweep.strategies.plan import Array, Mask
from masksweep.strategies.registry import register
from masksweep.strategies.schedules.base import (
    Course,
    MaskChange,
    MaskSchedule,
    Moment,
    check_share,
    check_steps,
    every,
)
from masksweep.strategies.schedules.ranking import keep_largest_of, random_of


@register
@dataclass(frozen=True)
class SET(MaskSchedule):
    """Drops the kept entries nearest to zero, and grows as many at random (SET).

    After every `frequency` steps, each weight drops the fraction `zeta` of its positive kept
    entries and of its negative ones, those nearest to zero. Kept entries that are exactly zero are
    dropped too. It grows as many entries that were masked, chosen at random. They start from the
    value that they were held at, zero as a rule, or from a normal distribution, and with new
    optimizer slots. The numbers of kept entries by weight stay those of the pattern: the paper
    takes `pattern=random pattern.distribution=er`.

    Raises:
        Invalid: A setting is outside its range.

    Example:
        >>> SET().change_steps(Course(steps=1000, epoch=400))
        (400, 800)

    Reference:
        Mocanu et al., Scalable Training of Artificial Neural Networks with Adaptive Sparse
        Connectivity Inspired by Network Science, 2018, arXiv:1707.04780.
    """

    name: ClassVar[str] = "set"
    zeta: float = 0.3
    """Fraction of the kept entries that is dropped and grown at each change."""
    frequency: int | None = None
    """Number of training steps between two changes; null means an epoch."""
    deviation: float = 0.0
    """Standard deviation of the normal distribution from which grown entries start; 0 lets them
    start from the value that they were held at."""

    def __post_init__(self) -> None:
        check_share("zeta", self.zeta)
        if self.frequency is not None:
            check_steps("frequency", self.frequency)
        require(0 <= self.deviation < np.inf, "deviation", self.deviation, "0 or above")

    def change_steps(self, course: Course) -> tuple[int, ...]:
        return every(self.frequency or course.epoch, course.steps)

    def change(self, moment: Moment) -> MaskChange:
        masks, weights = {}, {}
        for name, mask in moment.masks.items():
            weight = moment.weights[name]
            stays = _without_nearest_to_zero(mask, weight, self.zeta)
            # an entry that was dropped now cannot grow at once
            count = min(int(mask.sum() - stays.sum()), int((~mask).sum()))
            grown = random_of(~mask, count, moment.seed, name)
            short = int(mask.sum() - stays.sum()) - count  # a weight that is nearly full
            stays |= keep_largest_of(np.abs(weight), mask & ~stays, short)
            masks[name] = stays | grown
            if self.deviation:
                weights[name] = _normal(weight, grown, self.deviation, moment.seed, name)
        return MaskChange(masks, weights or None)


def _without_nearest_to_zero(mask: Mask, weight: Array, zeta: float) -> Mask:
    """Returns the kept entries without the fraction `zeta` of each sign that is nearest to zero."""
    stays = np.zeros_like(mask)
    for of_sign in (mask & (weight > 0), mask & (weight < 0)):
        count = int(of_sign.sum())
        stays |= keep_largest_of(np.abs(weight), of_sign, count - int(zeta * count))
    return stays


def _normal(weight: Array, grown: Mask, deviation: float, seed: int, name: str) -> Array:
    """Returns the weight with values from a normal distribution at the grown entries."""
    started = weight.copy()
    started[grown] = normal(int(grown.sum()), seed, f"values/{stable(name)}", deviation)
    return started
