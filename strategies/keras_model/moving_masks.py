"""Masks of a masked Keras model that move while it trains, by a mask schedule."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, replace
from functools import partial
from itertools import pairwise
from typing import Any

import keras
import numpy as np

from masksweep.strategies.core.audit import count_violations
from masksweep.strategies.core.held_weight import HeldWeight
from masksweep.strategies.core.switching import FreshSlots, switch_all
from masksweep.strategies.core.weights import all_weights, describe
from masksweep.strategies.errors import Invalid
from masksweep.strategies.keras_model.dense_gradients import DenseGradients
from masksweep.strategies.keras_model.holding import Holding
from masksweep.strategies.keras_model.schedule_choice import ScheduleChoice
from masksweep.strategies.mask_changes.changes import MaskChanges
from masksweep.strategies.mask_changes.record import ChangeRecord
from masksweep.strategies.patterns.drawing import raw
from masksweep.strategies.plan import Array, MaskedWeight, Plan, Weight
from masksweep.strategies.schedules.base import Course, Masks

STATE, TARGET, SAVED = "schedule", "schedule_target_{}", "schedule_saved_{}"
"""Names of the arrays in a file: the state as JSON, the masks of the pattern, saved weights."""


class MovingMasks:
    """The moving masks of one masked model: it follows the schedule while the model trains.

    The length of the training is that of the first call of `fit` (all its epochs) or of
    `MaskedModel.begin_schedule`. A later call goes on where the one before ended.

    Args:
        model: The model that was given to `apply`.
        holding: Its masked weights.
        choice: The schedule.
    """

    def __init__(self, model: Any, holding: Holding, choice: ScheduleChoice) -> None:
        self.choice, self.holding = choice, holding
        self.targets = Plan()
        """The plan with the masks of the pattern."""
        self.course: Course | None = None
        """The length of the training; None before it begins."""
        self.records: list[ChangeRecord] = []
        """The start and the changes so far, in order."""
        self.saved: dict[str, Array] = {}
        """The weights that the schedule rewinds to."""
        self._variables = all_weights(model)
        self._described = describe(model, self._variables)
        self._changes: MaskChanges | None = None
        self._replicas = model.distribute_strategy
        self.gradients = DenseGradients(self._replicas)
        """The gradients by the dense weights, if the schedule needs them."""
        self.earlier_steps = 0
        """Number of training steps that optimizers before the present one have done."""
        self._steps = 0

    # -- what `MaskChanges` needs ------------------------------------------------------------

    @property
    def weights(self) -> Sequence[Weight]:
        """The weights of the model."""
        return self._described

    @property
    def masked(self) -> Mapping[str, HeldWeight]:
        """How each masked weight is held, by name."""
        return {held.weight.name: held for held in self.holding.weights}

    @property
    def values(self) -> Sequence[Any]:
        """The variables with the values that train, in the order of `weights`."""
        return self.holding.trained(self._variables)

    @property
    def frozen_weights(self) -> Set[str]:
        """Names of the masked weights that do not train now."""
        return {h.weight.name for h in self.holding.weights if not h.variable.trainable}

    @property
    def slots(self) -> Mapping[int, Sequence[tuple[Any, Array]]]:
        """Pairs (slot of the optimizer, its initial value), by the `id` of the variable."""
        return self.holding.slots

    def effective(self) -> Sequence[Any]:
        """Returns the dense weights as they are used now, in the order of `weights`."""
        masked = self.masked
        pairs = zip(self._described, self._variables, strict=True)
        return [masked[w.name].effective() if w.name in masked else v.value for w, v in pairs]

    def switch(
        self,
        plan: Plan,
        *,
        weights: Mapping[str, Array] | None = None,
        fresh_slots: FreshSlots = "none",
    ) -> None:
        """Changes the masks; see `TrainingState.switch`."""
        self.holding.require_accepted(plan)
        masked, pairs = self.masked, zip(self._described, self.values, strict=True)
        entries = [(w.name, value, masked.get(w.name)) for w, value in pairs]
        switch_all(entries, self.slots, plan, weights, fresh_slots)
        for held in self.holding.weights:
            held.after_step(self.slots.get(id(held.value), []))

    def first_plan(self, plan: Plan) -> Plan:
        """Returns the plan at the first step.

        Args:
            plan: The plan with the masks of the pattern.

        Raises:
            Invalid: A strategy refuses the plan.
        """
        self.holding.require_accepted(plan)
        self.targets = plan
        if not self.choice.schedule.dense_start:
            return plan
        return Plan(tuple(replace(w, mask=np.ones_like(w.mask)) for w in plan.weights))

    # -- following the schedule --------------------------------------------------------------

    def count_with(self, optimizer: Any) -> None:
        """Goes on to count with an optimizer, which may count its steps from 0."""
        if self._steps:
            self.earlier_steps = self._steps - _iterations(optimizer)
            if self._changes is not None:
                self._plan_gradients(self._steps)

    def steps_done(self, optimizer: Any) -> int:
        """Returns the number of training steps since `apply`, as updates of the weights."""
        return self.earlier_steps + (0 if optimizer is None else _iterations(optimizer))

    def begin(self, course: Course, steps_at_once: int = 1) -> None:
        """Begins a training, or goes on after an earlier one.

        Args:
            course: The length of this training; it counts if it is the first.
            steps_at_once: Number of training steps after which masks can change, as
                `steps_per_execution` of `compile`.

        Raises:
            Invalid: The schedule does not fit a training of this length, or needs the gradients of
                more steps than one between two changes.
        """
        self.course = self.course or course
        schedule = self.choice.schedule
        try:
            changes = MaskChanges(
                schedule, self.course, self.targets, self._held, self._draw, self._seed_at
            )
        except Invalid as error:
            allowed = f"{error.key}={error.value} {error.allowed}"
            raise Invalid("schedule", schedule.name, allowed) from error
        apart = min((b - a for a, b in pairwise(changes.steps)), default=steps_at_once)
        if schedule.needs_gradients and steps_at_once > apart:
            allowed = f"must be at most {apart} with schedule={schedule.name}"
            raise Invalid("steps_per_execution", steps_at_once, allowed)
        if self.records:
            changes.records, changes.saved = self.records, self.saved
        else:
            with self._replicas.scope():
                changes.start(self)
            self.records, self.saved = changes.records, changes.saved
        if schedule.needs_gradients:
            self.gradients.begin(self.holding.weights)
        self._changes = changes

    def after_steps(self, steps: int) -> None:
        """Changes the masks if that is due.

        Args:
            steps: Number of training steps that were done since `apply`.

        Raises:
            Invalid: The schedule has not begun, or needs gradients that the training did not store.
        """
        self.require_begun()
        assert self._changes is not None
        self._steps = steps
        last = self.records[-1].step if self.records else 0
        due = [s for s in self._changes.events if last < s <= steps and s not in self._passed]
        for step in due:
            self.count_violations()
            with self._replicas.scope(), self.holding.keeping_start():
                self._changes.after_step(self, step, partial(self._gradients_of, step))
            self.saved = self._changes.saved
        self._plan_gradients(steps)

    def require_begun(self) -> None:
        """Raises `Invalid` if the schedule has not begun."""
        if self._changes is None:
            allowed = "must begin first: train with fit, or call begin_schedule"
            raise Invalid("schedule", self.choice.schedule.name, allowed)

    @property
    def _passed(self) -> Sequence[int]:
        """Steps at which weights were saved; no change belongs to them."""
        assert self._changes is not None
        return [s for s in self._changes.events if s not in self._changes.steps and self.saved]

    def count_violations(self) -> None:
        """Records how many masked entries differ from their held values since the newest change."""
        if not self.records:
            return
        counts = [
            int(count_violations(held.effective(), held.kept.value, held.held.value)[0])
            for held in self.holding.weights
        ]
        self.records[-1].violations = max(self.records[-1].violations, sum(counts))

    def _plan_gradients(self, steps: int) -> None:
        assert self._changes is not None
        following = [s for s in self._changes.steps if s > steps]
        # counted by the present optimizer, so that the compiled step need not know the others
        self.gradients.wait_for(following[0] - self.earlier_steps if following else None)

    def _gradients_of(self, step: int) -> Mapping[str, Array]:
        gradients = self.gradients.of_step(step - self.earlier_steps)
        if gradients is None:
            allowed = "needs gradients by masked entries: train with fit or train_on_batch"
            raise Invalid("schedule", self.choice.schedule.name, allowed)
        return gradients

    def _held(self, weights: Mapping[str, Array]) -> Mapping[str, Array]:
        return self.choice.held_values(weights)

    def _draw(self, number: int, weights: Mapping[str, Array]) -> Masks:
        assert self.choice.pattern is not None
        return self.choice.pattern.from_weights(weights, self._seed_at(number))

    def _seed_at(self, step: int) -> int:
        """Returns a seed for random choices; 0 has that of the first masks."""
        return (
            int(raw(1, self.choice.seed, f"schedule/{step}")[0] >> 1) if step else self.choice.seed
        )

    # -- files ---------------------------------------------------------------------------------

    def save(self, store: Any) -> None:
        """Stores the state in the mapping that Keras gives to `save_own_variables`."""
        state = {
            "course": self.course and asdict(self.course),
            "records": [asdict(record) for record in self.records],
            "steps": [self._steps, self.earlier_steps],
        }
        store[STATE] = np.frombuffer(json.dumps(state).encode(), np.uint8)
        for i, masked in enumerate(self.targets.weights):
            store[TARGET.format(i)] = np.packbits(masked.mask)
        for i, weight in enumerate(self._described):
            if weight.name in self.saved:
                store[SAVED.format(i)] = self.saved[weight.name]

    def load(self, store: Any, plan: Plan) -> None:
        """Loads what `save` stored.

        Args:
            store: The mapping that Keras gives to `load_own_variables`.
            plan: The plan in force.
        """
        state = json.loads(bytes(np.asarray(store[STATE])).decode())
        self.course = Course(**state["course"]) if state["course"] else None
        self.records = [ChangeRecord.of(record) for record in state["records"]]
        self._steps, self.earlier_steps = state.get("steps", (0, 0))
        targets = []
        for i, masked in enumerate(plan.weights):
            packed = np.asarray(store[TARGET.format(i)])
            mask = np.unpackbits(packed, count=masked.mask.size).astype(bool)
            targets.append(
                MaskedWeight(masked.weight, mask.reshape(masked.mask.shape), masked.held)
            )
        self.targets = Plan(tuple(targets))
        names = {SAVED.format(i): w.name for i, w in enumerate(self._described)}
        self.saved = {name: np.array(store[key]) for key, name in names.items() if key in store}
        if self._changes is not None:  # a callback has loaded them after `fit` had begun
            self._changes.records, self._changes.saved = self.records, self.saved
            self._plan_gradients(self._steps)


def _iterations(optimizer: Any) -> int:
    # not int(), which the variable of several replicas does not have
    return int(keras.ops.convert_to_numpy(optimizer.iterations))
