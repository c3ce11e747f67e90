"""Follows a mask schedule in a training: changes the masks when they are due, and records it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from masksweep.strategies.base import Array, Invalid, Mask, MaskedWeight, Plan, Weight
from masksweep.strategies.core.held_weight import FreshSlots, HeldWeight
from masksweep.strategies.schedules.base import Course, Masks, MaskSchedule, Moment


class MaskedTraining(Protocol):
    """What changes of the masks need of a training: a `Training`, or a masked Keras model."""

    @property
    def weights(self) -> Sequence[Weight]:
        """The weights of the model."""

    @property
    def values(self) -> Sequence[Any]:
        """The variables with the values that train, in the order of `weights`."""

    @property
    def masked(self) -> Mapping[str, HeldWeight]:
        """How each masked weight is held, by name."""

    @property
    def slots(self) -> Mapping[int, Sequence[tuple[Any, Array]]]:
        """Pairs (slot of the optimizer, its initial value), by the `id` of the variable."""

    def effective(self) -> Sequence[Any]:
        """Returns the dense weights as they are used now, in the order of `weights`."""

    def switch(
        self,
        plan: Plan,
        *,
        weights: Mapping[str, Array] | None = None,
        fresh_slots: FreshSlots = "none",
    ) -> None:
        """Changes the masks; see `TrainingState.switch`."""


HeldMaker = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""Makes the held values from the weights as they are at the change, as `Held.values` does."""

Measure = Callable[[Masks], Mapping[str, float]]
"""Computes numbers by name from the masks, such as how many known connections they keep."""


@dataclass
class WeightChange:
    """What a change of the masks did to one weight."""

    size: int
    """Number of entries of the weight."""
    kept: int
    """Number of entries that are kept from now on."""
    cut: int
    """Number of entries that were kept before, and are masked now."""
    grown: int
    """Number of entries that were masked before, and are kept now."""
    zeros: int
    """Number of masked entries that are held at zero."""
    overlap: float
    """Jaccard index of the kept entries before and after: how many were kept both times, relative
    to those that were kept at least once; 1.0 if none was."""


@dataclass
class ChangeRecord:
    """One change of the masks. The start of the training is recorded too, as step 0."""

    step: int
    """Training steps that were done before."""
    weights: dict[str, WeightChange]
    """By weight name."""
    dense_gradients: bool = False
    """Whether the schedule asked for the gradients of the dense weights."""
    stale_slots: dict[str, float] = field(default_factory=dict)
    """By the kind of an optimizer's slot, such as `momentum`: the largest distance from its initial
    value at an entry that was cut. Kinds without any distance are left out. Such a slot moves the
    entry at the next steps, unless the strategy holds it."""
    violations: int = 0
    """Most masked entries that differed from their held values, bit for bit, at one of the audits
    up to the next change."""
    measures: dict[str, float] = field(default_factory=dict)
    """What `MaskChanges.measure` computed from the masks that are in force from now on."""

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> ChangeRecord:
        """Returns the record that is given as plain values (`dataclasses.asdict`)."""
        weights = {name: WeightChange(**values) for name, values in plain["weights"].items()}
        return cls(**{**plain, "weights": weights})

    @property
    def density(self) -> float:
        """Fraction of the entries of all weights that is kept, in [0, 1]."""
        size = sum(w.size for w in self.weights.values())
        return sum(w.kept for w in self.weights.values()) / size if size else 1.0


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
        unchanged = _changes(masks, masks, _plan(training, self.targets))
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
        plan = self._plan_after(training, change.masks, weights)
        try:
            training.switch(plan, weights=change.weights, fresh_slots=change.fresh_slots)
        except Invalid as error:
            if error.key != "plan":
                raise
            allowed = f"draws masks of other sizes for {error.value}"
            raise Invalid("schedule", self.schedule.name, allowed) from error
        by_weight = _changes(before, change.masks, plan)
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


def stale_slots(training: MaskedTraining, before: Masks) -> dict[str, float]:
    """Returns the largest distances of slots from their initial values, over entries that were cut.

    The average of EMA is left out, because it is an average of the weight itself.

    Args:
        training: The training after a change of its masks.
        before: The masks before it.

    Returns:
        Distances above 0 by the kind of slot, as Keras names it: `momentum`, `velocity`.
    """
    largest: dict[str, float] = {}
    for weight, value in zip(training.weights, training.values, strict=True):
        masked = training.masked.get(weight.name)
        if masked is None or not masked.has_weight_order:
            continue
        cut = before[weight.name] & ~masked.kept.numpy()
        for slot, fresh in training.slots.get(id(value), []):
            kind = slot.name.removeprefix(f"{value.path.replace('/', '_')}_")
            if kind == "average":
                continue
            initial = fresh[cut] if np.ndim(fresh) else fresh
            distance = float(np.abs(slot.numpy()[cut] - initial).max(initial=0.0))
            largest[kind] = max(largest.get(kind, 0.0), distance)
    return {kind: distance for kind, distance in largest.items() if distance}


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


def _changes(before: Masks, after: Masks, plan: Plan) -> dict[str, WeightChange]:
    changes = {}
    for masked_weight in plan.weights:
        name = masked_weight.weight.name
        old, new = before[name], after[name]
        both, kept = int((old & new).sum()), int(new.sum())
        once = int(old.sum()) + kept - both
        cut, grown = int(old.sum()) - both, kept - both
        overlap = both / once if once else 1.0
        changes[name] = WeightChange(new.size, kept, cut, grown, masked_weight.zeros, overlap)
    return changes
