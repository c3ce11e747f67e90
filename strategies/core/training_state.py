"""The variables of a training: what trains, the optimizer's slots, states, masks, held values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from masksweep.strategies.base import Strategy
from masksweep.strategies.core import keras_internals
from masksweep.strategies.core.audit import one_if_equal
from masksweep.strategies.core.forward import require_plain_calls
from masksweep.strategies.core.held_weight import HeldWeight, with_new_calls
from masksweep.strategies.core.moving_statistics import (
    frozen_statistics,
    layers_with_frozen_statistics,
)
from masksweep.strategies.core.optimizer import (
    build,
    require_usable,
    with_loss_scaling,
)
from masksweep.strategies.core.selection import match_each
from masksweep.strategies.core.switching import FreshSlots, switch_all
from masksweep.strategies.core.weights import describe
from masksweep.strategies.errors import Invalid
from masksweep.strategies.plan import Array, Plan


class TrainingState:
    """The variables of one training, and how they are set, switched and held.

    `Training` adds the step, and describes the arguments.
    """

    def __init__(
        self,
        model: Any,
        strategy: Strategy,
        plan: Plan,
        *,
        optimizer: Any,
        loss: Any,
        trainable: Sequence[str] = ("*",),
        statistics: Sequence[str] | None = None,
    ) -> None:
        if reason := strategy.refuses(plan):
            raise Invalid("strategy", strategy.name, reason)
        for method in ("train_step", "compute_loss"):
            if getattr(type(model), method, None) is not getattr(keras.Model, method):
                allowed = f"overrides {method}, which a training here does not call"
                raise Invalid("model", type(model).__name__, allowed)
        require_usable(optimizer)
        require_plain_calls(model, plan)
        self.strategy = strategy
        self.model, self.loss = model, loss
        self.weights = describe(model)
        names = [w.name for w in self.weights]
        trains = set(match_each("trainable", names, trainable))
        self.frozen = frozen_statistics(model, trainable, statistics)
        """The statistics that must not change."""
        self._frozen_layers = layers_with_frozen_statistics(model, self.frozen)

        # all checks are done before this line, so a refusal changes neither model nor optimizer
        self.optimizer = with_loss_scaling(optimizer, model)
        self._variables = list(model.trainable_variables)
        """The model's own trainable variables, in the order of `weights`."""
        self.masked = {
            weight.name: HeldWeight(
                masked_weight, strategy.for_weight(masked_weight).bind(), variable
            )
            for weight, variable in zip(self.weights, self._variables, strict=True)
            if (masked_weight := plan.find(weight.name))
        }
        for variable in model.variables:
            keras_internals.draw(variable)
        self._new_calls = with_new_calls(model, self.masked.values())
        """The kernels whose strategy replaces the product of their layer, with these layers."""
        self.values = [
            self.masked[weight.name].value if weight.name in self.masked else variable
            for weight, variable in zip(self.weights, self._variables, strict=True)
        ]
        """The variables with the values that train, in the order of `weights`."""
        self.state = list(model.non_trainable_variables)
        self.trained = [
            v for w, v in zip(self.weights, self.values, strict=True) if w.name in trains
        ]
        self.slots = build(self.optimizer, self.trained)
        """By the `id` of each trained variable: pairs (optimizer slot, its initial value)."""
        self._initial_optimizer_values = [
            np.broadcast_to(one_if_equal(np.asarray(v.numpy())), tuple(v.shape))
            for v in self.optimizer.variables
        ]

    def start(
        self, weights: Mapping[str, Array], state: Sequence[Array], plan: Plan
    ) -> list[Array]:
        """Returns the values of `all_variables` at the start of a new training.

        Args:
            weights: Dense weights by name, in the model's order.
            state: Values of the non-trainable variables, in the order of `state`.
            plan: The plan of the new training. It must mask the same weights, and the constants of
                the strategy must have the same shapes as now.

        Returns:
            Arrays in the order of `all_variables`, for `assign_all`.

        Raises:
            Invalid: The strategy refuses the plan, or the plan does not fit.
        """
        if reason := self.strategy.refuses(plan):
            raise Invalid("strategy", self.strategy.name, reason)
        names = {w.weight.name for w in plan.weights}
        if names != self.masked.keys():
            raise Invalid("plan", sorted(names), f"masks for {list(self.masked)}, as at the start")
        values, constants = dict(weights), dict[str, list[Array]]()
        for masked_weight in plan.weights:
            name, masked = masked_weight.weight.name, self.masked[masked_weight.weight.name]
            arrays = masked.arrays(masked_weight)
            _, layout, _, rest = arrays
            values[name] = np.asarray(masked.start(weights[name], layout, rest))
            constants[name] = masked.distinct(arrays)
        trained = [values[w.name] for w in self.weights]
        plan_arrays = [a for n in self.masked for a in constants[n]]
        return [*trained, *self._initial_optimizer_values, *state, *plan_arrays]

    def assign_all(self, arrays: Sequence[Array]) -> None:
        """Sets `all_variables`, for example to the result of `start`. Nothing is compiled again."""
        for variable, array in zip(self.all_variables, arrays, strict=True):
            variable.assign(array)

    def assign_first(self, arrays: Sequence[Array]) -> None:
        """Sets the first `len(arrays)` of `all_variables`. The others keep their values."""
        for variable, array in zip(self.all_variables, arrays, strict=False):
            variable.assign(array)

    def switch(
        self,
        plan: Plan,
        *,
        weights: Mapping[str, Array] | None = None,
        fresh_slots: FreshSlots = "none",
    ) -> None:
        """Changes the masks during a training.

        Args:
            plan: The new masks and held values, of the weights that were masked before.
            weights: New values of weights by name, in their dense shapes. Weights that are not here
                keep their values; see `masksweep.strategies.core.switching.switch`.
            fresh_slots: Which entries of the optimizer's slots get their initial values.

        Raises:
            Invalid: The strategy refuses the plan, or its constants have other shapes than before.
                Nothing is changed then.
        """
        if reason := self.strategy.refuses(plan):
            raise Invalid("strategy", self.strategy.name, reason)
        pairs = zip(self.weights, self._values_with_masks(), strict=True)
        entries = ((weight.name, value, masked) for weight, (value, masked) in pairs)
        switch_all(entries, self.slots, plan, weights, fresh_slots)
        self._after_step()

    @property
    def frozen_weights(self) -> set[str]:
        """Names of the masked weights that do not train."""
        trained = {id(value) for value in self.trained}
        return {name for name, held in self.masked.items() if id(held.value) not in trained}

    @property
    def plan_variables(self) -> list[Any]:
        """The variables of masks and held values. A step does not change them."""
        return [v for m in self.masked.values() for v in m.constants]

    @property
    def variables(self) -> list[Any]:
        """All variables that a step can change: `values`, optimizer variables, and `state`."""
        return [*self.values, *self.optimizer.variables, *self.state]

    @property
    def all_variables(self) -> list[Any]:
        """All variables of the training: `variables`, then `plan_variables`."""
        return [*self.variables, *self.plan_variables]

    def effective(self) -> list[Any]:
        """Returns the dense weights as the strategy defines them now, in the model's order."""
        return [
            m.effective() if m else tf.convert_to_tensor(v.value)
            for v, m in self._values_with_masks()
        ]

    def _values_with_masks(self) -> list[tuple[Any, HeldWeight | None]]:
        return [
            (v, self.masked.get(w.name)) for w, v in zip(self.weights, self.values, strict=True)
        ]

    def finalize(self) -> None:
        """Ends the training: EMA replaces the weights by their averages, then `after_step` runs."""
        self.optimizer.finalize_variable_values(self.trained)
        self._after_step()

    def _after_step(self) -> None:
        for value, masked in self._values_with_masks():
            if masked is not None and id(value) in self.slots:
                masked.after_step(self.slots[id(value)])
