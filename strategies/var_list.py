"""Split the weight into a trained and a frozen part, and train a list of variables."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from masksweep.strategies.base import Array, Binding, Mask, Plan, Strategy
from masksweep.strategies.core.weights import ELEMENTWISE, rewriting
from masksweep.strategies.registry import register

WIDE, ALIGNED = 256, 64
"""So many frozen outputs, and more, are filled up to a multiple with zeros: XLA's products on a CPU
are up to a third slower on widths that are none."""
GRAPHS = ("keras", "Functional"), ("keras", "Sequential")
"""Package and name of the classes of models that run their graph."""
BETWEEN = ("Activation", "Dropout", "ReLU", "LeakyReLU")
"""Layers whose every output depends on one input, but for an activation that mixes them."""


def _order(mask: Mask) -> Array:
    """How the outputs stand once the kept ones are moved to the front, `[2 outputs + kept]` int32.

    `perm`, with `concat([trained, frozen])[perm]` the outputs in their order; `front`, its inverse;
    the kept outputs.
    """
    kept = mask.reshape(-1, mask.shape[-1])[0] if mask.size else np.ones(mask.shape[-1], bool)
    front = np.argsort(~kept, kind="stable")
    return np.concatenate([np.argsort(front), front, np.flatnonzero(kept)]).astype(np.int32)


def _frozen(held: Array, order: Array) -> Array:
    """The frozen outputs, `[..., outputs - kept]`, and zeros."""
    outputs = held.shape[-1]
    found: Array = held[..., order[len(order) - outputs : 2 * outputs]]
    count = found.shape[-1]
    more = -count % ALIGNED if count >= WIDE else 0
    return np.pad(found, [(0, 0)] * (held.ndim - 1) + [(0, more)])


def _before(model: Any) -> dict[int, Any]:
    """The Dense layer that a Dense layer takes its inputs from, by the `id` of the latter.

    Those only before which nothing trains: the gradient of their outputs is for their own weights.
    """
    kind = type(model)
    # of a class of one's own, or a layer within a layer, the graph may not be all that runs
    if (kind.__module__.split(".")[0], kind.__name__) not in GRAPHS:
        return {}
    ends = {id(t) for t in model.inputs}
    within = {id(a) for b in model.layers for a in b._flatten_layers(include_self=False)}
    found = {}
    for layer in model.layers:
        tensor = _input(layer)
        while _one_by_one(before := _source(tensor, ends), BETWEEN):
            tensor = _input(before)
        known = {id(layer), id(before)}.isdisjoint(within) and type(layer) is type(before)
        if known and _one_by_one(before, ["Dense"]) and _is_first(before, ends):
            found[id(layer)] = before
    return found


def _is_first(layer: Any, ends: Collection[int]) -> bool:
    """Whether a Dense layer's kernel and bias are all that its outputs' gradients are for."""
    # an activation may have some of its own
    own = len(layer.trainable_variables) == 1 + layer.use_bias
    return own and not _trains(_input(layer), ends)


def _one_by_one(layer: Any, kinds: Collection[str]) -> bool:
    """Whether it is of these kinds of Keras', with no activation that mixes its outputs."""
    import keras

    if type(layer) not in [getattr(keras.layers, kind) for kind in kinds]:
        return False
    activation = getattr(layer, "activation", keras.activations.linear)
    return getattr(activation, "__name__", "other") in ELEMENTWISE


def _input(layer: Any) -> Any:
    """The tensor that a layer takes; None if it takes several, or is applied several times."""
    tensors = _inputs(layer)
    return tensors[0] if len(tensors) == 1 else None


def _inputs(operation: Any) -> list[Any]:
    return [t for node in operation._inbound_nodes for t in node.input_tensors]


def _source(tensor: Any, ends: Collection[int]) -> Any:
    """What a tensor comes from; None if it is an end, or none."""
    return None if tensor is None or id(tensor) in ends else tensor._keras_history.operation


def _trains(tensor: Any, ends: Collection[int]) -> bool:
    """Whether a weight that trains may be on the way to a tensor."""
    todo, seen = [tensor], set[int]()
    while todo:
        each = todo.pop()
        if each is None:
            return True
        operation = _source(each, ends)
        if operation is not None and id(operation) not in seen:
            seen.add(id(operation))
            if getattr(operation, "trainable_variables", ()):
                return True
            todo += _inputs(operation) or [None]
    return False


def _split(before: Mapping[int, Any], layer: Any, inputs: Any, training: Any = None) -> Any:
    """What a Dense layer computes, by the two parts that its kernel was joined from.

    The gradient of the joined kernel would be that of all its columns, to drop most of them. Under
    mixed precision the kernel is cast, which forgets its parts: correct, and slower.
    """
    import tensorflow as tf

    parts = getattr(layer.kernel.value, "parts", None)
    if parts is None:
        return type(layer).call(layer, inputs, training=training)
    trained, frozen, front = parts
    rows = tf.reshape(inputs, [-1, inputs.shape[-1]])
    y = _product(rows, trained, frozen, _wanted(before.get(id(layer))))
    # put where it belongs, not gathered from there: that gradient is a gather, the other adds up
    outputs = front.shape[0]
    y = tf.transpose(y[:, :outputs])
    y = tf.tensor_scatter_nd_update(tf.zeros_like(y), front[:, None], y)
    y = tf.reshape(tf.transpose(y), tf.concat([tf.shape(inputs)[:-1], [outputs]], 0))
    y = y + layer.bias if layer.use_bias else y
    return layer.activation(y) if layer.activation is not None else y


def _wanted(before: Any) -> Any:
    """The outputs of a layer whose gradients its own weights want, and which of these count.

    `[...]` int32 and bool: what both kernel and bias train is there twice, and counts once. None
    where it may be all.
    """
    import tensorflow as tf

    if before is None:
        return None
    found = []
    for variable in [before.kernel, *([before.bias] if before.use_bias else [])]:
        parts = getattr(variable.value, "parts", None)
        if parts is None:
            return None
        trained, _, front = parts
        found.append(front[: trained.shape[0]])
    if sum(f.shape[0] for f in found) >= before.units:
        return None
    of_kernel, *of_bias = found
    known = tf.tensor_scatter_nd_update(
        tf.zeros(before.units, bool), of_kernel[:, None], tf.ones(of_kernel.shape, bool)
    )
    count = [tf.ones(of_kernel.shape, bool), *(~tf.gather(known, b) for b in of_bias)]
    return tf.concat(found, 0), tf.concat(count, 0)


def _product(x: Any, trained: Any, frozen: Any, wanted: Any) -> Any:
    """`x` times both parts of a kernel; of the gradient of `x`, the `wanted` columns or all."""
    import tensorflow as tf

    def product(x: Any, trained: Any, frozen: Any) -> Any:
        return tf.concat([tf.matmul(x, trained, transpose_b=True), tf.matmul(x, frozen)], -1)

    if wanted is None:
        return product(x, trained, frozen)
    columns, count = wanted
    # nothing, which has their gradient; of a custom one TensorFlow would keep the graph for ever
    few = tf.gather(x, columns, axis=1)
    few -= tf.stop_gradient(few)
    parts = tf.gather(trained, columns, axis=1), tf.gather(frozen, columns)
    of_few = [tf.stop_gradient(p) for p in parts]
    few = tf.where(count, few, tf.stop_gradient(few))
    return product(tf.stop_gradient(x), trained, frozen) + product(few, *of_few)


@register
@dataclass(frozen=True)
class VarList(Strategy):
    """Splits a weight by outputs into a trained and a frozen variable, and trains a list.

    `v` is `[kept outputs, ...]`: the gradient of rows is a product that is as fast as it is small,
    which that of a few columns is not. The frozen part is in no `var_list`, so nothing can move it.
    It holds whole outputs (last axis) and whole variables; scattered weights it cannot split off.
    Where the biases of a first layer are frozen with its columns, a masked layer after it computes
    gradients for the units that train, and leaves the others out.
    """

    name: ClassVar[str] = "var_list"

    def refuses(self, plan: Plan) -> str | None:
        for w in plan.weights:
            if w.columns is None:
                return f"{w.weight.name}: a variable splits by whole outputs, not scattered weights"
            if w.weight.constrained:
                return f"{w.weight.name}: a constraint needs the whole weight, not its trained part"
        return None

    def bind(self) -> Binding:
        import tensorflow as tf

        def turned(a: Any, to: int) -> Any:
            """The last axis first (1), or the first one last (-1)."""
            axes = np.roll(np.arange(len(a.shape)), to)
            return tf.transpose(a, axes)

        def join(v: Any, m: Any, h: Any) -> Any:
            outputs = (m.shape[0] - v.shape[0]) // 2
            perm, front = m[:outputs], m[outputs : 2 * outputs]
            whole = tf.gather(tf.concat([turned(v, -1), h], -1), perm, axis=-1)
            whole.parts = v, h, front
            return whole

        return Binding(
            rewrite=lambda model, names: rewriting(model, names, partial(_split, _before(model))),
            layout=_order,
            keep=_frozen,
            init=lambda w, m, h: turned(tf.gather(w, m[2 * w.shape[-1] :], axis=-1), 1),
            substitute=join,
        )
