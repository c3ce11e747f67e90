"""The `gradual` schedule: the sparsity grows along a polynomial."""

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
    check_steps,
)
from masksweep.strategies.schedules.ranking import keep_largest_of


@register
@dataclass(frozen=True)
class Gradual(MaskSchedule):
    """Masks the smallest weights step by step, up to the sparsity of the pattern.

    The training starts dense. After `begin_step` steps, and after every `frequency` steps from then
    on up to `end_step`, the sparsity of each weight is

        final + (initial - final) * (1 - p) ** power,

    with `p = (step - begin_step) / (end_step - begin_step)`. The kept entries with the smallest
    magnitudes are masked, and what was masked stays masked. The final sparsity of each weight is
    that of the pattern's masks: so `pattern=random` prunes by magnitude here too, and only tells
    how many entries of each weight are kept.

    It is `PolynomialDecay` of the TensorFlow Model Optimization Toolkit (tfmot), with the same
    names and defaults. The steps are counted from 1, and a change after step `s` is one at `s`
    there.

    Raises:
        Invalid: A setting is outside its range.

    Example:
        >>> schedule = Gradual(begin_step=0, end_step=1000)
        >>> [round(schedule.sparsity(0.8, step, end=1000), 4) for step in (0, 100, 500, 1000)]
        [0.0, 0.2168, 0.7, 0.8]

    Reference:
        Zhu and Gupta, To prune, or not to prune, 2017, arXiv:1710.01878.
    """

    name: ClassVar[str] = "gradual"
    keeps_counts: ClassVar[bool] = False
    dense_start: ClassVar[bool] = True
    initial_sparsity: float = 0.0
    """Sparsity at `begin_step`, in [0, 1). A weight whose final sparsity is lower has that."""
    begin_step: int = 0
    """Number of training steps after which masking begins; with 0, the first change comes after
    `frequency` steps."""
    end_step: int | None = None
    """Number of training steps after which the final sparsity is reached; null means three quarters
    of the training."""
    frequency: int = 100
    """Number of training steps between two changes."""
    power: float = 3.0
    """Exponent of the polynomial."""

    def __post_init__(self) -> None:
        allowed = "a number in [0, 1)"
        require(0 <= self.initial_sparsity < 1, "initial_sparsity", self.initial_sparsity, allowed)
        require(self.begin_step >= 0, "begin_step", self.begin_step, "0 or more")
        if self.end_step is not None:
            above = f"above {self.begin_step}, the begin_step"
            require(self.end_step > self.begin_step, "end_step", self.end_step, above)
        check_steps("frequency", self.frequency)
        require(0 < self.power < np.inf, "power", self.power, "above 0")

    def last_step(self, course: Course) -> int:
        """Returns the number of steps after which the final sparsity is reached."""
        return self.end_step if self.end_step is not None else course.steps * 3 // 4

    def change_steps(self, course: Course) -> tuple[int, ...]:
        end = self.last_step(course)
        below = f"below {course.steps}, the training steps"
        require(end < course.steps, "end_step", end, below)
        require(self.begin_step < end, "begin_step", self.begin_step, f"below {end}, the end_step")
        # the last change is at the end, also if that is no multiple of the frequency
        steps = {*range(self.begin_step, end, self.frequency), end} - {0}
        return tuple(sorted(steps))

    def sparsity(self, final: float, step: int, end: int) -> float:
        """Returns the sparsity of a weight after a step.

        Args:
            final: Its final sparsity, in [0, 1).
            step: Number of training steps.
            end: The number of training steps at which the final sparsity is reached.
        """
        progress = min(1.0, max(0.0, (step - self.begin_step) / (end - self.begin_step)))
        initial = min(self.initial_sparsity, final)
        return final + (initial - final) * float((1 - progress) ** self.power)

    def kept(self, target: int, size: int, step: int, course: Course) -> int:
        end, first = self.last_step(course), self.change_steps(course)[0]
        if step < first:
            return size
        if step >= end:
            return target
        masked = round(self.sparsity(1 - target / size, step, end) * size) if size else 0
        return max(target, size - masked)

    def change(self, moment: Moment) -> MaskChange:
        masks = {}
        for name, mask in moment.masks.items():
            target = int(moment.targets[name].sum())
            kept = self.kept(target, mask.size, moment.step, moment.course)
            masks[name] = keep_largest_of(np.abs(moment.weights[name]), mask, kept)
        return MaskChange(masks)
