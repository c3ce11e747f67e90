"""Draws the initial weights of a network for any seed, without building the network again."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import keras
import numpy as np

from masksweep.strategies.core import keras_internals
from masksweep.strategies.core.audit import same_bits
from masksweep.strategies.core.weights import describe
from masksweep.strategies.plan import Array
from masksweep.sweeps.components.models import Model

Draw = Callable[[Sequence[int]], Array]
"""Takes the seeds that Keras draws while it builds a network, and returns a variable's values."""
SEARCHED_SEEDS = 256
"""How many of the seeds that Keras draws are searched for the one that an initializer got."""


class Network:
    """A Keras model that trials share, and its initial values for each seed.

    Building a Keras model takes as long as training a small one. While a model is built, its layers
    draw the seeds of their initializers from `random`, in order. Once it is known which seed each
    initializer got, the values for another trial seed are drawn by the initializers alone. This is
    verified bit for bit for trial seed 0. If the values differ, the model is built for every seed.

    Args:
        model: The model, from the config.
        inputs: Shape of one sample, or the shapes by the names of several inputs.
        outputs: Number of outputs, or the numbers by the names of several outputs.
        policy: Keras dtype policy of the model; None for the one that is set globally.
    """

    def __init__(self, model: Model, inputs: Any, outputs: Any, policy: str | None = None) -> None:
        self._make, self._policy = partial(model.build, inputs, outputs), policy
        self.model = self.build(0)
        """Shared between trials. Do not read its weights: they may belong to another trial."""
        self.weights = describe(self.model)
        # values of a file may by chance be those that the initializers draw for seed 0
        self._draws = _find_draws(self.model, 0) if model.drawn else None

    def build(self, seed: int) -> Any:
        """Builds a new Keras model with the initial values of a seed."""
        keras.utils.set_random_seed(seed)
        with _global_policy(self._policy):
            return self._make()

    def initial(self, seed: int) -> tuple[dict[str, Array], list[Array]]:
        """Returns the initial values for a seed, equal to those of `build`.

        Returns:
            The trainable weights by name, and the non-trainable weights in the order of the model.
        """
        trainable = {id(v): w.name for w, v in
                     zip(self.weights, self.model.trainable_variables, strict=True)}  # fmt: skip
        if self._draws is None:
            model = self.build(seed)
            arrays = [np.asarray(v.numpy()) for v in model.variables]
        else:
            seeds = _seeds(seed)
            arrays = [draw(seeds) for draw in self._draws]
        arrays_by_id = dict(zip(map(id, self.model.variables), arrays, strict=True))
        weights = {name: arrays_by_id[i] for i, name in trainable.items()}
        return weights, [arrays_by_id[id(v)] for v in self.model.non_trainable_variables]


@lru_cache(maxsize=16)
def network(model: Model, inputs: Any, outputs: Any, policy: str | None = None) -> Network:
    """Returns the `Network` of these arguments. The last 16 are cached."""
    return Network(model, inputs, outputs, policy)


@contextmanager
def _global_policy(policy: str | None) -> Iterator[None]:
    """Context in which new layers have this dtype policy; None changes nothing."""
    before = keras.config.dtype_policy()
    if policy is not None:
        keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _seeds(seed: int) -> list[int]:
    """Returns the seeds that Keras draws after `set_random_seed` for objects without a seed."""
    generator = random.Random(seed)
    return [generator.randint(1, int(1e9)) for _ in range(SEARCHED_SEEDS)]


def _find_draws(model: Any, seed: int) -> list[Draw] | None:
    """Finds out how each of the model's variables is drawn.

    Args:
        model: A model that was built with this seed.
        seed: The trial's seed.

    Returns:
        A function for each variable, or None if it is not found for one of them.
    """
    seeds = _seeds(seed)
    owners = {id(v): layer for layer in _layers(model) for v in _own_variables(layer)}
    draws = []
    for variable in model.variables:
        value = np.asarray(variable.numpy())
        candidates = _candidate_draws(owners.get(id(variable)), variable, seeds)
        draw = next((d for d in candidates if _reproduces(d, seeds, value)), None)
        if draw is None:
            return None
        draws.append(draw)
    return draws


def _reproduces(draw: Draw, seeds: Sequence[int], value: Array) -> bool:
    """Whether a function draws exactly this value."""
    try:
        return same_bits(draw(seeds), value)
    except ValueError:  # some initializers of kernels reject the shape of a bias
        return False


def _layers(layer: Any) -> Iterator[Any]:
    """Yields a layer and all layers within it."""
    yield layer
    for inner in keras_internals.inner_layers(layer):
        yield from _layers(inner)


def _own_variables(layer: Any) -> list[Any]:
    """Returns the variables of a layer without those of its inner layers."""
    states = [s.state for s in vars(layer).values() if isinstance(s, keras.random.SeedGenerator)]
    return [*keras_internals.own_variables(layer), *states]


def _candidate_draws(layer: Any, variable: Any, seeds: Sequence[int]) -> Iterator[Draw]:
    """Yields functions that may have drawn the variable."""
    for part in vars(layer).values() if layer is not None else ():
        if isinstance(part, keras.random.SeedGenerator) and part.state is variable:
            first = int(part.state.numpy()[0])
            if first in seeds:
                yield partial(_generator_state, seeds.index(first), str(variable.dtype))
        if isinstance(part, keras.Initializer):
            shape, dtype = tuple(variable.shape), str(variable.dtype)
            own_seed = getattr(part, "seed", None)
            if own_seed in seeds:
                yield partial(_draw_with_seed, part, seeds.index(own_seed), shape, dtype)
            else:  # the initializer has no seed, or a fixed one from the config
                yield partial(_draw_unseeded, part, shape, dtype)


def _generator_state(index: int, dtype: str, seeds: Sequence[int]) -> Array:
    """Returns the state of a `keras.random.SeedGenerator`, with the seed at this index."""
    return np.array([seeds[index], 0], dtype)


def _draw_with_seed(
    initializer: Any, index: int, shape: tuple[int, ...], dtype: str, seeds: Sequence[int]
) -> Array:
    """Draws values with a copy of the initializer that has the seed at this index."""
    config = initializer.get_config() | {"seed": seeds[index]}
    return np.asarray(type(initializer).from_config(config)(shape, dtype=dtype))


def _draw_unseeded(
    initializer: Any, shape: tuple[int, ...], dtype: str, seeds: Sequence[int]
) -> Array:
    """Returns the initializer's values, which do not depend on the seeds."""
    return np.asarray(initializer(shape, dtype=dtype))
