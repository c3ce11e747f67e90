"""All uses of private attributes and methods of Keras, which a new version may change.

`tests/strategies/core/test_keras_internals.py` tests each of them, so its failures show what a new
version of Keras has changed. This module may not import other modules of Masksweep.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

DECAY = "_apply_weight_decay"
"""Name of the optimizer's method that applies weight decay. Its argument is `(variables)`."""
UPDATE = "_backend_update_step"
"""Name of the optimizer's method that updates variables, by `(gradients, variables, rate)`."""
AVERAGE = "_overwrite_model_variables_with_average_value"
"""Name of the optimizer's method that replaces weights by their averages. Its argument is
`(variables)`."""


# -- layers ----------------------------------------------------------------------------------


def inner_layers(layer: Any) -> list[Any]:
    """Returns the layers that are attributes of a layer or model."""
    return list(layer._layers)


def all_layers(model: Any) -> list[Any]:
    """Returns the model itself and all layers inside it, at any depth."""
    return list(model._flatten_layers())


def own_variables(layer: Any) -> list[Any]:
    """Returns the variables of a layer without those of its inner layers.

    The result does not depend on `layer.trainable`, unlike `layer.trainable_variables`.
    """
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def own_weights(layer: Any) -> list[Any]:
    """Returns the variables of `own_variables` that train unless they are frozen."""
    return list(layer._trainable_variables)


def source(tensor: Any) -> Any:
    """Returns the layer whose output a symbolic tensor is."""
    return tensor._keras_history.operation


def functional(model: Any) -> Any:
    """Returns the Functional model that a Sequential one consists of; other models as they are."""
    return getattr(model, "_functional", None) or model


def applications(layer: Any) -> int:
    """Returns how many times a layer is applied in the graph of its model."""
    return len(layer._inbound_nodes)


def rematerialized(layer: Any) -> bool:
    """Returns whether Keras calls the layer again in the backward pass (`keras.RematScope`)."""
    return bool(getattr(layer, "_remat_mode", None))


def own_metrics(layer: Any) -> list[Any]:
    """Returns the metrics that are attributes of a layer or model."""
    return list(layer._metrics)


@contextmanager
def not_trainable(layers: Sequence[Any]) -> Iterator[None]:
    """Sets `trainable` of these layers to False inside a `with` block.

    Variables and inner layers are not changed, unlike when `layer.trainable` is assigned.
    """
    before = [layer._trainable for layer in layers]
    for layer in layers:
        layer._trainable = False
    try:
        yield
    finally:
        for layer, trainable in zip(layers, before, strict=True):
            layer._trainable = trainable


class _Dispatcher:
    """The `call` of a layer, which another call may replace in one thread."""

    active = threading.local()
    """In `calls`: the calls that are replaced now in this thread, by the layer's `id`."""

    def __init__(self, layer: Any) -> None:
        self._key, self._call = id(layer), layer.call
        functools.update_wrapper(self, layer.call)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.active, "calls", {}).get(self._key, self._call)(*args, **kwargs)


def own_call(layer: Any) -> Callable[..., Any]:
    """Returns the `call` of a layer, also inside a `calling` block that replaces it."""
    call: Callable[..., Any] = layer.call
    return call._call if isinstance(call, _Dispatcher) else call


@contextmanager
def calling(calls: Mapping[int, Callable[..., Any]], layers: Sequence[Any]) -> Iterator[None]:
    """Replaces the `call` of layers inside a `with` block, in this thread only.

    The layers of the model itself are changed. A clone of the model would lose the statistics of a
    Normalization, or the function of a Lambda.

    Args:
        calls: The new `call` by the layer's `id`: `(inputs, training=None) -> outputs`.
        layers: The layers.
    """
    for layer in layers:
        if not isinstance(layer.call, _Dispatcher):
            # Keras' own __setattr__ would track the attribute
            object.__setattr__(layer, "call", _Dispatcher(layer))
    before = getattr(_Dispatcher.active, "calls", {})
    _Dispatcher.active.calls = {**before, **calls}
    try:
        yield
    finally:
        _Dispatcher.active.calls = before


def inside_a_call() -> bool:
    """Returns whether Keras is now in the call of a layer or model."""
    from keras.src.backend.common import global_state

    context = global_state.get_global_attribute("current_call_ctx")
    return context is not None and context.entry_layer is not None


def keep_mask(tensor: Any, source: Any) -> Any:
    """Returns a tensor with the Keras mask of another one, which losses and metrics look at."""
    from keras.src.backend.common.masking import get_keras_mask, set_keras_mask

    mask = get_keras_mask(source)
    if mask is not None:
        set_keras_mask(tensor, mask)
    return tensor


# -- variables and optimizers ----------------------------------------------------------------


def stored_value(variable: Any) -> Any:
    """Returns the `tf.Variable` behind a variable, whatever scope is active."""
    return variable._value


def assign_directly(variable: Any, value: Any) -> None:
    """Assigns to a variable, whatever scope is active."""
    variable._direct_assign(value)


def without_values() -> Any:
    """Returns a context in which layers make variables that have no values yet; see `draw`."""
    import keras

    return keras.StatelessScope(initialize_variables=False)


def has_values(variable: Any) -> bool:
    """Returns whether a variable has values, or was made in `without_values`."""
    return variable._value is not None


def initializer(variable: Any) -> Any:
    """Returns the function `(shape, dtype) -> values` of a variable that has no values yet."""
    return variable._initializer


def numpy_dtype(variable: Any) -> Any:
    """Returns the NumPy dtype of a variable, whatever scope is active."""
    import tensorflow as tf

    return tf.as_dtype(variable._dtype).as_numpy_dtype


def draw(variable: Any) -> None:
    """Gives a variable its initial values, if it was made in `without_values`."""
    if variable._value is None:
        variable._deferred_initialize()
        _is_initialized(variable)


def make_released(variable: Any) -> None:
    """Makes a variable of `without_values` released: see `release`."""
    import tensorflow as tf
    from tensorflow.python.ops.resource_variable_ops import UninitializedVariable

    with tf.init_scope():
        variable._value = UninitializedVariable(
            shape=variable._shape, dtype=variable._dtype, trainable=variable.trainable,
            name=variable.name,
        )  # fmt: skip
        variable._initializer = None
        _is_initialized(variable)
        release(variable)


def _is_initialized(variable: Any) -> None:
    """Removes a variable from those that Keras initializes at the end of a `StatelessScope`."""
    from keras.src.backend.common import global_state

    name = "uninitialized_variables"
    others = [v for v in global_state.get_global_attribute(name, []) if v is not variable]
    global_state.set_global_attribute(name, others)


class _Released:
    """A variable without values, until an array of its shape is assigned to it."""

    def assign(self, value: Any) -> Any:
        """Sets the values. An array of shape `[0]`, which a file has for it, changes nothing."""
        import tensorflow as tf
        from keras.src.backend.common.stateless_scope import in_stateless_scope

        if in_stateless_scope():
            return super().assign(value)  # type: ignore[misc]
        value = self._convert_to_tensor(value, dtype=self._dtype)  # type: ignore[attr-defined]
        if value.shape == (0,):
            return value
        if value.shape != self.shape:  # type: ignore[attr-defined]
            return super().assign(value)  # type: ignore[misc]  # raises
        self.__class__ = type(self).__bases__[1]
        handle = self._value.handle  # type: ignore[attr-defined]
        tf.raw_ops.AssignVariableOp(resource=handle, value=value, validate_shape=False)
        return value


@functools.cache
def _released_class(kind: type) -> type:
    return type(kind.__name__, (_Released, kind), {})


def release(variable: Any) -> None:
    """Frees the memory of a variable that nothing reads.

    The variable keeps its shape and dtype. It has an array of shape `[0]` as its value, so that
    whatever computes with it fails. It has values again when an array of its shape is assigned.
    A variable with copies on several devices is left as it is.
    """
    import tensorflow as tf

    if isinstance(variable, _Released) or hasattr(variable._value, "values"):
        return
    nothing = tf.zeros([0], variable._value.dtype)
    handle = variable._value.handle
    tf.raw_ops.AssignVariableOp(resource=handle, value=nothing, validate_shape=False)
    kind: Any = type(variable)
    variable.__class__ = _released_class(kind)


def is_released(variable: Any) -> bool:
    """Returns whether the memory of a variable is freed, so that it has no values."""
    return isinstance(variable, _Released)


def trained_by(optimizer: Any) -> list[Any]:
    """Returns the variables that an optimizer was built for."""
    return list(optimizer._trainable_variables)


def is_average(slot: Any) -> bool:
    """Returns whether an optimizer's slot is the average of the weight itself (EMA)."""
    return bool(slot.name.endswith("_average"))


def track(optimizer: Any, variable: Any) -> None:
    """Adds a variable to those of an optimizer, so that it is saved and restored with them."""
    optimizer._track_variable(variable)


def on_each_device(function: Callable[..., None], variables: Sequence[Any]) -> None:
    """Calls a function that assigns to variables, on each device that has a copy of them.

    Args:
        function: Gets the variables as arguments. Under a `tf.distribute` strategy it is called for
            each replica, with the replica's copies.
        variables: Keras variables. The copies of the first one tell which devices there are.
    """
    import tensorflow as tf

    if not tf.distribute.has_strategy():
        function(*variables)
        return
    first, *others = (v.value for v in variables)

    def update(strategy: Any) -> None:
        strategy.extended.update(first, function, args=others, group=False)

    if tf.distribute.in_cross_replica_context():
        update(tf.distribute.get_strategy())
    else:
        merge = tf.__internal__.distribute.interim.maybe_merge_call
        merge(update, tf.distribute.get_strategy())


def set_takes_training(model: Any, takes_training: bool) -> None:
    """Sets whether Keras' own training and evaluation give the argument `training` to a model.

    Without it, the layers of the model go by their defaults, whatever the step.
    """
    model._call_has_training_arg = takes_training


def treat_as(variable: Any, original: Any) -> None:
    """Makes optimizers treat `variable` as `original`, for example in the list of variables
    without weight decay.
    """
    # the variable of several replicas has the identity of its first copy
    first_copy = getattr(variable.value, "_primary", variable.value)
    first_copy._unique_id = original.value._unique_id


def without_replicas(optimizer: type) -> type:
    """Returns a subclass of an optimizer that does not sum gradients over replicas.

    `tf.distribute` sums them with a custom gradient. TensorFlow keeps each custom gradient for the
    life of the process, with its graph and the variables of that graph.
    """
    methods = {"_all_reduce_sum_gradients": lambda self, pairs: pairs}
    return type(optimizer.__name__, (optimizer,), methods)


def stateless(optimizer: type) -> type:
    """Returns a subclass of an optimizer that works inside a `keras.StatelessScope`.

    With the TensorFlow backend, Keras updates variables through `tf.distribute`, which accepts only
    a `tf.Variable`. The subclass updates as Keras does with its other backends, which gives the
    same values.
    """
    bases = {c.__name__: c for c in optimizer.__mro__}
    backend, common = bases["TFOptimizer"], vars(bases["BaseOptimizer"])
    again = {n: common[n] for n in vars(backend) if n in common and not n.startswith("__")}
    # its methods come after those of the optimizer and before those of the optimizer's base
    return type(optimizer.__name__, (optimizer, type("Stateless", (backend,), again)), {})
