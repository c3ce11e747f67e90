"""The `one_shot` schedule: dense training, then the masks of the pattern."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masksweep.strategies.errors import require
from masksweep.strategies.registry import register
from masksweep.strategies.schedules.base import (
    Course,
    MaskChange,
    MaskSchedule,
    Moment,
    check_steps,
)


@register
@dataclass(frozen=True)
class OneShot(MaskSchedule):
    """Trains the dense weights up to a step, and masks them there, all at once.

    The masks are those of the pattern for the weights at this step. With `pattern=smallest` it is
    `ConstantSparsity` of the TensorFlow Model Optimization Toolkit (tfmot), where masked weights
    are zero from `begin_step` on.

    Raises:
        Invalid: `begin_step` is below 1.

    Example:
        >>> OneShot(begin_step=200).change_steps(Course(steps=1000, epoch=40))
        (200,)
    """

    name: ClassVar[str] = "one_shot"
    keeps_counts: ClassVar[bool] = False
    dense_start: ClassVar[bool] = True
    redraws: ClassVar[bool] = True
    begin_step: int = 100
    """Number of training steps before the weights are masked."""

    def __post_init__(self) -> None:
        check_steps("begin_step", self.begin_step)

    def change_steps(self, course: Course) -> tuple[int, ...]:
        below = f"below {course.steps}, the training steps"
        require(self.begin_step < course.steps, "begin_step", self.begin_step, below)
        return (self.begin_step,)

    def change(self, moment: Moment) -> MaskChange:
        return MaskChange(moment.draw(0))
