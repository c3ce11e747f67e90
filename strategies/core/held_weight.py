"""One masked weight of a model in training, and what its strategy does with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from masksweep.strategies.binding import Binding, Slot
from masksweep.strategies.core import keras_internals, matrix_layers
from masksweep.strategies.core.compact import MaskBits, Zeros
from masksweep.strategies.core.drawing import draw_entries
from masksweep.strategies.core.weights import owners
from masksweep.strategies.errors import Invalid
from masksweep.strategies.plan import Array, MaskedWeight, variable_of


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
        return np.asarray(self._places_graph(self.layout.value, self._shape))

    @cached_property
    def _places_graph(self) -> Callable[..., Any]:
        """`Binding.places` as a graph, which frees each tensor as soon as it was used."""
        graph: Callable[..., Any] = tf.function(self.binding.places, autograph=False)
        return graph

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
        if self._shape != self.weight.shape:
            weight = tf.reshape(weight, self._shape)
        return self.binding.init(weight, layout, rest)

    def substitute(self) -> Any:
        """Returns the weight that the forward pass uses."""
        weight = self.binding.substitute(self.value.value, self.layout.value, self._h)
        return self._in_weight_shape(weight)

    def effective(self) -> Any:
        """Returns the dense weight, which is audited and saved."""
        return self._dense(self.value.value, self._h)

    def _dense(self, values: Any, rest: Any) -> Any:
        return self._in_weight_shape(self.binding.dense(values, self.layout.value, rest))

    def _in_weight_shape(self, weight: Any) -> Any:
        if self._shape == self.weight.shape:
            return weight
        return tf.reshape(weight, self.weight.shape)

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

        The optimizer's average of the weight (EMA) gets the held values too, because Keras may put
        it in the place of the weight: for a validation, a checkpoint or at the end.

        Args:
            slots: Pairs (slot of the optimizer, its initial value).
        """
        function = self.binding.after_step
        if function is None:
            return
        assert not self.kept_only, "nothing of a masked entry is stored that a step could change"
        initial_slots = [initial for _, initial in slots]
        is_average = [
            self.has_weight_order and keras_internals.is_average(slot) for slot, _ in slots
        ]

        def assign(value: Any, layout: Any, rest: Any, kept: Any, held: Any, *slots: Any) -> None:
            now = [
                Slot(tf.convert_to_tensor(slot), initial)
                for slot, initial in zip(slots, initial_slots, strict=True)
            ]
            new, new_slots = function(tf.convert_to_tensor(value), now, layout, rest)
            value.assign(new)
            for slot, array, averages in zip(slots, new_slots, is_average, strict=True):
                slot.assign(tf.where(kept, array, tf.cast(held, slot.dtype)) if averages else array)

        constants = self.layout, self.rest, self.kept, self.held
        variables = [self.value, *constants, *(slot for slot, _ in slots)]
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
