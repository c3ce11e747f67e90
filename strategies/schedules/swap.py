"""The `swap` schedule: new masks of the pattern at given steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masksweep.strategies.base import Strategy
from masksweep.strategies.plan import Plan
from masksweep.strategies.registry import register
from masksweep.strategies.schedules.base import (
    Course,
    MaskChange,
    MaskSchedule,
    Moment,
    steps_in_order,
    steps_within,
)


@register
@dataclass(frozen=True)
class Swap(MaskSchedule):
    """Draws new masks of the pattern after given numbers of steps, and keeps the slots.

    It is the hardest test of a strategy: moments of entries that are masked now are left in the
    optimizer. A config's `train.switch_at` is the short form for one step. The schedule `given`
    takes masks that the user gives.

    Raises:
        Invalid: The steps are not above 0 and in order.

    Example:
        >>> Swap(steps=(50, 80)).change_steps(Course(steps=100, epoch=10))
        (50, 80)
    """

    name: ClassVar[str] = "swap"
    redraws: ClassVar[bool] = True
    steps: tuple[int, ...] = (100,)
    """Numbers of training steps after which new masks are drawn."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", steps_in_order(self.steps))

    def change_steps(self, course: Course) -> tuple[int, ...]:
        return steps_within(self.steps, course)

    def refuses(self, strategy: Strategy, plan: Plan) -> str | None:
        return None  # whether the new masks fit depends on them, and is checked when they are drawn

    def change(self, moment: Moment) -> MaskChange:
        return MaskChange(moment.draw(1 + self.steps.index(moment.step)), fresh_slots="none")
