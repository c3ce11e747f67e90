"""The base class of mask schedules, what they know at a change, and what they answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar, Literal

from masksweep.strategies.base import Strategy
from masksweep.strategies.errors import require
from masksweep.strategies.plan import Array, Mask, Plan

Masks = Mapping[str, Mask]
"""Masks by weight name: True = kept (trains), False = masked (held)."""
Weights = Mapping[str, Array]
"""Values by weight name."""


@dataclass(frozen=True)
class Course:
    """The length of a training."""

    steps: int
    """Training steps of the whole training."""
    epoch: int
    """Training steps of an epoch."""


@dataclass(frozen=True)
class Moment:
    """What a schedule knows when it changes the masks, between two training steps."""

    step: int
    """Training steps that were done."""
    course: Course
    targets: Masks
    """The masks of the pattern, as they were drawn at the start."""
    masks: Masks
    """The masks that are in force."""
    weights: Weights
    """The effective weights of the targeted variables."""
    gradients: Callable[[], Weights]
    """Computes the gradients of the loss by the effective weights, masked entries included, on the
    batch of the newest step."""
    draw: Callable[[int], Masks]
    """`number` -> new masks of the pattern, drawn from the effective weights with the seed of this
    number: 0, 1, ..."""
    saved: Weights | None
    """All trainable weights as they were at the step `MaskSchedule.rewinds_to`; None before it, and
    if the schedule does not rewind."""
    seed: int
    """Seed of random choices at this step."""


@dataclass(frozen=True)
class MaskChange:
    """The answer of a schedule: the masks from now on."""

    masks: Masks
    """The new masks, by name, in the shapes of the weights."""
    weights: Weights | None = None
    """New values of trainable weights by name; weights that are not here keep their values. The
    values of masked entries are ignored. Without them, entries that train again start from the
    value that they were held at."""
    fresh_slots: Literal["none", "regrown", "all"] = "regrown"
    """Which entries of the optimizer's slots get their initial values: none, those that train
    again, or all slots of all weights."""


class MaskSchedule:
    """Base class of all schedules of the mask.

    A subclass is a frozen dataclass with a `name`, in a module of its own. Its fields are its
    settings. `masksweep.strategies.register` makes it known to configs by its name.

    The pattern draws masks at the start. A schedule takes from them how many entries of each weight
    to keep, and decides which ones, and when.

    Example:
        >>> from masksweep.strategies.schedules.rigl import RigL
        >>> RigL(frequency=100).change_steps(Course(steps=1000, epoch=40))
        (100, 200, 300, 400, 500, 600, 700)
    """

    name: ClassVar[str]
    """The name in configs: lower-case letters, digits and underscores."""
    keeps_counts: ClassVar[bool] = True
    """Whether each weight has as many kept entries after a change as before it: it drops some and
    grows others. The masks of a weight that is frozen then stay as they are."""
    dense_start: ClassVar[bool] = False
    """Whether nothing is masked before the first change."""
    redraws: ClassVar[bool] = False
    """Whether `Moment.draw` is called."""
    needs_gradients: ClassVar[bool] = False
    """Whether `Moment.gradients` is called."""

    def change_steps(self, course: Course) -> tuple[int, ...]:
        """Returns the numbers of training steps after which the masks change, in order.

        Args:
            course: The length of the training. All numbers are above 0 and below its `steps`.

        Raises:
            Invalid: The schedule does not fit a training of this length. The key is that of the
                setting.
        """
        raise NotImplementedError

    def change(self, moment: Moment) -> MaskChange:
        """Returns the masks from this moment on.

        The same arguments give the same masks on every machine.
        """
        raise NotImplementedError

    def kept(self, target: int, size: int, step: int, course: Course) -> int:
        """Returns how many entries of a weight are kept after a step, and the change after it.

        Args:
            target: Number of entries that the pattern keeps.
            size: Number of entries of the weight.
            step: Number of training steps, from 0.
            course: The length of the training.
        """
        return size if self.dense_start and step < self.change_steps(course)[0] else target

    def counts(self, targets: Masks, step: int, course: Course) -> dict[str, int]:
        """Returns how many entries of each weight are kept after a step, and the change after it.

        Args:
            targets: The masks of the pattern.
            step: Number of training steps, from 0.
            course: The length of the training.
        """
        sizes = {name: (int(mask.sum()), mask.size) for name, mask in targets.items()}
        return {name: self.kept(*size, step, course) for name, size in sizes.items()}

    def rewinds_to(self, course: Course) -> int | None:
        """Returns the step whose weights `Moment.saved` has; None if they are not needed."""
        return None

    def refuses(self, strategy: Strategy, plan: Plan) -> str | None:
        """Returns the reason why a strategy cannot follow this schedule, or None if it can.

        Args:
            strategy: The strategy.
            plan: The plan with the masks of the pattern.
        """
        if self.keeps_counts and strategy.follows != "nothing":
            return None
        if strategy.follows == "all masks":
            return None
        why = "its masks cannot move"
        if strategy.follows == "equal counts":
            why = "its arrays have a place for each kept entry, and their number changes"
        return f"schedule={self.name}: {why}"


def every(frequency: int, until: float, begin: int = 0) -> tuple[int, ...]:
    """Returns the multiples of a number of steps, counted from `begin`, that are below `until`.

    Example:
        >>> every(100, 300)
        (100, 200)
    """
    last = int(until) + 1
    return tuple(s for s in range(begin + frequency, last, frequency) if s < until)


def steps_in_order(steps: Iterable[int]) -> tuple[int, ...]:
    """Returns the steps as a tuple of Python's numbers, which a saved model can have.

    Raises:
        Invalid: There are no steps, or they are not above 0 and in ascending order.
    """
    given = list(steps)
    valid = len(given) > 0 and all(isinstance(step, Integral) for step in given)
    valid = valid and min(given) > 0 and given == sorted(set(given))
    require(valid, "steps", given, "whole numbers above 0 in ascending order")
    return tuple(int(step) for step in given)


def steps_within(steps: tuple[int, ...], course: Course) -> tuple[int, ...]:
    """Returns the steps, which are in order. Raises `Invalid` if the training ends before them."""
    below = f"below {course.steps}, the training steps"
    require(steps[-1] < course.steps, "steps", list(steps), below)
    return steps


def check_share(key: str, value: Any) -> None:
    """Raises `Invalid` unless the value is in (0, 1]."""
    require(0 < value <= 1, key, value, "above 0 and at most 1")


def check_steps(key: str, value: Any) -> None:
    """Raises `Invalid` unless the value is at least 1."""
    require(value >= 1, key, value, "1 or more")
