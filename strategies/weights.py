"""A Keras model's weights by name: what they are, and which of them a plan masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from strategies.base import Array, Invalid, Mask, MaskedWeight, Plan, Weight, target_names

ELEMENTWISE = [
    "linear", "relu", "relu6", "leaky_relu", "sigmoid", "hard_sigmoid", "log_sigmoid", "tanh",
    "hard_tanh", "elu", "celu", "selu", "gelu", "silu", "hard_silu", "softplus", "softsign",
    "mish", "exponential",
]  # fmt: skip
"""Activations whose every output depends on one input; a softmax, say, mixes them."""


def _own_variables(layer: Any, prefix: str, seen: set[int]) -> list[tuple[str, Any, Any]]:
    if id(layer) in seen:
        return []
    seen.add(id(layer))
    found = [(f"{prefix}/{v.name}", v, layer) for v in layer._trainable_variables]
    for inner in layer._layers:
        found += _own_variables(inner, f"{prefix}/{inner.name}", seen)
    return found


def _owners(model: Any) -> dict[int, tuple[str, Any]]:
    """(name, layer) of each trainable variable, by its `id`."""
    seen: set[int] = set()
    named = {id(v): (v.name, model) for v in model._trainable_variables}
    for part in model._layers:
        for name, v, layer in _own_variables(part, part.name, seen):
            named.setdefault(id(v), (name, layer))
    return named


def describe(model: Any) -> list[Weight]:
    """The trainable weights of a built Keras model, in the order of `model.trainable_variables`.

    Names are `layer/variable` (outer layers in front where layers are nested); they survive saving
    and reloading, which `variable.path` does not. Raises `Invalid` if two weights share a name.
    """
    named = _owners(model)
    outputs = getattr(model, "outputs", None) or []
    last = outputs[0]._keras_history.operation if len(outputs) == 1 else None
    if last is not None and len(last._inbound_nodes) > 1:
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
            )
        )
    names = [w.name for w in weights]
    for name in names:
        if names.count(name) > 1:
            raise Invalid(
                "model", name, "two weights share this name; give the layers unique names"
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


class Rewritten:
    """A model, of which some Dense layers compute otherwise while it runs statelessly.

    The layers are the model's own, so that nothing about the others is lost, as it would be in a
    clone: statistics of a Normalization, functions of a Lambda, layers inside layers.
    """

    def __init__(self, model: Any, names: Sequence[str], call: Callable[..., Any]) -> None:
        """`call(layer, inputs)` is for the Dense layers that own a kernel of these names."""
        owners = _owners(model)
        found = [owners[id(v)] for v in model.trainable_variables]
        kernels = [layer for name, layer in found if name in names and name.endswith("/kernel")]
        self._layers = [layer for layer in kernels if type(layer).__name__ == "Dense"]
        self._model, self._call = model, call

    def stateless_call(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.stateless_call`."""
        for layer in self._layers:
            # past Keras' own, which would track it
            object.__setattr__(layer, "call", partial(self._call, layer))
        try:
            return self._model.stateless_call(*args, **kwargs)
        finally:
            for layer in self._layers:
                object.__delattr__(layer, "call")


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
