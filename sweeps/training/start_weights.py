"""The initial values of a trial: drawn from its seed, or taken from a file by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from masksweep.strategies.core.moving_statistics import statistics
from masksweep.strategies.core.selection import match_each
from masksweep.strategies.errors import Invalid
from masksweep.strategies.plan import Array
from masksweep.sweeps.common.seeding import derive_seed
from masksweep.sweeps.components import keras_loading
from masksweep.sweeps.config.sections import Start
from masksweep.sweeps.config.trial import Trial

if TYPE_CHECKING:
    from masksweep.sweeps.components.initializers import Network

Initial = tuple[dict[str, Array], list[Array]]
"""The trainable weights by name, and the non-trainable variables in the order of the model."""


def initial(trial: Trial, net: Network) -> Initial:
    """The values that a trial starts from.

    Args:
        trial: The trial.
        net: The trial's network.

    Raises:
        Invalid: The file of `start.path` does not fit the network.
    """
    return from_file(trial.start, net, net.initial(derive_seed(trial.seed, "weights")))


def from_file(start: Start, net: Network, drawn: Initial) -> Initial:
    """The values of the file of `start.path`, where the file has them, else the drawn values.

    Args:
        start: The settings; without a path, the drawn values are returned.
        net: The network.
        drawn: The values that are drawn from the seed.

    Raises:
        Invalid: The file cannot be loaded, or a weight does not fit. The message names the first
            weight that does not.
    """
    if start.path is None:
        return drawn
    weights, state = drawn
    stored = _read(start.path)
    places = {id(v): i for i, v in enumerate(net.model.non_trainable_variables)}
    named = {s.name: places[id(s.variable)] for s in statistics(net.model)}
    new = match_each("start.new", [*weights, *named], start.new)
    weights = {n: _taken(start.path, n, a, stored, n in new) for n, a in weights.items()}
    state = list(state)
    for name, i in named.items():
        state[i] = _taken(start.path, name, state[i], stored, name in new)
    return weights, state


def _read(path: str) -> Mapping[str, Array]:
    try:
        return keras_loading.read_weights(path, keras_loading.checked_state(path))
    except Invalid as error:
        raise Invalid(f"start.{error.key}", error.value, error.allowed) from error


def _taken(
    path: str, name: str, drawn: Array, stored: Mapping[str, Array], may_be_new: bool
) -> Array:
    """The values of one weight: those of the file, and drawn ones for outputs that it lacks."""
    found = stored.get(name)
    if found is None:
        if may_be_new:
            return drawn
        hint = f"; start.new=[{name}] draws it"
        raise Invalid("start.path", path, f"has no {name}, which the model has{hint}")
    same_rank = found.ndim == drawn.ndim and found.shape[:-1] == drawn.shape[:-1]
    grows = same_rank and found.shape[-1:] < drawn.shape[-1:]
    if found.shape != drawn.shape and not (grows and may_be_new):
        hint = f"; start.new=[{name}] draws the outputs that the file lacks" if grows else ""
        allowed = f"has {name} of shape {found.shape}, and the model needs {drawn.shape}{hint}"
        raise Invalid("start.path", path, allowed)
    if not np.isfinite(found.astype(np.float64)).all():
        raise Invalid("start.path", path, f"has numbers in {name} that are not finite")
    values = drawn.copy()
    values[tuple(slice(size) for size in found.shape)] = found
    return values
