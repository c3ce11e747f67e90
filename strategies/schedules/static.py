"""The `static` schedule: the masks do not change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masksweep.strategies.base import Strategy
from masksweep.strategies.plan import Plan
from masksweep.strategies.registry import register
from masksweep.strategies.schedules.base import Course, MaskSchedule


@register
@dataclass(frozen=True)
class Static(MaskSchedule):
    """The masks of the pattern, from the first step to the last.

    Example:
        >>> Static().change_steps(Course(steps=1000, epoch=40))
        ()
    """

    name: ClassVar[str] = "static"

    def change_steps(self, course: Course) -> tuple[int, ...]:
        return ()

    def refuses(self, strategy: Strategy, plan: Plan) -> str | None:
        return None
