"""The `iterative` schedule: prune in rounds, and rewind after each (lottery tickets)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.errors import require
from masksweep.strategies.registry import register
from masksweep.strategies.schedules.base import Course, MaskChange, MaskSchedule, Moment
from masksweep.strategies.schedules.ranking import keep_largest_of


@register
@dataclass(frozen=True)
class Iterative(MaskSchedule):
    """Prunes in rounds of equal length, and rewinds the weights after each (lottery tickets).

    The training is cut into `rounds + 1` rounds, the first of which is dense. At the end of each
    round but the last, the kept entries with the smallest magnitudes are masked, so that each round
    keeps the same fraction of what the one before kept, and the last one has the sparsity of the
    pattern. Then all trainable weights get the values that they had at the step `rewind_to`, and
    the optimizer's slots are reset. The order of the data and the learning rate continue.

    With `rewind_to=0` these are lottery tickets (Frankle and Carbin 2019); with a later step,
    weights rewinding (Frankle et al. 2020). The rounds share one training. For rounds that each
    have a whole training of their own, see `pattern=magnitude`.

    Raises:
        Invalid: `rounds` is below 1, or `rewind_to` is negative.

    Example:
        >>> Iterative(rounds=3).change_steps(Course(steps=1000, epoch=40))
        (250, 500, 750)

    Reference:
        Frankle and Carbin, The Lottery Ticket Hypothesis, ICLR 2019, arXiv:1803.03635.
        Frankle et al., Linear Mode Connectivity and the Lottery Ticket Hypothesis, ICML 2020,
        arXiv:1912.05671.
    """

    name: ClassVar[str] = "iterative"
    keeps_counts: ClassVar[bool] = False
    dense_start: ClassVar[bool] = True
    rounds: int = 5
    """Number of times that the weights are pruned and rewound."""
    rewind_to: int | None = 0
    """Number of training steps after which the weights are saved that each round starts from; 0
    means the initial weights, and null goes on from the trained weights."""

    def __post_init__(self) -> None:
        require(self.rounds >= 1, "rounds", self.rounds, "1 or more")
        valid = self.rewind_to is None or self.rewind_to >= 0
        require(valid, "rewind_to", self.rewind_to, "0 or more, or null")

    def change_steps(self, course: Course) -> tuple[int, ...]:
        fits = self.rounds < course.steps
        require(fits, "rounds", self.rounds, f"below {course.steps}, the training steps")
        steps = tuple(n * course.steps // (self.rounds + 1) for n in range(1, self.rounds + 1))
        if self.rewind_to is not None:
            below = f"below {steps[0]}, the steps of a round"
            require(self.rewind_to < steps[0], "rewind_to", self.rewind_to, below)
        return steps

    def rewinds_to(self, course: Course) -> int | None:
        return self.rewind_to

    def kept(self, target: int, size: int, step: int, course: Course) -> int:
        rounds_done = sum(s <= step for s in self.change_steps(course))
        if rounds_done == self.rounds:
            return target
        density = (target / size) ** (rounds_done / self.rounds) if size else 0.0
        return max(target, round(density * size))

    def change(self, moment: Moment) -> MaskChange:
        masks = {}
        for name, mask in moment.masks.items():
            target = int(moment.targets[name].sum())
            kept = self.kept(target, mask.size, moment.step, moment.course)
            masks[name] = keep_largest_of(np.abs(moment.weights[name]), mask, kept)
        rewound = moment.saved is not None
        return MaskChange(masks, moment.saved, "all" if rewound else "regrown")
