"""The mask schedule of a masked model, as `apply` is given it and as it is saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from masksweep.strategies.base import Strategy
from masksweep.strategies.errors import Invalid
from masksweep.strategies.held import HELD
from masksweep.strategies.held.constant import Constant
from masksweep.strategies.keras_model.choices import HeldChoice, PatternChoice
from masksweep.strategies.patterns import PATTERNS, Pattern, Scored
from masksweep.strategies.plan import Array, Plan
from masksweep.strategies.schedules import SCHEDULES, MaskSchedule
from masksweep.strategies.schedules.static import Static


@dataclass(frozen=True)
class ScheduleChoice:
    """What `apply` was given: the schedule, and what new masks and held values are made from."""

    schedule: MaskSchedule
    held: str | float
    seed: int
    pattern: Pattern | None
    """The pattern, if the schedule draws new masks."""

    def held_values(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        """Returns the held values of entries that are masked now, from the weights as they are."""
        kind = HELD[self.held]() if isinstance(self.held, str) else Constant(float(self.held))
        return kind.values(weights)

    def to_config(self) -> dict[str, Any]:
        """Returns the choice as plain values, for `from_config`."""
        parts: Mapping[str, Any] = {"schedule": self.schedule, "pattern": self.pattern}
        components = {k: c and {"name": c.name, **asdict(c)} for k, c in parts.items()}
        return {"held": self.held, "seed": self.seed, **components}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ScheduleChoice:
        """Returns the choice that `to_config` describes."""

        def built(registry: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
            return registry[settings["name"]](**{k: v for k, v in settings.items() if k != "name"})

        pattern = config["pattern"] and built(PATTERNS, config["pattern"])
        schedule = built(SCHEDULES, config["schedule"])
        return cls(schedule, config["held"], config["seed"], pattern)


def choose_schedule(
    schedule: MaskSchedule | None,
    pattern: PatternChoice,
    held: HeldChoice,
    seed: int,
    strategies: Mapping[str, Strategy],
    plan: Plan,
) -> ScheduleChoice | None:
    """Returns how the masks move; None if they do not.

    Args:
        schedule: The schedule, or None.
        pattern: What makes the masks.
        held: The held values.
        seed: Seed of the masks.
        strategies: The strategy of each masked weight.
        plan: The plan with the masks of the pattern.

    Raises:
        Invalid: A strategy cannot follow the schedule, or the pattern or the held values cannot.
    """
    if schedule is None or isinstance(schedule, Static):
        return None
    if not isinstance(schedule, MaskSchedule):
        raise Invalid("schedule", schedule, "must be a mask schedule, such as RigL()")
    for strategy in dict.fromkeys(strategies.values()):
        if reason := schedule.refuses(strategy, plan):
            raise Invalid("strategy", strategy.name, reason)
    if isinstance(held, bool) or not isinstance(held, str | int | float):
        raise Invalid("held", repr(held), 'must be a number, "zero" or "init" with a schedule')
    drawn = pattern if schedule.redraws else None
    if schedule.redraws:
        plain = isinstance(pattern, Pattern) and not isinstance(pattern, Scored)
        if not plain or pattern.needs_model:  # type: ignore[union-attr]
            allowed = f"must be a pattern that {schedule.name} can draw again, such as Random(0.9)"
            raise Invalid("pattern", repr(pattern), allowed)
    return ScheduleChoice(schedule, held, seed, drawn)  # type: ignore[arg-type]
