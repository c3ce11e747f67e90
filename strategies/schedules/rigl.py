"""The `rigl` schedule: drop the smallest weights, grow those with the largest gradients."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi
from typing import ClassVar

import numpy as np

from masksweep.strategies.errors import require
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
from masksweep.strategies.schedules.ranking import keep_largest_of


@register
@dataclass(frozen=True)
class RigL(MaskSchedule):
    """Drops the kept entries nearest to zero, and grows those with the largest gradients.

    After every `frequency` steps, each weight drops a fraction of its kept entries, those with the
    smallest magnitudes. It grows as many entries that are not kept, those where the gradient of the
    effective weight is largest, on the batch of the newest step. An entry that was dropped just now
    can grow again, and goes on from its value. Other grown entries start from the value that they
    were held at, zero as a rule, and with new optimizer slots. The fraction falls from `fraction`
    to zero along a cosine: `fraction / 2 * (1 + cos(pi * step / end))`, with the end after the
    share `end` of the training. The numbers of kept entries by weight stay those of the pattern:
    the paper takes `pattern=random pattern.distribution=erk`.

    At a change it needs the gradient of the dense weights, and so the FLOPs of a dense step.

    Raises:
        Invalid: A setting is outside its range.

    Example:
        >>> mask, weight = np.array([True, True, False, False]), np.array([0.1, -2.0, 0.0, 0.0])
        >>> dropped_and_grown(mask, weight, np.array([0.0, 0.0, 1.0, -3.0]), count=1).tolist()
        [False, True, False, True]

    Reference:
        Evci et al., Rigging the Lottery: Making All Tickets Winners, ICML 2020, arXiv:1911.11134.
    """

    name: ClassVar[str] = "rigl"
    needs_gradients: ClassVar[bool] = True
    frequency: int = 100
    """Number of training steps between two changes (in the paper `delta T`)."""
    fraction: float = 0.3
    """Fraction of the kept entries that is dropped at first (`alpha`)."""
    end: float = 0.75
    """Share of the training after which the masks stay as they are (`T_end`)."""

    def __post_init__(self) -> None:
        check_steps("frequency", self.frequency)
        check_share("fraction", self.fraction)
        check_share("end", self.end)

    def change_steps(self, course: Course) -> tuple[int, ...]:
        steps = every(self.frequency, self.end * course.steps)
        allowed = f"below {self.end * course.steps:g}, the steps in which masks change"
        require(len(steps) > 0, "frequency", self.frequency, allowed)
        return steps

    def dropped_fraction(self, step: int, course: Course) -> float:
        """Returns the fraction of the kept entries that is dropped after a step."""
        return self.fraction / 2 * (1 + cos(pi * step / (self.end * course.steps)))

    def change(self, moment: Moment) -> MaskChange:
        fraction, gradients = self.dropped_fraction(moment.step, moment.course), moment.gradients()
        return MaskChange(
            {
                name: dropped_and_grown(
                    mask, moment.weights[name], gradients[name], int(fraction * mask.sum())
                )
                for name, mask in moment.masks.items()
            }
        )


def dropped_and_grown(mask: Mask, weight: Array, gradient: Array, count: int) -> Mask:
    """Returns the mask without the smallest kept entries, and with the largest gradients.

    Args:
        mask: The mask before.
        weight: The effective weight.
        gradient: The gradient of the loss by the effective weight.
        count: Number of entries to drop and to grow.
    """
    stays = keep_largest_of(np.abs(weight), mask, int(mask.sum()) - count)
    return stays | keep_largest_of(np.abs(gradient), ~stays, count)
