"""One masked weight of a model in training, and what its strategy does with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from masksweep.strategies.binding import Binding, Slot
from masksweep.strategies.core import keras_internals, matrix_layers
from masksweep.strategies.core.compact import MaskBits, Zeros
from masksweep.strategies.core.drawing import draw_entries
from masksweep.strategies.core.weights import owners
from masksweep.strategies.errors import Invalid
from masksweep.strategies.plan import Array, Mask, MaskedWeight, Plan, variable_of

FreshSlots = Literal["none", "regrown", "all"]
"""Which entries of the slots start anew at a change of the mask: none, those that train again, or
all."""


def reset_slots(
    value: Any, slots: Sequence[tuple[Any, Array]], entries: Mask | None = None
) -> None:
    """Sets the slots of a trained variable to their initial values.

    Args:
        value: The variable.
        slots: Pairs (slot of the optimizer, its initial value).
        entries: The entries to set, in the shape of the variable; None sets all.
    """
    for slot, fresh in slots:
        # the initial value of the slot for EMA is the weight itself
        initial = tf.cast(value if slot.name.endswith("_average") else fresh, slot.dtype)
        initial = tf.broadcast_to(initial, slot.shape)
        slot.assign(initial if entries is None else tf.where(entries, initial, slot.value))


class HeldWeight:
    """The variables of one masked weight, and the functions of its strategy applied to them.

    Both a sweep's training and a masked Keras model hold their weights through this class. The
    audit uses `kept` (the mask) and `held` (the held values), both in the weight's shape. The
    strategy computes with `layout` and `rest`, which are `m` and `h` of its `Binding`.

    If the strategy stores kept values only (`Binding.places`), the mask is stored as bits, held
    values are not stored, and the model's own variable is released: its memory is freed.

    Args:
        masked: The weight with its mask and its held values.
        binding: The functions of the strategy.
        variable: The model's own variable. It is set to the start of the training if it trains
            itself.
        places: Number of values that train, if there may be more of them than kept entries; see
            `Binding.padded`.
    """

    def __init__(
        self, masked: MaskedWeight, binding: Binding, variable: Any, places: int | None = None
    ) -> None:
        layout, rest = binding.constants(masked, places)
        self.weight, self.binding, self.variable = masked.weight, binding, variable
        for_binding = masked.with_outputs_last() if binding.outputs_last else masked
        self._shape = for_binding.weight.shape
        """The weight's shape in the functions of the strategy."""
        self.kept_only = binding.places is not None and masked.holds_plus_zero
        """Whether neither the mask nor held values are stored in the weight's shape."""
        self.kept: Any
        self.held: Any
        if self.kept_only:
            shape, dtype = masked.weight.shape, masked.weight.dtype
            self.kept, self.held = MaskBits(masked.mask), Zeros(shape, dtype)
            self.layout, self.rest = _constant(layout, "layout"), tf.TensorSpec(self._shape, dtype)
        else:
            self.kept, self.held = _constant(masked.mask, "kept"), _constant(masked.held, "held")
            self.layout = self.kept if layout is masked.mask else _constant(layout, "layout")
            self.rest = self.held if rest is masked.held else _constant(rest, "rest")
        self.value = _trained_variable(variable, self._start(), binding.padded is not None)
        """The variable with the values that train; `variable` itself if there is one for each
        entry of the weight."""
        self.release()

    def _start(self) -> Any:
        """Returns the values that train from those of the model's own variable."""
        weight, variable = self.weight, self.variable
        if self.kept_only and not keras_internals.has_values(variable):
            initializer = keras_internals.initializer(variable)
            places = self.places()
            places = np.maximum(places, -1 - places)
            start = draw_entries(initializer, weight.shape, weight.dtype, places)
            keras_internals.make_released(variable)
            return tf.convert_to_tensor(start)
        keras_internals.draw(variable)
        return self.initial(tf.convert_to_tensor(variable.value))

    @property
    def _h(self) -> Any:
        """`h` of the strategy's `Binding`."""
        return self.rest if self.kept_only else self.rest.value

    def places(self) -> Array:
        """Returns the index in the flattened weight of each value, if only these are stored.

        For a value that is left over (see `Binding.padded`) it is `-1 - index` of a masked entry.
        """
        assert self.binding.places is not None
        return np.asarray(self.binding.places(self.layout.value, self._shape))

    def release(self) -> None:
        """Frees the memory of the model's own variable if its values are not needed."""
        if self.kept_only:
            keras_internals.release(self.variable)

    @property
    def is_rarely_read(self) -> bool:
        """Whether the weight is only made where a layer reads it: its product does not need it."""
        return self.kept_only and self.binding.matmul is not None

    @property
    def has_weight_order(self) -> bool:
        """Whether there is a value for each entry of the weight, in its shape."""
        return self.binding.padded is None and tuple(self.value.shape) == self.weight.shape

    def masked(self) -> MaskedWeight:
        """Returns the weight with its mask and its held values as they are now."""
        return MaskedWeight(self.weight, self.kept.numpy(), self.held.numpy())

    # -- the functions of the strategy -------------------------------------------------------

    def initial(self, weight: Any) -> Any:
        """Returns the values that train, from an array in the weight's shape."""
        return self.start(weight, self.layout.value, self._h)

    def start(self, weight: Any, layout: Any, rest: Any) -> Any:
        """Returns the values that train, for another mask or other held values.

        Args:
            weight: An array in the weight's shape.
            layout: The second of the results of `arrays`.
            rest: The fourth of them.
        """
        return self.binding.init(_reshaped(weight, self._shape), layout, rest)

    def substitute(self) -> Any:
        """Returns the weight that the forward pass uses."""
        weight = self.binding.substitute(self.value.value, self.layout.value, self._h)
        return _reshaped(weight, self.weight.shape)

    def effective(self) -> Any:
        """Returns the dense weight, which is audited and saved."""
        return self._dense(self.value.value, self._h)

    def _dense(self, values: Any, rest: Any) -> Any:
        weight = self.binding.dense(values, self.layout.value, rest)
        return _reshaped(weight, self.weight.shape)

    def gradient(self, gradient: Any) -> Any:
        """Returns the gradient that the optimizer gets. None stays None."""
        if gradient is None or self.binding.slices:
            return gradient
        return self.binding.gradients(tf.convert_to_tensor(gradient), self.layout.value)

    def outputs(self, outputs: Any) -> Any:
        """Returns the model's outputs as the loss gets them."""
        if not self.weight.output:
            return outputs
        return keras_internals.keep_mask(self.binding.outputs(outputs, self.layout.value), outputs)

    def layer_call(self, layer: Any) -> Callable[..., Any]:
        """Returns the new `call` of the layer that has this kernel, which uses `Binding.matmul`.

        Call this before the scope of the forward pass, in which variables have other values.
        """
        matmul = self.binding.matmul
        assert matmul is not None
        arrays = self.value.value, self.layout.value, self._h

        def call(inputs: Any, training: bool | None = None) -> Any:
            return matrix_layers.call(layer, inputs, lambda x: matmul(x, *arrays))

        return call

    def after_step(self, slots: Sequence[tuple[Any, Array]]) -> None:
        """Sets the trained values and their slots, after a step of the optimizer.

        Args:
            slots: Pairs (slot of the optimizer, its initial value).
        """
        function = self.binding.after_step
        if function is None:
            return
        assert not self.kept_only, "nothing of a masked entry is stored that a step could change"
        initial_slots = [initial for _, initial in slots]

        def assign(value: Any, layout: Any, rest: Any, *slots: Any) -> None:
            now = [
                Slot(tf.convert_to_tensor(slot), initial)
                for slot, initial in zip(slots, initial_slots, strict=True)
            ]
            new, new_slots = function(tf.convert_to_tensor(value), now, layout, rest)
            value.assign(new)
            for slot, array in zip(slots, new_slots, strict=True):
                slot.assign(array)

        variables = [self.value, self.layout, self.rest, *(slot for slot, _ in slots)]
        keras_internals.on_each_device(assign, variables)

    # -- other masks -------------------------------------------------------------------------

    def arrays(
        self, masked: MaskedWeight, places: int | None = None
    ) -> tuple[Array, Array, Array, Array]:
        """Returns (kept, layout, held, rest) for another mask or other held values of this weight.

        If there is one held value for all entries, but the variable has one for each entry, the
        value is repeated.

        Args:
            masked: The weight with the other mask.
            places: Number of values for which there are places; by default as many as there are.

        Raises:
            Invalid: (key `plan`) `layout` or `rest` does not have the shape of its variable.
        """
        places = int(np.prod(self.value.shape)) if places is None else places
        layout, rest = self.binding.constants(masked, places)
        if self.kept_only:
            expected = tuple(self.layout.shape), (*self._shape, 0)
            if (layout.shape, rest.shape) != expected:
                raise self._of_another_kind()
            return np.packbits(masked.mask), layout, masked.held, rest
        rest = rest if rest.shape else np.broadcast_to(rest, tuple(self.rest.shape))
        if (layout.shape, rest.shape) != (tuple(self.layout.shape), tuple(self.rest.shape)):
            raise self._of_another_kind()
        return masked.mask, layout, masked.held, rest

    def _of_another_kind(self) -> Invalid:
        allowed = "masks of other sizes, or held values of another kind, than at the start"
        return Invalid("plan", self.weight.name, allowed)

    def distinct(self, arrays: Sequence[Any]) -> list[Any]:
        """Returns one array of (kept, layout, held, rest) for each variable, without repetitions.

        `layout` may be the same variable as `kept`, and `rest` the same as `held`. If only kept
        values are stored, held values have no variable.
        """
        if self.kept_only:
            return list(arrays[:2])
        variables = self.kept, self.layout, self.held, self.rest
        return list({id(v): array for v, array in zip(variables, arrays, strict=True)}.values())

    def switch(
        self,
        arrays: Sequence[Array],
        slots: Sequence[tuple[Any, Array]],
        new: Any = None,
        fresh_slots: FreshSlots = "none",
    ) -> None:
        """Changes the mask and the held values during a training.

        Entries that are masked now get their held values. Entries that were masked before and train
        now start from their current values. If slots are of the kept values only, entries that were
        kept before keep theirs, and the others get initial values.

        Args:
            arrays: What the method `arrays` returned for the new mask.
            slots: Pairs (slot of the optimizer, its initial value).
            new: New values of the weight, in its dense shape; None keeps those that it has.
            fresh_slots: Which entries of the slots get their initial values.
        """
        shape, kept_before = self.weight.shape, self.kept.numpy()
        now = tf.identity(self.effective() if new is None else new)
        slots_now = []
        if not self.has_weight_order:
            for slot, fresh in slots:
                # the initial value of the slot for EMA is the weight itself
                fill = tf.fill(shape, fresh.flat[0] if fresh.size else 0.0)
                fill = now if slot.name.endswith("_average") else tf.cast(fill, now.dtype)
                is_new = fresh_slots == "all"
                value = fill if is_new else self.to_weight_shape(slot.value, fill)
                slots_now.append((slot, value, fill))
        self.assign(arrays)
        kept = self.kept.numpy()
        # what is masked has no part in `value`, or one in a place that is left over
        self.value.assign(self.initial(tf.where(kept, now, self.held.value)))
        for slot, value, fill in slots_now:
            slot.assign(self.initial(tf.where(kept & kept_before, value, fill)))
        if self.has_weight_order and fresh_slots != "none":
            regrown = None if fresh_slots == "all" else kept & ~kept_before
            reset_slots(self.value, slots, regrown)

    def to_weight_shape(self, values: Any, rest: Any) -> Any:
        """Returns an array in the weight's shape from one in the shape of the trained values.

        Args:
            values: An array in the shape of the values that train, such as a slot or a gradient.
            rest: An array in the weight's shape, whose values the masked entries get.
        """
        kept = self.binding.keep(np.asarray(rest).reshape(self._shape), self.layout.numpy())
        return self._dense(values, tf.convert_to_tensor(kept))

    @property
    def constants(self) -> list[Any]:
        """The variables of the mask and the held values, each once: two to four."""
        if self.kept_only:
            return [self.kept.variable, self.layout]
        return self.distinct((self.kept, self.layout, self.held, self.rest))

    def assign(self, arrays: Sequence[Array]) -> None:
        """Sets the variables to the arrays that the method `arrays` returned."""
        for variable, array in zip(self.constants, self.distinct(arrays), strict=True):
            variable.assign(array)


def with_new_calls(model: Any, weights: Iterable[HeldWeight]) -> list[tuple[HeldWeight, Any]]:
    """Returns the kernels whose strategy replaces the product of their layer, with the layers.

    Args:
        model: A built Keras model.
        weights: Masked weights of the model.
    """
    layers = dict(owners(model).values())
    return [
        (held, layers[held.weight.name])
        for held in weights
        if held.binding.matmul
        and held.weight.layer in held.binding.matmul_layers
        and variable_of(held.weight.name) == "kernel"
        and not held.weight.not_a_matrix
    ]


def _reshaped(array: Any, shape: tuple[int, ...]) -> Any:
    return array if tuple(array.shape) == shape else tf.reshape(array, shape)


def _constant(array: Array, name: str) -> Any:
    return keras.Variable(array, dtype=str(array.dtype), trainable=False, name=name)


def _trained_variable(variable: Any, start: Any, own_order: bool) -> Any:
    """Returns the variable for the values that train, set to their start.

    If these values have the shape and the order of the weight, this is the weight's own variable.
    Otherwise it is a new variable that an optimizer treats as the weight's own.

    Args:
        variable: The weight's own variable.
        start: Values at the start, a tensor of any shape.
        own_order: Whether the values have another order than the entries of the weight.
    """
    if start.shape == variable.shape and not own_order:
        variable.assign(start)
        return variable
    with ExitStack() as scopes:
        for part in variable.path.split("/")[:-1]:
            scopes.enter_context(keras.name_scope(part))
        new_variable = keras.Variable(start, dtype=variable.dtype, name=variable.name)
    new_variable.constraint = variable.constraint
    # optimizers identify variables by this, for example those without weight decay
    keras_internals.treat_as(new_variable, variable)
    return new_variable


def switch_all(
    entries: Iterable[tuple[str, Any, HeldWeight | None]],
    slots: Mapping[int, Sequence[tuple[Any, Array]]],
    plan: Plan,
    weights: Mapping[str, Array] | None = None,
    fresh_slots: FreshSlots = "none",
) -> None:
    """Changes the masks of a model during a training; see `HeldWeight.switch`.

    Args:
        entries: For each weight of the model: its name, the variable that trains, and how it is
            held (None if it is not masked).
        slots: Pairs (slot of the optimizer, its initial value), by the `id` of the variable.
        plan: The new masks and held values.
        weights: New values of weights by name, in their dense shapes.
        fresh_slots: Which entries of the slots get their initial values.

    Raises:
        Invalid: The plan's constants have other shapes than before. Nothing is changed then.
    """
    listed = list(entries)
    planned = {name: plan.find(name) for name, _, masked in listed if masked is not None}
    constants = {n: m.arrays(w) for n, _, m in listed if m and (w := planned[n])}
    for name, value, masked in listed:
        new = None if weights is None else weights.get(name)
        own_slots = slots.get(id(value), [])
        if masked is not None and name in constants:
            masked.switch(constants[name], own_slots, new, fresh_slots)
            continue
        if new is not None:
            value.assign(new)
        if fresh_slots == "all":
            reset_slots(value, own_slots)
