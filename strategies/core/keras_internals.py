"""What is used of Keras' private parts, in one place: another version may have them otherwise.

`tests/strategies/core/test_keras_internals.py` tries each of them, so that it says what a new
version of Keras has changed. It may import nothing of Masksweep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

DECAY = "_apply_weight_decay"
"""The method of an optimizer that applies weight decay: `(variables)`."""
UPDATE = "_backend_update_step"
"""The method of an optimizer that updates variables: `(gradients, variables, learning rate)`."""
AVERAGE = "_overwrite_model_variables_with_average_value"
"""The method of an optimizer that writes averages to the weights: `(variables)`."""


# -- layers ----------------------------------------------------------------------------------


def inner_layers(layer: Any) -> list[Any]:
    """The layers that a layer, or a model, has among its attributes."""
    return list(layer._layers)


def all_layers(model: Any) -> list[Any]:
    """A model, and the layers within it at any depth."""
    return list(model._flatten_layers())


def own_variables(layer: Any) -> list[Any]:
    """A layer's variables that are no inner layer's, whichever of them are frozen now.

    `layer.trainable_variables` depends on what is frozen.
    """
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def own_weights(layer: Any) -> list[Any]:
    """Those of `own_variables` that train unless they are frozen."""
    return list(layer._trainable_variables)


def source(tensor: Any) -> Any:
    """The layer that a symbolic tensor comes from."""
    return tensor._keras_history.operation


def applications(layer: Any) -> int:
    """How many times a layer is applied in the graph of its model."""
    return len(layer._inbound_nodes)


def rematerialized(layer: Any) -> bool:
    """Whether Keras calls the layer again in the backward pass (`keras.RematScope`)."""
    return bool(getattr(layer, "_remat_mode", None))


@contextmanager
def not_trainable(layers: Sequence[Any]) -> Iterator[None]:
    """Let layers see their own `layer.trainable` as False for a while.

    Setting `layer.trainable` would set their variables and inner layers too.
    """
    before = [layer._trainable for layer in layers]
    for layer in layers:
        layer._trainable = False
    try:
        yield
    finally:
        for layer, trainable in zip(layers, before, strict=True):
            layer._trainable = trainable


@contextmanager
def calling(calls: Mapping[int, Callable[..., Any]], layers: Sequence[Any]) -> Iterator[None]:
    """Let layers compute otherwise for a while.

    Args:
        calls: `(inputs, training=None) -> outputs` by the layers' `id`, in place of `layer.call`.
        layers: The layers. They stay the model's own: a clone would lose the statistics of a
            Normalization, or the functions of a Lambda.
    """
    for layer in layers:
        # past Keras' own __setattr__, which would track it
        object.__setattr__(layer, "call", calls[id(layer)])
    try:
        yield
    finally:
        for layer in layers:
            object.__delattr__(layer, "call")


# -- variables and optimizers ----------------------------------------------------------------


def pass_for(variable: Any, original: Any) -> None:
    """Let optimizers take a variable for another one, such as one left out of weight decay."""
    variable.value._unique_id = original.value._unique_id


def without_replicas(optimizer: type) -> type:
    """A class of optimizers that sums its gradients over no replicas.

    `tf.distribute` sums them by a custom gradient. TensorFlow keeps custom gradients for the life
    of the process, each with its graph and the variables of that.
    """
    methods = {"_all_reduce_sum_gradients": lambda self, pairs: pairs}
    return type(optimizer.__name__, (optimizer,), methods)


def stateless(optimizer: type) -> type:
    """A class of optimizers that works within a `keras.StatelessScope`.

    On TensorFlow Keras updates through `tf.distribute`, which takes nothing but `tf.Variable`s.
    This class updates as Keras does on its other backends, by the same arithmetic.
    """
    bases = {c.__name__: c for c in optimizer.__mro__}
    backend, common = bases["TFOptimizer"], vars(bases["BaseOptimizer"])
    again = {n: common[n] for n in vars(backend) if n in common and not n.startswith("__")}
    # between the optimizer's own methods and those of its base
    return type(optimizer.__name__, (optimizer, type("Stateless", (backend,), again)), {})
