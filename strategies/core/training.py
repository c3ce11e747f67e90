"""The training step of all strategies."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any

import keras
import tensorflow as tf

from masksweep.strategies.core.forward import ForwardScope, require_listed
from masksweep.strategies.core.held_weight import HeldWeight
from masksweep.strategies.core.keras_internals import calling, not_trainable
from masksweep.strategies.core.training_state import TrainingState
from masksweep.strategies.errors import Invalid


class Training(TrainingState):
    """Trains a model under one strategy.

    The functions of the strategy's `Binding` are called in this order in a step: `substitute`, the
    forward pass, `outputs`, the loss, the gradients of the tape, `gradients`, the optimizer, the
    update of the non-trainable weights, `after_step`. With the `dense` strategy the step computes
    what `keras.Model.train_step` computes, bit for bit.

    The values that train are in the model's own variables, so the optimizer treats them as under
    `fit`. If a strategy trains an array of another shape (for example only the kept values), a new
    variable with the same name and path has these values, and the model's own variable does not
    change. A model must not be in two trainings at the same time.

    Args:
        model: A built Keras 3 model; its values are the start of the training.
        strategy: The strategy that holds the masked weights.
        plan: The masks and held values; the strategy must not refuse it.
        optimizer: A Keras optimizer that was not built yet. Under the dtype policy `mixed_float16`
            it is wrapped in a `keras.optimizers.LossScaleOptimizer`, as in `keras.Model.compile`.
        loss: A function `(targets, outputs) -> scalar`.
        trainable: Globs on weight names. Weights that no glob matches do not train.
        statistics: Globs on the names of the statistics that are updated. Statistics are
            non-trainable weights, such as the moving averages of BatchNormalization. By default a
            statistic is updated if its layer trains; see `frozen_statistics`. If no statistic of a
            layer is updated, the layer computes as with `layer.trainable = False`.

    Raises:
        Invalid: The strategy refuses the plan, a glob matches nothing, the optimizer was already
            built, or the model overrides `train_step` or `compute_loss`.

    Example:
        >>> import numpy as np
        >>> from masksweep.strategies.plan import MaskedWeight, Plan
        >>> from masksweep.strategies.core.weights import describe
        >>> from masksweep.strategies.weight_mask import WeightMask
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
        >>> kernel = describe(model)[0]
        >>> mask = np.array([[True], [False]])
        >>> plan = Plan((MaskedWeight(kernel, mask, np.zeros((2, 1), "float32")),))
        >>> sgd, mse = keras.optimizers.SGD(0.1), keras.losses.MeanSquaredError()
        >>> training = Training(model, WeightMask(), plan, optimizer=sgd, loss=mse)
        >>> loss, outputs = training.step(tf.ones((4, 2)), tf.ones((4, 1)))
        >>> float(training.effective()[0][1, 0])
        0.0
    """

    def forward(self, x: Any, *, training: bool) -> tuple[Any, Any, Any]:
        """Runs the model with the weights that the strategy substitutes. Changes no variable.

        Args:
            x: Inputs, `[batch, ...]`.
            training: The argument of the same name of the model's `call`.

        Returns:
            The outputs `[batch, ...]`, the new values of the non-trainable variables, and the
            losses that layers add (`add_loss`, regularizers).
        """
        scope = self._scope(None)
        outputs, losses = self._call(x, scope, training)
        return outputs, [scope.get_current_value(v) for v in self.state], losses

    def dense_gradients(self, x: Any, y: Any) -> dict[str, Any]:
        """Returns the gradients of the loss by the dense weights, masked entries included.

        The forward pass has the effective weights of all strategies, so they all get the same
        gradients. Changes no variable.

        Args:
            x: Inputs, `[batch, ...]`.
            y: Targets, as the loss takes them.

        Returns:
            Gradients by the name of each masked weight, in its shape; zeros where the loss does not
            depend on the weight.
        """
        weights = self.effective()
        masked = [a for w, a in zip(self.weights, weights, strict=True) if w.name in self.masked]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(masked)
            outputs, losses = self._call(x, self._scope(None, weights), True, replace_calls=False)
            loss = _total([self.loss(y, outputs), *losses])
        zeros = tf.UnconnectedGradients.ZERO
        gradients = tape.gradient(loss, masked, unconnected_gradients=zeros)
        names = [w.name for w in self.weights if w.name in self.masked]
        return {n: tf.convert_to_tensor(g) for n, g in zip(names, gradients, strict=True)}

    def _scope(self, tape: Any, weights: Sequence[Any] | None = None) -> ForwardScope:
        values, when_read = [(v, v.value) for v in self.state], {}
        if weights is not None:
            values += zip(self._variables, weights, strict=True)
            return ForwardScope(values, self._variables, tape, {})
        for variable, (value, masked) in zip(
            self._variables, self._values_with_masks(), strict=True
        ):
            if masked is not None and masked.is_rarely_read:
                when_read[id(variable)] = masked.substitute
            else:
                values.append((variable, masked.substitute() if masked else value.value))
        return ForwardScope(values, self._variables, tape, when_read)

    def _call(
        self, x: Any, scope: ForwardScope, training: bool, *, replace_calls: bool = True
    ) -> tuple[Any, Any]:
        """Returns (outputs, losses that layers add), computed by `Model.__call__` as in `fit`."""
        # `fit` too leaves the argument out if the model's `call` does not have it
        arguments = {"training": training} if "training" in self._parameters else {}
        new_calls = self._new_calls if replace_calls else []
        calls = {id(layer): held.layer_call(layer) for held, layer in new_calls}
        layers = [layer for _, layer in new_calls]
        with scope, calling(calls, layers), not_trainable(self._frozen_layers):
            outputs, losses = self.model(x, **arguments), self.model.losses
        scope.require_followed()
        return outputs, losses

    @cached_property
    def _parameters(self) -> Collection[str]:
        return inspect.signature(self.model.call).parameters.keys()

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def step(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Takes one training step on a batch. Call it inside a `tf.function`, which is faster.

        Args:
            x: Inputs, `[batch, ...]`.
            y: Targets, as the loss takes them.

        Returns:
            The loss before the step (a scalar), and the outputs `[batch, ...]`.
        """
        loss, outputs, scope, pairs = self._backward(x, y)
        for variable, new in scope.written():
            variable.assign(new)
        for variable in self.model.metrics_variables:  # metrics that belong to layers
            if scope.wrote(variable):
                variable.assign(scope.get_current_value(variable))
        self.optimizer.apply([g for g, _ in pairs], [v for _, v in pairs])
        frozen = {id(s.variable) for s in self.frozen}
        for variable in self.state:
            if id(variable) not in frozen:
                variable.assign(scope.get_current_value(variable))
        self._after_step()
        return loss, outputs

    def gradients(self, x: Any, y: Any) -> dict[str, Any]:
        """Returns the gradients that the optimizer would get for a batch. Changes no variable.

        Args:
            x: Inputs, `[batch, ...]`.
            y: Targets, as the loss takes them.

        Returns:
            Gradients by weight name, in the shapes of the trained values. Weights that do not
            train, or on which the loss does not depend, are left out.
        """
        names = {id(v): w.name for w, v in zip(self.weights, self.values, strict=True)}
        pairs = self._backward(x, y)[-1]
        return {names[id(v)]: tf.convert_to_tensor(g) for g, v in pairs if g is not None}

    def _backward(self, x: Any, y: Any) -> tuple[Any, Any, ForwardScope, list[tuple[Any, Any]]]:
        """Returns (loss, outputs, scope of the forward pass, [(gradient, variable)]).

        The gradients are those that the optimizer gets. A weight on which the loss does not depend
        has the gradient None; Keras' optimizers skip it.
        """
        variables = [v.value for v in self.trained]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            scope = self._scope(tape)
            outputs, losses = self._call(x, scope, training=True)
            self._check_written(scope)
            loss_inputs = outputs
            for masked in self.masked.values():
                loss_inputs = masked.outputs(loss_inputs)
            loss = _total([self.loss(y, loss_inputs), *losses])
            scaled = self.optimizer.scale_loss(loss)
        read_gradients, write_gradients = tape.gradient(
            scaled, [variables, [scope.writes(v) for v in self.trained]]
        )
        owners = {id(v): m for v, m in self._values_with_masks() if m}
        pairs = [
            (_optimizer_gradient(_sum([read, *written]), owners.get(id(v))), v)
            for read, written, v in zip(read_gradients, write_gradients, self.trained, strict=True)
        ]
        return loss, outputs, scope, pairs

    def _check_written(self, scope: ForwardScope) -> None:
        """Checks the variables that layers wrote to in the forward pass.

        Raises:
            Invalid: A layer wrote to a masked weight, to a weight that does not train, or to a
                variable that the model does not list.
        """
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


def _optimizer_gradient(gradient: Any, masked: HeldWeight | None) -> Any:
    return gradient if masked is None else masked.gradient(gradient)


def _total(losses: Sequence[Any]) -> Any:
    """Returns the sum of the loss and the losses of layers, as `keras.Model.compute_loss` does."""
    loss, *extra = losses
    if not extra:
        return loss
    floating = [
        term if tf.as_dtype(term.dtype).is_floating else keras.ops.cast(term, keras.config.floatx())
        for term in extra
    ]
    return keras.ops.sum([loss, *(keras.ops.sum(term) for term in floating)])


def _sum(gradients: Sequence[Any]) -> Any:
    """Returns the sum of the gradients that are not None; None if all are."""
    present = [g for g in gradients if g is not None]
    if len(present) < 2:
        return present[0] if present else None
    return tf.add_n([tf.convert_to_tensor(g) for g in present])
