"""The `given` schedule: masks that the user gives, at given steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from masksweep.strategies.base import Strategy
from masksweep.strategies.core.npz import read_arrays, read_weights
from masksweep.strategies.errors import Invalid, require
from masksweep.strategies.patterns.explicit import Explicit, to_mask
from masksweep.strategies.plan import Mask, Plan
from masksweep.strategies.registry import register
from masksweep.strategies.schedules.base import (
    Course,
    MaskChange,
    Masks,
    MaskSchedule,
    Moment,
    steps_in_order,
    steps_within,
)

Shapes = Mapping[str, tuple[int, ...]]


@register
@dataclass(frozen=True)
class Given(MaskSchedule):
    """Changes to masks that are given, after given numbers of steps, and keeps the slots.

    The masks are in a file, or are written out as the pattern `explicit` takes them. The pattern
    makes the masks of the start. A strategy that stores kept values only (`sparse_values`,
    `sparse_tensor`) has places for those of the start, so it refuses masks that keep more.

    Raises:
        Invalid: The steps are not above 0 and in order, there is not a mask for each of them, or
            the file cannot be read.

    Example:
        >>> Given(steps=(50,), masks=[{"hidden/kernel": [[0, 1], [1, 0]]}]).change_steps(
        ...     Course(steps=100, epoch=10)
        ... )
        (50,)
    """

    name: ClassVar[str] = "given"
    keeps_counts: ClassVar[bool] = False
    steps: tuple[int, ...] = (100,)
    """Numbers of training steps after which the masks change."""
    path: str | None = None
    """A `.npz` file with an array for each masked weight, of shape `[changes, *weight.shape]`: the
    masks of all steps. 1 means kept (trains), 0 means masked (held)."""
    masks: Any = field(default=None)
    """Or a list with the masks of each step: nested lists or arrays by weight name."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", steps_in_order(self.steps))
        both = "path and masks" if self.path is not None else None
        allowed = "given, or else masks"
        require((self.path is None) != (self.masks is None), "path", both, allowed)
        if self.path is not None:
            read_arrays(self.path)
            return
        is_list = isinstance(self.masks, list | tuple)
        allowed = f"a list with the masks of each of the {len(self.steps)} steps"
        require(
            is_list and len(self.masks) == len(self.steps), "masks", repr(self.masks)[:40], allowed
        )
        object.__setattr__(self, "masks", [_to_lists(of_step) for of_step in self.masks])

    def change_steps(self, course: Course) -> tuple[int, ...]:
        return steps_within(self.steps, course)

    def change(self, moment: Moment) -> MaskChange:
        shapes = {name: mask.shape for name, mask in moment.masks.items()}
        masks = self._masks(shapes, self.steps.index(moment.step))
        return MaskChange(masks, fresh_slots="none")

    def counts(self, targets: Masks, step: int, course: Course) -> dict[str, int]:
        done = sum(change <= step for change in self.steps)
        shapes = {name: mask.shape for name, mask in targets.items()}
        masks = self._masks(shapes, done - 1) if done else targets
        return {name: int(mask.sum()) for name, mask in masks.items()}

    def refuses(self, strategy: Strategy, plan: Plan) -> str | None:
        shapes = {w.weight.name: w.mask.shape for w in plan.weights}
        try:
            later = self._all_masks(shapes) if shapes else {}
        except Invalid as error:
            return f"schedule={self.name}: {error}"
        for masked in plan.weights:
            if strategy.for_weight(masked).bind().padded is None:
                continue
            of_start = int(masked.mask.sum())
            for step, mask in zip(self.steps, later[masked.weight.name], strict=True):
                if mask.sum() > of_start:
                    why = f"its arrays have places for the {of_start} entries kept at the start"
                    what = f"the mask after step {step} keeps {mask.sum()} of {masked.weight.name}"
                    return f"schedule={self.name}: {why}, and {what}"
        return super().refuses(strategy, plan)

    def _masks(self, shapes: Shapes, number: int) -> dict[str, Mask]:
        """Returns the masks of a change: 0 is the first."""
        return {name: masks[number] for name, masks in self._all_masks(shapes).items()}

    def _all_masks(self, shapes: Shapes) -> dict[str, Mask]:
        """Returns the masks of all changes, `[changes, *weight.shape]`."""
        if self.path is None:
            of_steps = [Explicit(masks).masks(shapes, seed=0) for masks in self.masks]
            return {name: np.stack([masks[name] for masks in of_steps]) for name in shapes}
        count, arrays = len(self.steps), read_weights(self.path, shapes, "masks")
        return {n: to_mask(arrays[n], (count, *s), f"mask of {n}") for n, s in shapes.items()}


def _to_lists(masks: Any) -> Any:
    """Returns arrays as nested lists, which a config and a saved model can have."""
    if not isinstance(masks, Mapping):
        return masks
    arrays = {n: np.asarray(m) for n, m in masks.items() if hasattr(m, "dtype")}
    numbers = {n: m.astype(int) if m.dtype == bool else m for n, m in arrays.items()}
    return {n: numbers[n].tolist() if n in numbers else m for n, m in masks.items()}
