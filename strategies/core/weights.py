"""A Keras model's weights by name: what they are, and which of them a plan masks."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from masksweep.strategies.base import (
    Array,
    Mask,
    MaskedWeight,
    Plan,
    Weight,
    target_names,
    variable_of,
)
from masksweep.strategies.core import keras_internals

ELEMENTWISE = [
    "linear", "relu", "relu6", "leaky_relu", "sigmoid", "hard_sigmoid", "log_sigmoid", "tanh",
    "hard_tanh", "elu", "celu", "selu", "gelu", "silu", "hard_silu", "softplus", "softsign",
    "mish", "exponential",
]  # fmt: skip
"""Activations whose every output depends on one input; a softmax, say, mixes them."""


AUTOMATIC = re.compile(r"variable(_\d+)?")
"""What Keras calls a variable that was given no name. Its number counts all such variables of the
process, so a reloaded model has another one."""


def unique_names(names: Iterable[str]) -> list[str]:
    """The names, where a repeated one gets a number: `a`, `a#1`, `a#2`.

    Example:
        >>> unique_names(["own/w", "own/w", "own/bias"])
        ['own/w', 'own/w#1', 'own/bias']
    """
    unique: dict[str, None] = {}
    for name in names:
        repeats = (f"{name}#{i}" for i in itertools.count(1))
        unique[next(n for n in itertools.chain([name], repeats) if n not in unique)] = None
    return list(unique)


def _own_variables(layer: Any, prefix: str, seen: set[int]) -> list[tuple[str, Any, Any]]:
    """(name, variable, layer) of a layer and the layers inside of it; names may repeat."""
    if id(layer) in seen:
        return []
    seen.add(id(layer))
    variables = []
    for variable in keras_internals.own_variables(layer):
        name = "variable" if AUTOMATIC.fullmatch(variable.name) else variable.name
        variables.append((f"{prefix}{name}", variable, layer))
    for inner in keras_internals.inner_layers(layer):
        variables += _own_variables(inner, f"{prefix}{inner.name}/", seen)
    return variables


def owners(model: Any) -> dict[int, tuple[str, Any]]:
    """(name, layer) of each variable that a layer of the model owns, by the variable's `id`."""
    first: dict[int, tuple[str, Any]] = {}
    for name, variable, layer in _own_variables(model, "", set()):
        first.setdefault(id(variable), (name, layer))  # one variable may belong to two layers
    names = unique_names(name for name, _ in first.values())
    return {
        key: (name, layer) for name, (key, (_, layer)) in zip(names, first.items(), strict=True)
    }


def _shared(model: Any) -> set[int]:
    """The `id` of each variable that more than one layer may use, as tied weights are.

    Another layer may have the variable itself among its attributes, or the layer that owns it.
    """
    users: dict[int, set[int]] = {}
    parents: dict[int, set[int]] = {}
    layers = {id(layer): layer for layer in keras_internals.all_layers(model)}
    for key, layer in layers.items():
        for part in keras_internals.inner_layers(layer):
            parents.setdefault(id(part), set()).add(key)
    for key, layer in layers.items():
        for variable in [*vars(layer).values(), *keras_internals.own_weights(layer)]:
            users.setdefault(id(variable), set()).add(key)
            containers = parents.get(key, set())
            if len(containers) > 1:  # a layer that two others contain is used by both
                users[id(variable)] |= containers
    return {variable for variable, layers_of in users.items() if len(layers_of) > 1}


def describe(model: Any) -> list[Weight]:
    """The trainable weights of a built Keras model, in the order of `model.trainable_variables`.

    Names are `layer/variable` (outer layers in front where layers are nested); they survive saving
    and reloading, which `variable.path` does not. Where a name repeats, the second of its variables
    is `layer/variable#1`, in the order in which layers add their variables.
    """
    named, shared = owners(model), _shared(model)
    outputs = getattr(model, "outputs", None) or []
    last = keras_internals.source(outputs[0]) if len(outputs) == 1 else None
    if last is not None and keras_internals.applications(last) > 1:
        last = None  # applied twice, so one unit's weights reach other outputs too
    weights = []
    for variable in model.trainable_variables:
        name, layer = named[id(variable)]
        mixed = _mixed(layer) if layer is last else ""
        weights.append(
            Weight(
                name=name,
                shape=tuple(variable.shape),
                dtype=str(variable.dtype),
                layer=type(layer).__name__,
                output=layer is last and not mixed,
                mixed=mixed,
                regularized=variable.regularizer is not None,
                constrained=variable.constraint is not None,
                shared=id(variable) in shared,
            )
        )
    return weights


def _mixed(layer: Any) -> str:
    """Why an entry of the last axis does not act on one output alone; empty if it does."""
    if type(layer).__name__ != "Dense":
        return f"the output layer is a {type(layer).__name__}, whose weights act on many outputs"
    activation = getattr(getattr(layer, "activation", None), "__name__", "other")
    if activation in ELEMENTWISE:
        return ""
    return f"the output layer's activation ({activation}) mixes its outputs; put it into the loss"


def dense_layers(model: Any, names: Sequence[str]) -> dict[str, Any]:
    """The Dense layers whose kernels have these names, by the kernels' names."""
    owner_of = owners(model)
    pairs = [owner_of[id(v)] for v in model.trainable_variables]
    return {
        name: layer
        for name, layer in pairs
        if name in names and variable_of(name) == "kernel" and type(layer).__name__ == "Dense"
    }


MaskMaker = Callable[[Mapping[str, tuple[int, ...]], int], Mapping[str, Mask]]
"""(shapes by name, seed) -> masks by name; every pattern's `masks` is one."""
HeldMaker = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""initial weights by name -> held values by name."""


def make_plan(
    weights: Sequence[Weight],
    initial: Mapping[str, Array],
    *,
    masks: MaskMaker,
    held: HeldMaker,
    targets: Sequence[str] | None = None,
    outputs_held: Sequence[int] = (),
    seed: int = 0,
) -> Plan:
    """The plan for a model: masks for the targeted weights, and what their entries must equal.

    `initial` has the weights' values before training. Raises `Invalid` when nothing is targeted or
    a mask or held value does not fit.
    """
    chosen = target_names(weights, targets)
    by_name = {w.name: w for w in weights}
    made = masks({name: by_name[name].shape for name in chosen}, seed)
    kept = held({name: initial[name] for name in chosen})
    return Plan(
        tuple(
            MaskedWeight(by_name[n], made[n], kept[n].astype(by_name[n].dtype, copy=False))
            for n in chosen
        ),
        tuple(outputs_held),
    )


def values(model: Any) -> dict[str, Array]:
    """The trainable weights' values by name."""
    return {
        w.name: np.asarray(v.numpy())
        for w, v in zip(describe(model), model.trainable_variables, strict=True)
    }
