"""Building a model whose weights get their values later, when it is masked."""

from __future__ import annotations

from contextlib import AbstractContextManager

from masksweep.strategies.core import keras_internals


def deferred_weights() -> AbstractContextManager[None]:
    """Returns a context in which models are built whose weights have no values yet.

    `apply` draws the values of one weight after the other, and frees what its strategy does not
    store. So a model whose dense weights do not fit in memory can be built for `sparse_tensor`. The
    values have the bits that they would have without this context.

    A model that is built in it cannot be called or saved until it was given to `apply`. Weights
    that are made from arrays, such as those of a vocabulary, cannot be made in it.

    Example:
        >>> import keras
        >>> from masksweep import strategies
        >>> with strategies.deferred_weights():
        ...     layers = [keras.layers.Dense(16, "relu", name="hidden"), keras.layers.Dense(1)]
        ...     model = keras.Sequential([keras.Input((8,)), *layers])
        >>> masked = strategies.apply(model, strategies.Random(0.75), "sparse_tensor")
        >>> masked.trainable_variables[0].shape
        TensorShape([32])
    """
    context: AbstractContextManager[None] = keras_internals.without_values()
    return context
