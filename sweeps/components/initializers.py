"""The initial values of a network by seed, drawn without building the network for each trial."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any

import keras
import numpy as np

from masksweep.strategies.base import Array
from masksweep.strategies.core import keras_internals
from masksweep.strategies.core.audit import alike
from masksweep.strategies.core.weights import describe
from masksweep.sweeps.components.models import Model

Draw = Callable[[Sequence[int]], Array]
"""The seeds that Keras draws while it builds the network -> a variable's initial values."""
SEEDS = 256
"""Seeds among which those that a variable depends on are looked for."""


class Network:
    """One network: its model, which trials share, and the initial values of each seed.

    Building a Keras model takes as long as training a small one. Keras' layers ask `random` for the
    seeds of their initializers, in order; so once it is known which one went where, the values of
    another seed are drawn by the initializers alone. What they draw for the first seed is compared
    with what the layers got, bit for bit; a network of which it differs is built for every seed.
    """

    def __init__(self, model: Model, inputs: tuple[int, ...], outputs: int) -> None:
        self._make = partial(model.build, inputs, outputs)
        self.model = self.build(0)
        """Built; its values are nobody's."""
        self.weights = describe(self.model)
        self._draws = _draws(self.model, 0)

    def build(self, seed: int) -> Any:
        """A model of one's own, with the initial values of a seed."""
        keras.utils.set_random_seed(seed)
        return self._make()

    def initial(self, seed: int) -> tuple[dict[str, Array], list[Array]]:
        """The trainable weights by name, and the non-trainables, as `build` has them."""
        trainable = {id(v): w.name for w, v in
                     zip(self.weights, self.model.trainable_variables, strict=True)}  # fmt: skip
        if self._draws is None:
            model = self.build(seed)
            arrays = [np.asarray(v.numpy()) for v in model.variables]
        else:
            seeds = _seeds(seed)
            arrays = [draw(seeds) for draw in self._draws]
        found = dict(zip(map(id, self.model.variables), arrays, strict=True))
        weights = {name: found[i] for i, name in trainable.items()}
        return weights, [found[id(v)] for v in self.model.non_trainable_variables]


@lru_cache(maxsize=16)
def network(model: Model, inputs: tuple[int, ...], outputs: int) -> Network:
    """The process's one of this kind."""
    return Network(model, inputs, outputs)


def _seeds(seed: int) -> list[int]:
    """What Keras draws for objects that were given no seed, after `set_random_seed`."""
    drawn = random.Random(seed)
    return [drawn.randint(1, int(1e9)) for _ in range(SEEDS)]


def _draws(model: Any, seed: int) -> list[Draw] | None:
    """How each of the model's variables is drawn; None where one cannot be told."""
    seeds = _seeds(seed)
    owners = {id(v): layer for layer in _layers(model) for v in _own(layer)}
    found = []
    for variable in model.variables:
        value = np.asarray(variable.numpy())
        ways = _ways(owners.get(id(variable)), variable, seeds)
        draw = next((d for d in ways if _draws_to(d, seeds, value)), None)
        if draw is None:
            return None
        found.append(draw)
    return found


def _draws_to(draw: Draw, seeds: Sequence[int], value: Array) -> bool:
    try:
        return alike(draw(seeds), value)
    except ValueError:  # an initializer of kernels has nothing for a bias
        return False


def _layers(layer: Any) -> Iterator[Any]:
    yield layer
    for inner in keras_internals.inner_layers(layer):
        yield from _layers(inner)


def _own(layer: Any) -> list[Any]:
    """A layer's variables that are no inner layer's."""
    states = [s.state for s in vars(layer).values() if isinstance(s, keras.random.SeedGenerator)]
    return [*keras_internals.own_variables(layer), *states]


def _ways(layer: Any, variable: Any, seeds: Sequence[int]) -> Iterator[Draw]:
    """Ways in which the variable may have been drawn."""
    for part in vars(layer).values() if layer is not None else ():
        if isinstance(part, keras.random.SeedGenerator) and part.state is variable:
            first = int(part.state.numpy()[0])
            if first in seeds:
                yield partial(_state, seeds.index(first), str(variable.dtype))
        if isinstance(part, keras.Initializer):
            shape, dtype = tuple(variable.shape), str(variable.dtype)
            given = getattr(part, "seed", None)
            if given in seeds:
                yield partial(_drawn, part, seeds.index(given), shape, dtype)
            else:  # of no seed, or of one that the layer was given
                yield partial(_unseeded, part, shape, dtype)


def _state(which: int, dtype: str, seeds: Sequence[int]) -> Array:
    return np.array([seeds[which], 0], dtype)


def _drawn(
    initializer: Any, which: int, shape: tuple[int, ...], dtype: str, seeds: Sequence[int]
) -> Array:
    config = initializer.get_config() | {"seed": seeds[which]}
    return np.asarray(type(initializer).from_config(config)(shape, dtype=dtype))


def _unseeded(initializer: Any, shape: tuple[int, ...], dtype: str, seeds: Sequence[int]) -> Array:
    return np.asarray(initializer(shape, dtype=dtype))
