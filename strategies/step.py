"""The one training step, and the only code that assigns to variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from strategies.audit import bits
from strategies.base import (
    Array,
    Invalid,
    Plan,
    Slot,
    Strategy,
    match_each,
)
from strategies.masked import Masked
from strategies.weights import describe


class Training:
    """A model that trains under one strategy.

    The model's own trainable variables are never touched while it trains: the values that train
    live here, `strategy` says what the forward pass uses in their place, and `keras.Model.
    stateless_call` runs any layer on them. One step is: substitute -> forward -> outputs -> loss
    -> tape -> gradients -> optimizer -> non-trainables -> after_step.

    Args:
        model: a built Keras 3 model; its values are the start of the training.
        strategy: how the masked weights are held.
        plan: which they are; the strategy must not refuse it.
        optimizer: a fresh Keras optimizer.
        loss: `(targets, outputs) -> scalar`.
        trainable: globs on weight names; the others stay as they are (a plain `var_list`).

    Raises:
        Invalid: the strategy refuses the plan, or a glob of `trainable` matches nothing.
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
    ) -> None:
        if reason := strategy.refuses(plan):
            raise Invalid("strategy", strategy.name, reason)
        self.strategy = strategy
        self.model, self.optimizer, self.loss = model, optimizer, loss
        self.weights = describe(model)
        self.binding = binding = strategy.bind()
        masked_names = [w.weight.name for w in plan.weights]
        self._runs = binding.rewrite(model, masked_names) if masked_names else model
        names = [w.name for w in self.weights]
        trains = set(match_each("trainable", names, trainable))

        self.masked: dict[str, Masked] = {}
        self.values: list[Any] = []
        for weight, variable in zip(self.weights, model.trainable_variables, strict=True):
            value = tf.convert_to_tensor(variable.value)
            if found := plan.find(weight.name):
                masked = Masked(found, binding)
                self.masked[weight.name] = masked
                value = binding.init(value, masked.layout.value, masked.rest.value)
            self.values.append(
                keras.Variable(
                    value,
                    dtype=variable.dtype,
                    trainable=weight.name in trains,
                    name=weight.name.replace("/", "_"),
                )
            )
            self.values[-1].constraint = variable.constraint
        self.state = list(model.non_trainable_variables)
        self.trained = [v for v in self.values if v.trainable]
        self._slots = _build(optimizer, self.trained)
        self._fresh = [np.asarray(v.numpy()) for v in optimizer.variables]

    # -- values ------------------------------------------------------------------------------

    def start(
        self, weights: Mapping[str, Array], state: Sequence[Array], plan: Plan
    ) -> list[Array]:
        """What `all_variables` are where a training starts: from dense `weights` by name,
        non-trainable `state` and another plan.

        The plan must mask the same weights, and the strategy's constants must have the same shapes.
        Raises `Invalid` if not.
        """
        if reason := self.strategy.refuses(plan):
            raise Invalid("strategy", self.strategy.name, reason)
        names = {w.weight.name for w in plan.weights}
        if names != self.masked.keys():
            raise Invalid("plan", sorted(names), f"masks for {list(self.masked)}, as at the start")
        values, fixed = dict(weights), dict[str, list[Array]]()
        for found in plan.weights:
            name, masked = found.weight.name, self.masked[found.weight.name]
            four = masked.arrays(found, self.binding)
            values[name] = np.asarray(self.binding.init(weights[name], four[1], four[3]))
            fixed[name] = masked.once(four)
        trained = [values[w.name] for w in self.weights]
        return [*trained, *self._fresh, *state, *(a for n in self.masked for a in fixed[n])]

    def put(self, arrays: Sequence[Array]) -> None:
        """Set all that makes a training, as `start`. Nothing is compiled again."""
        for variable, array in zip(self.all_variables, arrays, strict=True):
            variable.assign(array)

    def switch(self, plan: Plan) -> None:
        """Go on under other masks, from the effective weights as they are now.

        What is masked now is set to the plan's held values, what is freed goes on from its own. The
        optimizer keeps its slots; where they are of the kept values only, those of entries that
        were kept before go along, and those of freed ones are fresh. Raises `Invalid` if the
        strategy refuses the plan, or its constants differ in shape.
        """
        if reason := self.strategy.refuses(plan):
            raise Invalid("strategy", self.strategy.name, reason)
        for weight, value in zip(self.weights, self.values, strict=True):
            masked, found = self.masked.get(weight.name), plan.find(weight.name)
            if masked is None or found is None:
                continue
            now = tf.identity(
                self.binding.dense(value.value, masked.layout.value, masked.rest.value)
            )
            moved = [(value, now)]
            if tuple(value.shape) != weight.shape:
                for slot, fresh in self._slots.get(id(value), []):
                    # the average that EMA keeps starts from the weight itself
                    rest = tf.fill(weight.shape, fresh.flat[0] if fresh.size else 0.0)
                    rest = now if slot.name.endswith("_average") else tf.cast(rest, now.dtype)
                    moved.append((slot, self.spread(slot.value, masked, rest)))
            masked.assign(found, self.binding)
            for variable, array in moved:
                variable.assign(self.binding.init(array, masked.layout.value, masked.rest.value))
        self._after_step()

    def spread(self, values: Any, masked: Masked, rest: Any) -> Any:
        """Values that go with those that train, in the weight's shape; `rest` at masked entries."""
        kept = self.binding.keep(np.asarray(rest), masked.layout.numpy())
        return self.binding.dense(values, masked.layout.value, tf.convert_to_tensor(kept))

    @property
    def plan_variables(self) -> list[Any]:
        """The masks and held values; a step changes none of them."""
        return [v for m in self.masked.values() for v in m.variables]

    @property
    def variables(self) -> list[Any]:
        """All that a step can change: the values, the optimizer's variables, non-trainables."""
        return [*self.values, *self.optimizer.variables, *self.state]

    @property
    def all_variables(self) -> list[Any]:
        """All that makes a training: what a step can change, masks and held values."""
        return [*self.variables, *self.plan_variables]

    def effective(self) -> list[Any]:
        """The dense weights that the strategy amounts to now, in the model's order."""
        return [
            self.binding.dense(v.value, m.layout.value, m.rest.value)
            if m
            else tf.convert_to_tensor(v.value)
            for v, m in self._pairs()
        ]

    def _pairs(self) -> list[tuple[Any, Masked | None]]:
        return [
            (v, self.masked.get(w.name)) for w, v in zip(self.weights, self.values, strict=True)
        ]

    # -- the step ----------------------------------------------------------------------------

    def forward(self, x: Any, *, training: bool) -> tuple[Any, Any, Any]:
        """(outputs, new non-trainables, extra losses) of the model on the substituted weights."""
        weights = [
            self.binding.substitute(v.value, m.layout.value, m.rest.value) if m else v.value
            for v, m in self._pairs()
        ]
        outputs, state, losses = self._runs.stateless_call(
            weights, [v.value for v in self.state], x, training=training, return_losses=True
        )
        return outputs, state, losses

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def step(self, x: Any, y: Any) -> tuple[Any, Any]:
        """One training step on a batch; (loss, outputs `[batch, ...]`). Call it in a graph."""
        loss, outputs, state, pairs = self._backward(x, y)
        self.optimizer.apply([g for g, _ in pairs], [v for _, v in pairs])
        for variable, new in zip(self.state, state, strict=True):
            variable.assign(new)
        self._after_step()
        return loss, outputs

    def gradients(self, x: Any, y: Any) -> dict[str, Any]:
        """What the optimizer gets for a batch now, by weight name, in the trained values' shapes.

        Trains nothing. Weights that do not train, or that the loss does not reach, are left out.
        """
        names = {id(v): w.name for w, v in zip(self.weights, self.values, strict=True)}
        pairs = self._backward(x, y)[-1]
        return {names[id(v)]: tf.convert_to_tensor(g) for g, v in pairs}

    def _backward(self, x: Any, y: Any) -> tuple[Any, Any, Any, list[tuple[Any, Any]]]:
        """(loss, outputs, new non-trainables, [(gradient for the optimizer, variable)])."""
        variables = [v.value for v in self.trained]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            outputs, state, losses = self.forward(x, training=True)
            seen = outputs
            for weight in self.weights:
                if weight.output and (masked := self.masked.get(weight.name)):
                    seen = self.binding.outputs(seen, masked.layout.value)
            loss = tf.add_n([self.loss(y, seen), *losses])
            scaled = self.optimizer.scale_loss(loss)
        found = tape.gradient(scaled, variables)
        owners = {id(v): m for v, m in self._pairs() if m}
        # a weight that the loss does not reach has no gradient: like `fit`, leave it alone
        pairs = [
            (self._handed(g, owners.get(id(v))), v)
            for g, v in zip(found, self.trained, strict=True)
            if g is not None
        ]
        return loss, outputs, state, pairs

    def _handed(self, gradient: Any, masked: Masked | None) -> Any:
        if masked is None or self.binding.slices:
            return gradient
        return self.binding.gradients(tf.convert_to_tensor(gradient), masked.layout.value)

    def finalize(self) -> None:
        """End the training: EMA is written to the weights, and what it moved is held once more."""
        self.optimizer.finalize_variable_values(self.trained)
        self._after_step()

    def _after_step(self) -> None:
        if self.binding.after_step is None:
            return
        for value, masked in self._pairs():
            if masked is None or not value.trainable:
                continue
            slots = self._slots[id(value)]
            new, cleared = self.binding.after_step(
                value.value,
                [Slot(slot.value, fresh) for slot, fresh in slots],
                masked.layout.value,
                masked.rest.value,
            )
            value.assign(new)
            for (slot, _), array in zip(slots, cleared, strict=True):
                slot.assign(array)

    def slots(self, value: Any) -> list[tuple[Array, Array]]:
        """(now, fresh) of each optimizer slot of a trained value that has its shape.

        The average that EMA keeps follows the weight itself, so it is left out.
        """
        return [
            (np.asarray(slot.numpy()), fresh)
            for slot, fresh in self._slots.get(id(value), [])
            if not slot.name.endswith("_average")
        ]

    def slot_leak(self) -> float:
        """Largest departure of an optimizer slot from its fresh value at a masked entry.

        Slots of another shape than the weight (factored moments, kept values) have none.
        """
        leak = 0.0
        for weight, value in zip(self.weights, self.values, strict=True):
            masked = self.masked.get(weight.name)
            if masked is None or tuple(value.shape) != weight.shape:
                continue
            held = ~masked.kept.numpy()
            for slot, fresh in self.slots(value):
                if held.any():
                    leak = max(leak, float(np.abs(slot - fresh)[held].max()))
        return leak


def _build(optimizer: Any, variables: Sequence[Any]) -> dict[int, list[tuple[Any, Array]]]:
    """Build the optimizer; (slot, its fresh value) of the variable's shape by `id(variable)`.

    Keras keeps no map from a variable to its slots; it makes each one through
    `add_variable_from_reference`, which is listened to while it builds.
    """
    slots: dict[int, list[tuple[Any, Array]]] = {id(v): [] for v in variables}
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    make = inner.add_variable_from_reference

    def listening(reference_variable: Any, *args: Any, **kwargs: Any) -> Any:
        slot = make(reference_variable, *args, **kwargs)
        found = slots.get(id(reference_variable))
        if found is not None and slot.shape == reference_variable.shape:
            found.append((slot, _least(np.asarray(slot.numpy()))))
        return slot

    # what is fresh enters the graph as a constant, which XLA keeps for as long as the process lives
    inner.add_variable_from_reference = listening
    try:
        optimizer.build(variables)
    finally:
        del inner.add_variable_from_reference
    return slots


def _least(array: Array) -> Array:
    """The array, as a scalar where all its entries have the same bits."""
    alike = array.size > 0 and bool((bits(array) == bits(array).flat[0]).all())
    return array.reshape(-1)[0].reshape(()) if alike else array
