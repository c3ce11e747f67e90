"""Holds the masked weights of one model, in its forward pass and in its optimizer."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from masksweep.strategies.base import Strategy
from masksweep.strategies.core import keras_internals
from masksweep.strategies.core.forward import require_plain_calls
from masksweep.strategies.core.held_weight import HeldWeight, with_new_calls
from masksweep.strategies.core.memory import return_freed_memory
from masksweep.strategies.core.optimizer import Slots, recording_slots, require_usable
from masksweep.strategies.core.substitution import DenseSubstitution, Substitution
from masksweep.strategies.core.weights import all_weights, describe
from masksweep.strategies.errors import Invalid
from masksweep.strategies.keras_model.kernel_layers import kernel_layers, require_masked_kernels
from masksweep.strategies.plan import Array, Plan

NOT_IN_CHECKPOINT = (
    "tf.train.Checkpoint cannot save this model; use save, ModelCheckpoint or BackupAndRestore"
)


class Holding:
    """The masked weights of one model.

    Args:
        model: A built Keras model.
        strategies: The strategy of each masked weight, by the weight's name.
    """

    def __init__(self, model: Any, strategies: Mapping[str, Strategy]) -> None:
        self.strategies = dict(strategies)
        """The strategy of each masked weight, by name; what it chooses by the mask is set by
        `hold`, such as the format of `sparse_tensor`."""
        self.weights: list[HeldWeight] = []
        """The masked weights, in the model's order; empty until `hold` is called."""
        self.start: dict[str, Array] = {}
        """The masked weights before the training, by name: dense, or `[kept]` if no more is
        stored of them."""
        self._model = model
        self._new_calls: list[tuple[HeldWeight, Any]] = []
        """The kernels whose strategy replaces the product of their layer, with these layers."""
        self._kernel_layers: list[tuple[str, Any]] = []
        """The layers that compute with a masked kernel, and the kernel's name."""
        self._replica = threading.local()  # tf.distribute runs each replica in a thread
        self._optimizers: list[Any] = []
        self.slots: Slots = {}
        """By the `id` of each trained variable: pairs (optimizer slot, its initial value)."""

    def hold(self, plan: Plan, places: Mapping[str, int]) -> None:
        """Holds the weights of a plan from now on.

        Args:
            plan: The masks and held values of the weights in `strategies`.
            places: By name, the number of values that train, if there may be more of them than
                kept entries; see `Binding.padded`.

        Raises:
            Invalid: A strategy refuses its weights, or a layer is rematerialized.
        """
        model = self._model
        self.require_accepted(plan)
        require_plain_calls(model, plan)
        every = all_weights(model)
        variables = {w.name: v for w, v in zip(describe(model, every), every, strict=True)}
        for masked in plan.weights:
            name = masked.weight.name
            # the strategy that is chosen, because the order of the stored values depends on it
            strategy = self.strategies[name] = self.strategies[name].for_weight(masked)
            held = HeldWeight(masked, strategy.bind(), variables[name], places.get(name))
            self.weights.append(held)
        self.note_start()
        for variable in model.variables:
            keras_internals.draw(variable)
        self._new_calls = with_new_calls(model, self.weights)
        self._kernel_layers = kernel_layers(model, self.weights)
        if any(held.kept_only for held in self.weights):
            return_freed_memory()

    def note_start(self) -> None:
        """Takes the masked weights as they are now for those before the training."""
        for held in self.weights:
            now = held.value.numpy() if held.kept_only else held.effective()
            self.start[held.weight.name] = np.asarray(now)

    @contextmanager
    def keeping_start(self) -> Iterator[None]:
        """Keeps `start` in the order of the values, if masks change inside a `with` block.

        Where an entry was masked, nothing is known of its start: it is +0.0, as all that is not
        stored.
        """
        before = [(held, held.places()) for held in self.weights if held.kept_only]
        yield
        for held, old in before:
            new, start = held.places(), self.start[held.weight.name]
            order = np.argsort(old)
            position = np.searchsorted(old, new, sorter=order)
            nearest = order[np.minimum(position, len(old) - 1)]
            reordered = start[nearest]
            reordered[old[nearest] != new] = 0
            self.start[held.weight.name] = reordered

    @contextmanager
    def dense_variables(self) -> Iterator[None]:
        """Gives the model's own variables, inside a `with` block, values that are not stored."""
        not_stored = [held for held in self.weights if held.kept_only]
        for held in not_stored:
            held.variable.assign(held.effective())
        try:
            yield
        finally:
            for held in not_stored:
                held.release()

    def require_accepted(self, plan: Plan) -> None:
        """Checks that the strategies can hold a plan.

        Raises:
            Invalid: One of them cannot.
        """
        for strategy in dict.fromkeys(self.strategies.values()):
            weights = tuple(w for w in plan.weights if self.strategies[w.weight.name] == strategy)
            if reason := strategy.refuses(Plan(weights)):
                raise Invalid("strategy", strategy.name, reason)
            if self._model.distribute_strategy.num_replicas_in_sync > 1 and strategy.bind().slices:
                # optimizers of Keras then square both gradients of a row, not their sum
                allowed = "not with several replicas, whose sparse gradients are not added"
                raise Invalid("strategy", strategy.name, allowed)

    def checkpointed(self) -> dict[str, Any]:
        """Returns the variables that no layer has, for `tf.train.Checkpoint`, by unique names.

        Raises:
            Invalid: A strategy stores kept values only, so that the model's own variables are
                empty.
        """
        by_name = {}
        for held in self.weights:
            if held.kept_only:
                name = self.strategies[held.weight.name].name
                raise Invalid("strategy", name, NOT_IN_CHECKPOINT)
            own = [] if held.value is held.variable else [held.value]
            for number, variable in enumerate([*held.constants, *own]):
                by_name[f"masked/{held.weight.name}/{number}"] = variable.value
        return by_name

    # -- the forward pass --------------------------------------------------------------------

    def require_masked_kernels(self) -> None:
        """Checks that no layer got LoRA or was quantized. Raises `Invalid` if one was."""
        require_masked_kernels(self._kernel_layers)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the model with the weights that the strategies substitute.

        Returns:
            The outputs of the model, as the loss gets them.

        Raises:
            Invalid: A layer writes to a masked weight, got LoRA or was quantized, or there are no
                masks yet.
        """
        if not self.weights:
            allowed = "has no masks: it is a copy, or was made from a config; use apply, or load it"
            raise Invalid("model", self._model.name, allowed)
        self.require_masked_kernels()
        calls = {id(layer): held.layer_call(layer) for held, layer in self._new_calls}
        scope = Substitution(self.weights)
        with scope, keras_internals.calling(calls, [layer for _, layer in self._new_calls]):
            outputs = self._model(*args, **kwargs)
        scope.require_unwritten()
        self._replica.losses = scope.losses
        for held in self.weights:
            outputs = held.outputs(outputs)
        return outputs

    @contextmanager
    def dense_values(self, values: Sequence[Any]) -> Iterator[None]:
        """Replaces the masked weights, inside a `with` block, for passes beside the training.

        Args:
            values: The dense values of all masked weights, as tensors.
        """
        with DenseSubstitution(self.weights, values):
            self._replica.has_dense_values = True
            try:
                yield
            finally:
                self._replica.has_dense_values = False

    def losses(self) -> list[Any]:
        """Returns the losses that layers add, computed with the substituted weights."""
        if getattr(self._replica, "has_dense_values", False):
            return list(self._model.losses)
        with Substitution(self.weights, getattr(self._replica, "losses", ())):
            return list(self._model.losses)

    def trained(self, variables: Sequence[Any]) -> list[Any]:
        """Returns variables of the model, with those that train in the place of masked weights."""
        values = {id(held.variable): held.value for held in self.weights}
        for held in self.weights:
            held.value.trainable = held.variable.trainable
        return [values.get(id(v), v) for v in variables]

    # -- the optimizer -----------------------------------------------------------------------

    def wrapper_of(self, optimizer: Any) -> Any:
        """Returns the optimizer, or the LossScaleOptimizer around it that is attached already."""
        for attached in self._optimizers:
            if getattr(attached, "inner_optimizer", None) is optimizer:
                return attached
        return optimizer

    def holds_with(self, optimizer: Any) -> bool:
        """Returns whether an optimizer is attached."""
        return any(attached is optimizer for attached in self._optimizers)

    @property
    def attached(self) -> bool:
        """Whether any optimizer is attached."""
        return bool(self._optimizers)

    def require_attachable(self, optimizer: Any) -> None:
        """Checks that an optimizer can be attached, or is attached already.

        Raises:
            Invalid: The optimizer was already built, or cannot be used.
        """
        if not self.holds_with(optimizer):
            require_usable(optimizer)

    def attach(self, optimizer: Any) -> None:
        """Makes an optimizer hold the masked weights in each of its steps.

        The methods `build`, `apply` and `finalize_variable_values` of this object are replaced. An
        optimizer holds the weights that it was built for.

        Raises:
            Invalid: The optimizer was already built, or cannot be used.
        """
        if self.holds_with(optimizer):
            return
        require_usable(optimizer)
        build, apply = optimizer.build, optimizer.apply
        finalize = optimizer.finalize_variable_values
        slots: Slots = {}

        def after_step() -> None:
            for held in self.weights:
                if id(held.value) in slots:
                    held.after_step(slots[id(held.value)])

        def build_and_record(variables: Sequence[Any]) -> None:
            with recording_slots(optimizer, variables) as recorded:
                build(variables)
            slots.update(recorded)
            self.slots.update(recorded)

        def apply_and_hold(grads: Any, trainable_variables: Any = None) -> Any:
            variables = trainable_variables
            if variables is None:
                variables = keras_internals.trained_by(optimizer)
            elif not optimizer.built:
                with tf.init_scope():  # the initial values of slots are read
                    optimizer.build(list(variables))
            owners = {id(held.value): held for held in self.weights}
            masked_grads = [
                owners[id(v)].gradient(g) if id(v) in owners else g
                for g, v in zip(grads, variables, strict=True)
            ]
            result = apply(masked_grads, trainable_variables)
            after_step()
            return result

        def finalize_and_hold(variables: Any) -> None:
            finalize(variables)
            after_step()

        optimizer.build, optimizer.apply = build_and_record, apply_and_hold
        optimizer.finalize_variable_values = finalize_and_hold
        self._optimizers.append(optimizer)
