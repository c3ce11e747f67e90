"""Describes the weights of a Keras model by name, and makes plans for them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from masksweep.strategies.core import keras_internals
from masksweep.strategies.core.matrix_layers import input_axes, not_a_matrix
from masksweep.strategies.core.selection import target_names
from masksweep.strategies.core.weight_name import WeightName, stable, stable_layer_names
from masksweep.strategies.plan import Array, Mask, MaskedWeight, Plan, Weight, variable_of

ELEMENTWISE = [
    "linear", "relu", "relu6", "leaky_relu", "sigmoid", "hard_sigmoid", "log_sigmoid", "tanh",
    "hard_tanh", "elu", "celu", "selu", "gelu", "silu", "hard_silu", "softplus", "softsign",
    "mish", "exponential",
]  # fmt: skip
"""Activations whose outputs depend on one input each. A softmax is not one of them."""


AUTOMATIC_NAME = re.compile(r"variable(_\d+)?")
"""The name that Keras gives to a variable without a name. Its number counts all such variables of
the process, so the variable has another number when the model is loaded again."""


def unique_names(names: Iterable[str]) -> list[str]:
    """Returns the names with a number at each repeated name: `a`, `a#1`, `a#2`.

    Example:
        >>> unique_names(["own/w", "own/w", "own/bias"])
        ['own/w', 'own/w#1', 'own/bias']
    """
    unique: dict[str, None] = {}
    for name in names:
        repeats = (f"{name}#{i}" for i in itertools.count(1))
        unique[next(n for n in itertools.chain([name], repeats) if n not in unique)] = None
    return list(unique)


def _own_variables(
    layer: Any, prefix: str, stable_prefix: str, seen: set[int]
) -> list[tuple[WeightName, Any, Any]]:
    """Returns (name, variable, layer) for a layer and all layers inside it. Names may repeat."""
    if id(layer) in seen:
        return []
    seen.add(id(layer))
    variables = []
    for variable in keras_internals.own_variables(layer):
        name = "variable" if AUTOMATIC_NAME.fullmatch(variable.name) else variable.name
        own_name = WeightName(f"{prefix}{name}", f"{stable_prefix}{name}")
        variables.append((own_name, variable, layer))
    inner_layers = list(keras_internals.inner_layers(layer))
    for inner, stable_name in zip(inner_layers, stable_layer_names(inner_layers), strict=True):
        prefixes = f"{prefix}{inner.name}/", f"{stable_prefix}{stable_name}/"
        variables += _own_variables(inner, *prefixes, seen)
    return variables


def owners(model: Any) -> dict[int, tuple[str, Any]]:
    """Returns (name, layer) of each variable of a model's layers, by the variable's `id`."""
    first: dict[int, tuple[str, Any]] = {}
    for name, variable, layer in _own_variables(model, "", "", set()):
        first.setdefault(id(variable), (name, layer))  # one variable may belong to two layers
    names = unique_names(name for name, _ in first.values())
    stable_names = unique_names(stable(name) for name, _ in first.values())
    return {
        key: (str(name) if name == stable_name else WeightName(name, stable_name), layer)
        for (key, (_, layer)), name, stable_name in zip(
            first.items(), names, stable_names, strict=True
        )
    }


def _shared(model: Any) -> set[int]:
    """Returns the `id` of each variable that more than one layer may use (tied weights).

    Another layer may have the variable as an attribute, or the layer that owns it.
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
            if len(containers) > 1:  # both other layers use this layer
                users[id(variable)] |= containers
    return {variable for variable, layers_of in users.items() if len(layers_of) > 1}


def all_weights(model: Any) -> list[Any]:
    """Returns the variables that train, and those that would if their layers were not frozen."""
    own = {
        id(v)
        for layer in keras_internals.all_layers(model)
        for v in keras_internals.own_weights(layer)
    }
    return [v for v in model.weights if id(v) in own]


def describe(model: Any, variables: Sequence[Any] | None = None) -> list[Weight]:
    """Describes the trainable weights of a built Keras model.

    A name is `layer/variable`, with the names of outer layers in front if layers are nested. If a
    name repeats, the second variable is `layer/variable#1`, in the order in which layers add their
    variables. Random masks depend on the names. Where Keras has numbered layers that have no name
    of their own, they depend on the numbers within the model instead, see `WeightName`.

    Args:
        model: A built Keras model.
        variables: The variables to describe, such as those of `all_weights`; by default
            `model.trainable_variables`.

    Returns:
        One entry for each weight, in the order of the variables.

    Example:
        >>> import keras
        >>> layer = keras.layers.Dense(3, name="hidden")
        >>> [w.name for w in describe(keras.Sequential([keras.Input((2,)), layer]))]
        ['hidden/kernel', 'hidden/bias']
    """
    named, shared = owners(model), _shared(model)
    outputs = getattr(model, "outputs", None) or []
    last_layers = {keras_internals.source(y).name for y in outputs} if len(outputs) > 1 else set()
    last = keras_internals.source(outputs[0]) if len(outputs) == 1 else None
    if last is not None and keras_internals.applications(last) > 1:
        last = None  # applied twice, so the weights of a unit act on other outputs too
    weights = []
    for variable in model.trainable_variables if variables is None else variables:
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
                makes_output=name.split("/")[0] in last_layers,
                not_a_matrix=not_a_matrix(layer),
                input_axes=input_axes(layer) if variable_of(name) == "kernel" else None,
            )
        )
    return weights


def _mixed(layer: Any) -> str:
    """Returns why an entry of the last axis acts on more than one output; empty if it does not."""
    if type(layer).__name__ != "Dense":
        return f"the output layer is a {type(layer).__name__}, whose weights act on many outputs"
    activation = getattr(getattr(layer, "activation", None), "__name__", "other")
    if activation in ELEMENTWISE:
        return ""
    return f"the output layer's activation ({activation}) mixes its outputs; put it into the loss"


MaskMaker = Callable[[Mapping[str, Array], int], Mapping[str, Mask]]
"""A function (initial weights by name, seed) -> masks by name, such as `Pattern.from_weights`."""
HeldMaker = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""A function (initial weights by name) -> held values by name, such as `Held.values`."""


def make_plan(
    weights: Sequence[Weight],
    initial: Mapping[str, Array],
    *,
    masks: MaskMaker,
    held: HeldMaker,
    targets: Sequence[str] | str | None = None,
    outputs_held: Sequence[int] = (),
    seed: int = 0,
) -> Plan:
    """Makes the plan for a model.

    Args:
        weights: The model's weights, from `describe`.
        initial: The weights' values before training, by name.
        masks: Makes the masks, for example `Random(0.9).from_weights`.
        held: Makes the held values, for example `Zero().values`.
        targets: Globs on the names of the weights to mask, as for `target_names`. None targets
            every kernel except the last one, or those that make the outputs if there are several.
        outputs_held: Indices of the model's outputs whose values must not change.
        seed: Seed of the masks.

    Returns:
        The plan, with the targeted weights in the model's order.

    Raises:
        Invalid: A glob matches no weight, or a mask or held value does not fit.

    Example:
        >>> from masksweep.strategies.held.zero import Zero
        >>> from masksweep.strategies.patterns.random import Random
        >>> weights = [Weight("a/kernel", (4, 5), "float32", "Dense")]
        >>> initial = {"a/kernel": np.ones((4, 5), "float32")}
        >>> masks, held = Random(0.75).from_weights, Zero().values
        >>> make_plan(weights, initial, masks=masks, held=held, targets=["a/*"]).sparsity
        0.75
    """
    chosen = target_names(weights, targets)
    by_name = {w.name: w for w in weights}
    if isinstance(initial, ReadWhenUsed):
        targeted: Mapping[str, Array] = initial.of(chosen)
    else:
        targeted = {name: initial[name] for name in chosen}
    mask_arrays, held_values = masks(targeted, seed), held(targeted)
    return Plan(
        tuple(
            MaskedWeight(
                by_name[n], mask_arrays[n], held_values[n].astype(by_name[n].dtype, copy=False)
            )
            for n in chosen
        ),
        tuple(outputs_held),
    )


class ReadWhenUsed(Mapping[str, Array]):
    """Values by name that are read from their variables each time they are used, and not copied.

    They are valid until the variable changes, and cannot be written to.

    Args:
        variables: Variables by name.
    """

    def __init__(self, variables: Mapping[str, Any]) -> None:
        self._variables = variables

    def __getitem__(self, name: str) -> Array:
        import tensorflow as tf

        array: Array = np.asarray(tf.convert_to_tensor(self._variables[name].value)).view()
        array.flags.writeable = False
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    def views(self) -> dict[str, Array]:
        """Returns arrays of the same shapes and dtypes, which are views of one zero each."""
        return {
            name: np.broadcast_to(np.zeros((), keras_internals.numpy_dtype(v)), tuple(v.shape))
            for name, v in self._variables.items()
        }

    def of(self, names: Iterable[str]) -> ReadWhenUsed:
        """Returns the values of these names, in their order."""
        return ReadWhenUsed({name: self._variables[name] for name in names})


def current_values(model: Any) -> ReadWhenUsed:
    """Returns the values of a model's trainable weights by name, which are read when used."""
    pairs = zip(describe(model), model.trainable_variables, strict=True)
    return ReadWhenUsed({weight.name: variable for weight, variable in pairs})


def values(model: Any) -> dict[str, Array]:
    """Returns the values of a model's trainable weights, by name."""
    return {name: np.array(array) for name, array in current_values(model).items()}
