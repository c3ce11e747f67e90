"""Follows a mask schedule in a training: changes the masks when they are due, and records it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

import numpy as np

from masksweep.strategies.errors import Invalid
from masksweep.strategies.mask_changes.record import ChangeRecord, changes_between
from masksweep.strategies.mask_changes.stale_slots import stale_slots
from masksweep.strategies.mask_changes.training import MaskedTraining
from masksweep.strategies.plan import Array, Mask, MaskedWeight, Plan
from masksweep.strategies.schedules.base import Course, MaskChange, Masks, MaskSchedule, Moment

HeldMaker = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""Makes the held values from the weights as they are at the change, as `Held.values` does."""

Measure = Callable[[Masks], Mapping[str, float]]
"""Computes numbers by name from the masks, such as how many known connections they keep."""


@dataclass
class MaskChanges:
    """The changes of the masks in one training.

    Args:
        schedule: The schedule.
        course: The length of the training.
        targets: The plan with the masks of the pattern.
        held: Makes the held values of entries that are masked.
        draw: Draws new masks of the pattern; see `Moment.draw`. It gets the number of the draw and
            the effective weights.
        seed_at: Returns the seed of random choices after a step.
    """

    schedule: MaskSchedule
    course: Course
    targets: Plan
    held: HeldMaker
    draw: Callable[[int, Mapping[str, Array]], Masks]
    seed_at: Callable[[int], int]
    records: list[ChangeRecord] = field(default_factory=list)
    """The start and the changes so far, in order."""
    saved: dict[str, Array] = field(default_factory=dict)
    """The weights that the schedule rewinds to, by name; empty before that step."""
    measure: Measure = lambda masks: {}
    """Computes the `measures` of each record from the masks of all masked weights by name."""

    def __post_init__(self) -> None:
        self.steps: Sequence[int] = ()
        """Training steps after which the masks change."""
        self._saves_at: int | None = None
        if self.targets.weights:
            self.steps = self.schedule.change_steps(self.course)
            self._saves_at = self.schedule.rewinds_to(self.course)

    @property
    def events(self) -> list[int]:
        """Training steps after which `after_step` has something to do."""
        return sorted({*self.steps, *([self._saves_at] if self._saves_at else [])})

    def start(self, training: MaskedTraining) -> None:
        """Records the start of the training, and saves the weights that the schedule needs."""
        if not self.steps:
            return
        masks = _masks(training)
        unchanged = changes_between(masks, masks, _plan(training, self.targets))
        self.records = [ChangeRecord(0, unchanged, measures=dict(self.measure(masks)))]
        if self._saves_at == 0:
            self.saved = _effective(training)

    def after_step(
        self, training: MaskedTraining, step: int, gradients: Callable[[], Mapping[str, Array]]
    ) -> None:
        """Changes the masks, or saves the weights, if that is due after a step.

        Args:
            training: The training.
            step: Number of training steps that were done.
            gradients: Computes the gradients of the dense weights; see `Moment.gradients`.

        Raises:
            Invalid: The strategy cannot take the new masks.
        """
        if step == self._saves_at:
            self.saved = _effective(training)
        if step not in self.steps:
            return
        asked: list[bool] = []

        def dense_gradients() -> Mapping[str, Array]:
            asked.append(True)
            return {name: np.asarray(g) for name, g in gradients().items()}

        effective, before = _effective(training), _masks(training)
        weights = {name: effective[name] for name in before}
        moment = Moment(
            step,
            self.course,
            {w.weight.name: w.mask for w in self.targets.weights},
            before,
            weights,
            dense_gradients,
            lambda number: self.draw(number, weights),
            self.saved or None,
            self.seed_at(step),
        )
        change = self.schedule.change(moment)
        if self.schedule.keeps_counts:  # what a frozen weight grew could not train
            change = _without(training.frozen_weights, change, before)
        plan = self._plan_after(training, change.masks, weights)
        try:
            training.switch(plan, weights=change.weights, fresh_slots=change.fresh_slots)
        except Invalid as error:
            if error.key != "plan":
                raise
            allowed = f"draws masks of other sizes for {error.value}"
            raise Invalid("schedule", self.schedule.name, allowed) from error
        by_weight = changes_between(before, change.masks, plan)
        stale, measures = stale_slots(training, before), dict(self.measure(change.masks))
        self.records.append(ChangeRecord(step, by_weight, bool(asked), stale, measures=measures))

    def add_violations(self, count: int) -> None:
        """Records violations that an audit found since the newest change."""
        if self.records:
            self.records[-1].violations = max(self.records[-1].violations, count)

    def _plan_after(
        self, training: MaskedTraining, masks: Masks, weights: Mapping[str, Array]
    ) -> Plan:
        """Returns the plan from now on. An entry that stays masked keeps its held value."""
        new_held = self.held(weights)
        planned = []
        for masked_weight in self.targets.weights:
            name, weight = masked_weight.weight.name, masked_weight.weight
            held = np.asarray(new_held[name]).astype(weight.dtype, copy=False)
            if any(held.strides):  # else all entries have the same value, at every change
                still = ~(masks[name] | training.masked[name].kept.numpy())
                held = np.where(still, training.masked[name].held.numpy(), held)
            planned.append(MaskedWeight(weight, masks[name], held))
        return replace(self.targets, weights=tuple(planned))


def _without(frozen: Set[str], change: MaskChange, before: Masks) -> MaskChange:
    """Returns a change that leaves the weights that are frozen as they are."""
    masks = {name: before[name] if name in frozen else m for name, m in change.masks.items()}
    weights = change.weights and {n: w for n, w in change.weights.items() if n not in frozen}
    return replace(change, masks=masks, weights=weights)


def _effective(training: MaskedTraining) -> dict[str, Array]:
    pairs = zip(training.weights, training.effective(), strict=True)
    return {weight.name: np.array(array) for weight, array in pairs}


def _masks(training: MaskedTraining) -> dict[str, Mask]:
    return {name: masked.kept.numpy() for name, masked in training.masked.items()}


def _plan(training: MaskedTraining, targets: Plan) -> Plan:
    """Returns the plan that is in force."""
    held_weights = [(w, training.masked[w.weight.name]) for w in targets.weights]
    planned = (replace(w, mask=m.kept.numpy(), held=m.held.numpy()) for w, m in held_weights)
    return replace(targets, weights=tuple(planned))
