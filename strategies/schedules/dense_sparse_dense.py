"""The `dense_sparse_dense` schedule: train dense, then with masks, then dense again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.errors import require
from masksweep.strategies.registry import register
from masksweep.strategies.schedules.base import (
    Course,
    MaskChange,
    MaskSchedule,
    Moment,
    check_share,
)
from masksweep.strategies.schedules.ranking import keep_largest_of


@register
@dataclass(frozen=True)
class DenseSparseDense(MaskSchedule):
    """Trains dense, then with the smallest weights masked, then dense again (DSD).

    The masks keep the largest entries of each weight, as many as the pattern. In the last part all
    entries train, and start from the value that they were held at, zero as a rule.

    Raises:
        Invalid: The shares are not above 0, below 1, and in order.

    Example:
        >>> DenseSparseDense().change_steps(Course(steps=900, epoch=40))
        (300, 600)

    Reference:
        Han et al., DSD: Dense-Sparse-Dense Training for Deep Neural Networks, ICLR 2017,
        arXiv:1607.04381.
    """

    name: ClassVar[str] = "dense_sparse_dense"
    keeps_counts: ClassVar[bool] = False
    dense_start: ClassVar[bool] = True
    begin: float = 1 / 3
    """Share of the training after which weights are masked."""
    end: float = 2 / 3
    """Share of the training after which all weights train again."""

    def __post_init__(self) -> None:
        check_share("begin", self.begin)
        check_share("end", self.end)
        require(self.begin < self.end < 1, "end", self.end, f"above {self.begin:g} and below 1")

    def change_steps(self, course: Course) -> tuple[int, ...]:
        steps = int(self.begin * course.steps), int(self.end * course.steps)
        fits = 0 < steps[0] < steps[1]
        require(fits, "begin", self.begin, f"a share of {course.steps} steps, before the end")
        return steps

    def kept(self, target: int, size: int, step: int, course: Course) -> int:
        begin, end = self.change_steps(course)
        return target if begin <= step < end else size

    def change(self, moment: Moment) -> MaskChange:
        if moment.step == self.change_steps(moment.course)[1]:
            return MaskChange({name: np.ones_like(mask) for name, mask in moment.masks.items()})
        return MaskChange(
            {
                name: keep_largest_of(
                    np.abs(moment.weights[name]), mask, int(moment.targets[name].sum())
                )
                for name, mask in moment.masks.items()
            }
        )
