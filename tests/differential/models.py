"""Models of several forms (sequential, functional, ...) around a layer of a given kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from .layer_kinds import Kind

BATCH = 4


class Plain(keras.Model):  # type: ignore[misc]
    """A subclassed model whose `call` has no argument `training`."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.kind = kind
        self.before = None if kind.integers else layers.Dense(kind.shape[-1])
        self.layer, self.drop = kind.make(), layers.Dropout(0.2)
        self.flat, self.head = layers.Flatten(), layers.Dense(3)

    def call(self, x: Any) -> Any:
        y = self.kind.call(self.layer, self.before(x) if self.before else x)
        return self.head(self.drop(self.flat(y)))


class Switched(Plain):
    """A subclassed model whose `call` passes `training` to its layers."""

    def call(self, x: Any, training: bool = False) -> Any:
        y = self.kind.call(self.layer, self.before(x) if self.before else x)
        return self.head(self.drop(self.flat(y), training=training))


def _input(kind: Kind, shape: tuple[int, ...] | None = None) -> Any:
    # the batch size is fixed, because a layer with a state from batch to batch needs to know it
    dtype = "int32" if kind.integers else None
    return keras.Input(shape or kind.shape, batch_size=BATCH, dtype=dtype)


def _begin(kind: Kind) -> tuple[Any, Any]:
    start = _input(kind)
    return start, start if kind.integers else layers.Dense(kind.shape[-1], name="before")(start)


def _end(y: Any) -> Any:
    return layers.Dense(3, name="head")(layers.Flatten()(y))


def functional(kind: Kind) -> Any:
    start, y = _begin(kind)
    return keras.Model(start, _end(kind.call(kind.make(), y)))


def nested(kind: Kind) -> Any:
    """Returns a model with the layer inside a model, which is inside a sequential model."""
    start, y = _begin(kind)
    inner = _input(kind, y.shape[1:])
    body = keras.Model(inner, kind.call(kind.make(), inner), name="body")
    outer = keras.Sequential([_input(kind, y.shape[1:]), body], name="outer")
    return keras.Model(start, _end(outer(y)))


def shared(kind: Kind) -> Any:
    """Returns a model that applies the layer twice."""
    start, y = _begin(kind)
    layer = kind.make()
    return keras.Model(start, _end(layers.Add()([kind.call(layer, y), kind.call(layer, y)])))


def sequential(kind: Kind) -> Any:
    start = [] if kind.integers else [layers.Dense(kind.shape[-1])]
    return keras.Sequential(
        [_input(kind), *start, kind.make(), layers.Flatten(), layers.Dropout(0.2), layers.Dense(3)]
    )


class Beside(layers.Layer):  # type: ignore[misc]
    """Layers of several kinds with the same input, side by side."""

    def __init__(self, kinds: Sequence[Kind]) -> None:
        super().__init__(name="beside")
        self.kinds = kinds
        self.parts = [kind.make() for kind in kinds]
        self.flats = [layers.Flatten() for _ in kinds]
        self.joined = layers.Concatenate()
        for kind, part in zip(kinds, self.parts, strict=True):
            # build here, not in a graph: the tensors that Normalization makes could not be used
            # outside of that graph
            dtype = "int32" if kind.integers else None
            kind.call(part, keras.ops.zeros((BATCH, *kind.shape), dtype))

    def call(self, x: Any) -> Any:
        outputs = [k.call(part, x) for k, part in zip(self.kinds, self.parts, strict=True)]
        return self.joined([flat(y) for flat, y in zip(self.flats, outputs, strict=True)])


def beside(kinds: Sequence[Kind]) -> Kind:
    """Returns several kinds as one kind, whose layer is `Beside`."""
    return Kind(lambda: Beside(kinds), kinds[0].shape, integers=kinds[0].integers)


FORMS: dict[str, Callable[[Kind], Any]] = {
    "sequential": sequential,
    "functional": functional,
    "subclassed": Plain,
    "subclassed, training": Switched,
    "nested": nested,
    "shared": shared,
}


def data(kind: Kind, dtype: str, steps: int, seed: int = 0) -> tuple[Any, Any]:
    """Returns random inputs `[steps, BATCH, *shape]` and targets `[steps, BATCH, 3]`."""
    generator = np.random.default_rng(seed)
    shape = (steps, BATCH, *kind.shape)
    x = generator.integers(0, 4, shape) if kind.integers else generator.uniform(0, 1, shape)
    y = generator.normal(size=(steps, BATCH, 3))
    return x.astype("int32" if kind.integers else dtype), y.astype(dtype)


def make(build: Callable[[], Any], x: Any, policy: str) -> Any:
    """Returns a built model, always with the same initial values.

    Args:
        build: Makes the model.
        x: A batch of inputs, to build the model with.
        policy: Keras dtype policy of the model.
    """
    # without a search of all objects for garbage, which takes longer than a model
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(7)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = build()
        if isinstance(model, Switched):
            model(x, training=True)  # RandomCrop crops only in training
        else:
            model(x)
        return model
    finally:
        keras.config.set_dtype_policy(before)
