"""The one training step, and the only code that assigns to variables."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from masksweep.strategies.base import Array, Invalid, Plan, Slot, Strategy, match_each
from masksweep.strategies.core.forward import Forward, require_listed, require_plain_calls
from masksweep.strategies.core.keras_internals import calling, not_trainable
from masksweep.strategies.core.mask_variables import Masked, holder
from masksweep.strategies.core.moving_statistics import frozen_statistics, layers_at_rest
from masksweep.strategies.core.optimizer import (
    build,
    require_usable,
    with_loss_scaling,
)
from masksweep.strategies.core.weights import dense_layers, describe


class Training:
    """A model that trains under one strategy.

    One step is: substitute -> forward -> outputs -> loss -> tape -> gradients -> optimizer ->
    non-trainables -> after_step. With the `dense` strategy that is what `keras.Model.train_step`
    does, to the bit.

    The model's own variables hold the values that train, so that whatever an optimizer keeps by
    variable, name or path is what it is under `fit`. Where a strategy trains an array of another
    shape (the kept values only), a variable of the same name and path takes its place, and the
    model's own is not touched. A model must be in one training at a time.

    Args:
        model: A built Keras 3 model; its values are the start of the training.
        strategy: How the masked weights are held.
        plan: Which they are; the strategy must not refuse it.
        optimizer: A Keras optimizer that was not built yet. Under the policy `mixed_float16` it is
            wrapped in a `keras.optimizers.LossScaleOptimizer`, as `keras.Model.compile` does.
        loss: `(targets, outputs) -> scalar`.
        trainable: Globs on weight names; the others stay as they are (a plain `var_list`).
        statistics: Globs on the names of the statistics (non-trainable weights, as those of
            BatchNormalization) that are updated; by default those that `trainable` matches. A layer
            none of whose statistics is updated computes as with `layer.trainable = False`.

    Raises:
        Invalid: The strategy refuses the plan, a glob matches nothing, the optimizer was built for
            other variables, or the model has a training step of its own.
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
        self.binding = binding = strategy.bind()
        masked_names = [w.weight.name for w in plan.weights]
        self._dense = dense_layers(model, masked_names) if binding.dense_call else {}
        """The Dense layers that compute otherwise, by the names of their kernels."""
        names = [w.name for w in self.weights]
        trains = set(match_each("trainable", names, trainable))
        self.frozen = frozen_statistics(model, trainable, statistics)
        """The statistics that must not change."""
        self._resting = layers_at_rest(model, self.frozen)

        # nothing of the model or the optimizer is changed before here
        self.optimizer = with_loss_scaling(optimizer, model)
        self._variables = list(model.trainable_variables)
        """The model's own, in the order of `weights`."""
        self.masked: dict[str, Masked] = {}
        self.values: list[Any] = []
        """The variables that train, in the order of `weights`."""
        for weight, variable in zip(self.weights, self._variables, strict=True):
            if masked_weight := plan.find(weight.name):
                masked = Masked(masked_weight, binding)
                self.masked[weight.name] = masked
                start = tf.convert_to_tensor(variable.value)
                start = binding.init(start, masked.layout.value, masked.rest.value)
                self.values.append(holder(variable, start))
            else:
                self.values.append(variable)
        self.state = list(model.non_trainable_variables)
        self.trained = [
            v for w, v in zip(self.weights, self.values, strict=True) if w.name in trains
        ]
        self.slots = build(self.optimizer, self.trained)
        """The optimizer's slots of each trained value, by its `id`, each with its fresh value."""
        self._fresh = [np.asarray(v.numpy()) for v in self.optimizer.variables]

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
            arrays = masked.arrays(found, self.binding)
            _, layout, _, rest = arrays
            values[name] = np.asarray(self.binding.init(weights[name], layout, rest))
            fixed[name] = masked.distinct(arrays)
        trained = [values[w.name] for w in self.weights]
        return [*trained, *self._fresh, *state, *(a for n in self.masked for a in fixed[n])]

    def put(self, arrays: Sequence[Array]) -> None:
        """Set all that makes a training, as `start`. Nothing is compiled again."""
        for variable, array in zip(self.all_variables, arrays, strict=True):
            variable.assign(array)

    def put_first(self, arrays: Sequence[Array]) -> None:
        """Set the first of `all_variables`; the others stay as they are."""
        for variable, array in zip(self.all_variables, arrays, strict=False):
            variable.assign(array)

    def switch(self, plan: Plan) -> None:
        """Go on under other masks, from the effective weights as they are now.

        What is masked now is set to the plan's held values, what is freed goes on from its own. The
        optimizer keeps its slots; where they are of the kept values only, those of entries that
        were kept before go along, and those of freed ones are fresh. Raises `Invalid`, with nothing
        changed, if the strategy refuses the plan, or its constants differ in shape.
        """
        if reason := self.strategy.refuses(plan):
            raise Invalid("strategy", self.strategy.name, reason)
        pairs = [(m, f) for name, m in self.masked.items() if (f := plan.find(name))]
        constants = {id(m): m.arrays(found, self.binding) for m, found in pairs}
        for weight, (value, masked) in zip(self.weights, self._pairs(), strict=True):
            if masked is None or id(masked) not in constants:
                continue
            now = tf.identity(
                self.binding.dense(value.value, masked.layout.value, masked.rest.value)
            )
            moved = [(value, now)]
            if tuple(value.shape) != weight.shape:
                for slot, fresh in self.slots.get(id(value), []):
                    # the average that EMA keeps starts from the weight itself
                    rest = tf.fill(weight.shape, fresh.flat[0] if fresh.size else 0.0)
                    rest = now if slot.name.endswith("_average") else tf.cast(rest, now.dtype)
                    moved.append((slot, self.spread(slot.value, masked, rest)))
            masked.assign(constants[id(masked)])
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
        scope = self._scope(None)
        outputs, losses = self._call(x, scope, training)
        return outputs, [scope.get_current_value(v) for v in self.state], losses

    def _scope(self, tape: Any) -> Forward:
        weights = [
            self.binding.substitute(v.value, m.layout.value, m.rest.value) if m else v.value
            for v, m in self._pairs()
        ]
        state = [(v, v.value) for v in self.state]
        return Forward([*zip(self._variables, weights, strict=True), *state], self._variables, tape)

    def _call(self, x: Any, scope: Forward, training: bool) -> tuple[Any, Any]:
        """(outputs, extra losses) as `fit` computes them: through `Model.__call__`."""
        # a model whose `call` has no such argument is called without it by `fit`, too
        given = {"training": training} if "training" in self._parameters else {}
        calls = self._dense_calls()  # before the scope, in which variables have other values
        with scope, calling(calls, list(self._dense.values())), not_trainable(self._resting):
            outputs, losses = self.model(x, **given), self.model.losses
        scope.require_followed()
        return outputs, losses

    def _dense_calls(self) -> dict[int, Callable[..., Any]]:
        """What the layers in `_dense` compute with the weights as they are now, by `id`."""
        values = {w.name: v for w, v in zip(self.weights, self.values, strict=True)}

        def of(name: str, layer: Any) -> Callable[..., Any]:
            masked, dense_call = self.masked[name], self.binding.dense_call
            assert dense_call is not None
            arrays = values[name].value, masked.layout.value, masked.rest.value
            return lambda inputs, training=None: dense_call(layer, inputs, *arrays)

        return {id(layer): of(name, layer) for name, layer in self._dense.items()}

    @cached_property
    def _parameters(self) -> Collection[str]:
        return inspect.signature(self.model.call).parameters.keys()

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def step(self, x: Any, y: Any) -> tuple[Any, Any]:
        """One training step on a batch; (loss, outputs `[batch, ...]`). Call it in a graph."""
        loss, outputs, scope, pairs = self._backward(x, y)
        for variable, new in scope.written():
            variable.assign(new)
        for variable in self.model.metrics_variables:  # of metrics that layers keep by themselves
            if scope.wrote(variable):
                variable.assign(scope.get_current_value(variable))
        self.optimizer.apply([g for g, _ in pairs], [v for _, v in pairs])
        still = {id(s.variable) for s in self.frozen}
        for variable in self.state:
            if id(variable) not in still:
                variable.assign(scope.get_current_value(variable))
        self._after_step()
        return loss, outputs

    def gradients(self, x: Any, y: Any) -> dict[str, Any]:
        """What the optimizer gets for a batch now, by weight name, in the trained values' shapes.

        Trains nothing. Weights that do not train, or that the loss does not reach, are left out.
        """
        names = {id(v): w.name for w, v in zip(self.weights, self.values, strict=True)}
        pairs = self._backward(x, y)[-1]
        return {names[id(v)]: tf.convert_to_tensor(g) for g, v in pairs if g is not None}

    def _backward(self, x: Any, y: Any) -> tuple[Any, Any, Forward, list[tuple[Any, Any]]]:
        """(loss, outputs, the forward pass, [(gradient for the optimizer, variable)]).

        A weight that the loss does not reach has None, which Keras' optimizers pass over.
        """
        variables = [v.value for v in self.trained]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            scope = self._scope(tape)
            outputs, losses = self._call(x, scope, training=True)
            self._check_written(scope)
            seen = outputs
            for weight in self.weights:
                if weight.output and (masked := self.masked.get(weight.name)):
                    seen = self.binding.outputs(seen, masked.layout.value)
            loss = _total([self.loss(y, seen), *losses])
            scaled = self.optimizer.scale_loss(loss)
        read, written = tape.gradient(scaled, [variables, [scope.writes(v) for v in self.trained]])
        owners = {id(v): m for v, m in self._pairs() if m}
        pairs = [
            (self._handed(_sum([first, *later]), owners.get(id(v))), v)
            for first, later, v in zip(read, written, self.trained, strict=True)
        ]
        return loss, outputs, scope, pairs

    def _check_written(self, scope: Forward) -> None:
        """Raise `Invalid` where a layer writes to what is held, or would not be saved."""
        require_listed(scope.unlisted, self.model)
        trained = {id(v) for v in self.trained}
        for weight, variable, value in zip(self.weights, self._variables, self.values, strict=True):
            if not scope.writes(variable):
                continue
            if weight.name in self.masked:
                allowed = f"its layer writes to {weight.name} in the forward pass; do not mask it"
                raise Invalid("model", weight.layer, allowed)
            if id(value) not in trained:
                allowed = f"must match {weight.name}, to which its layer writes in the forward pass"
                raise Invalid("trainable", weight.layer, allowed)

    def _handed(self, gradient: Any, masked: Masked | None) -> Any:
        if gradient is None or masked is None or self.binding.slices:
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
            if masked is None or id(value) not in self.slots:
                continue
            slots = self.slots[id(value)]
            new, cleared = self.binding.after_step(
                value.value,
                [Slot(slot.value, fresh) for slot, fresh in slots],
                masked.layout.value,
                masked.rest.value,
            )
            value.assign(new)
            for (slot, _), array in zip(slots, cleared, strict=True):
                slot.assign(array)


def _total(losses: Sequence[Any]) -> Any:
    """The loss and what `add_loss` and regularizers add, as `keras.Model.compute_loss` sums it."""
    loss, *extra = losses
    if not extra:
        return loss
    floating = [
        each if tf.as_dtype(each.dtype).is_floating else keras.ops.cast(each, keras.config.floatx())
        for each in extra
    ]
    return keras.ops.sum([loss, *(keras.ops.sum(each) for each in floating)])


def _sum(gradients: Sequence[Any]) -> Any:
    """The sum of those that are there; None without any."""
    there = [g for g in gradients if g is not None]
    if len(there) < 2:
        return there[0] if there else None
    return tf.add_n([tf.convert_to_tensor(g) for g in there])
