"""Split the weight into a trained and a frozen part, and train a list of variables."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from strategies.base import Array, Binding, Mask, Plan, Strategy
from strategies.weights import ELEMENTWISE, Rewritten

WIDE, ALIGNED = 256, 64
"""So many frozen outputs, and more, are filled up to a multiple with zeros: XLA's products on a CPU
are up to a third slower on widths that are none."""
ONE_BY_ONE = ("Activation", "Dropout", "ReLU", "LeakyReLU")
"""Layers whose every output depends on one input, where their activation is such a one."""


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


def _first(model: Any) -> dict[int, Any]:
    """The Dense layer that a Dense layer takes its inputs from, by the `id` of the latter.

    Those only before which nothing trains: the gradient of their outputs is for their own weights.
    """
    ends = {id(t) for t in getattr(model, "inputs", None) or ()}
    found = {}
    for layer in model.layers if ends else ():
        tensor = _input(layer)
        while _is(before := _source(tensor, ends), *ONE_BY_ONE):
            tensor = _input(before)
        if _is(layer, "Dense") and _is(before, "Dense") and not _trains(_input(before), ends):
            found[id(layer)] = before
    return found


def _is(layer: Any, *kinds: str) -> bool:
    """Whether it is such a layer, and each of its activation's outputs depends on one input."""
    activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
    return type(layer).__name__ in kinds and activation in ELEMENTWISE


def _input(layer: Any) -> Any:
    """The tensor that a layer takes; None if it takes several, or is applied several times."""
    tensors = [t for node in layer._inbound_nodes for t in node.input_tensors]
    return tensors[0] if len(tensors) == 1 else None


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
            todo += [t for node in operation._inbound_nodes for t in node.input_tensors] or [None]
    return False


def _split(first: Mapping[int, Any], layer: Any, inputs: Any, training: Any = None) -> Any:
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
    y = _product(rows, trained, frozen, _wanted(first.get(id(layer))))
    # put where it belongs, not gathered from there: that gradient is a gather, the other adds up
    outputs = front.shape[0]
    y = tf.transpose(y[:, :outputs])
    y = tf.tensor_scatter_nd_update(tf.zeros_like(y), front[:, None], y)
    y = tf.reshape(tf.transpose(y), tf.concat([tf.shape(inputs)[:-1], [outputs]], 0))
    y = y + layer.bias if layer.use_bias else y
    return layer.activation(y) if layer.activation is not None else y


def _wanted(before: Any) -> Any:
    """The outputs of a layer whose gradients its own weights want, `[...]` int32; None is all."""
    import tensorflow as tf

    found = []
    for variable in [before.kernel, *([before.bias] if before.use_bias else [])] if before else []:
        parts = getattr(variable.value, "parts", None)
        if parts is None:
            return None
        trained, _, front = parts
        found.append(front[: trained.shape[0]])
    few = found and sum(f.shape[0] for f in found) < before.units
    return tf.concat(found, 0) if few else None


def _product(x: Any, trained: Any, frozen: Any, wanted: Any) -> Any:
    """`x` times both parts of a kernel; of the gradient of `x`, the `wanted` columns or all."""
    import tensorflow as tf

    def product(x: Any, trained: Any) -> Any:
        return tf.concat([tf.matmul(x, trained, transpose_b=True), tf.matmul(x, frozen)], -1)

    if wanted is None:
        return product(x, trained)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def pruned(x: Any, trained: Any) -> Any:
        def gradients(dy: Any) -> tuple[Any, Any]:
            kept, rest = dy[:, : trained.shape[0]], dy[:, trained.shape[0] :]
            dx = tf.matmul(tf.gather(frozen, wanted), rest, transpose_b=True)
            dx += tf.matmul(tf.gather(trained, wanted, axis=1), kept, True, True)
            # a column that is wanted twice is written twice, and the same
            dx = tf.tensor_scatter_nd_update(tf.zeros_like(tf.transpose(x)), wanted[:, None], dx)
            return tf.transpose(dx), tf.matmul(kept, x, transpose_a=True)

        return product(x, trained), gradients

    return pruned(x, trained)


@dataclass(frozen=True)
class VarList(Strategy):
    """Splits a weight by outputs into a trained and a frozen variable, and trains a list.

    `v` is `[kept outputs, ...]`: the gradient of rows is a product that is as fast as it is small,
    which that of a few columns is not. The frozen part is in no `var_list`, so nothing can move it.
    It holds whole outputs (last axis) and whole variables; scattered weights it cannot split off.
    Where the biases of a first layer are frozen with its columns, the layer after it computes
    gradients for the units that train, and for no other one.
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
            rewrite=lambda model, names: Rewritten(model, names, partial(_split, _first(model))),
            layout=_order,
            keep=_frozen,
            init=lambda w, m, h: turned(tf.gather(w, m[2 * w.shape[-1] :], axis=-1), 1),
            substitute=join,
        )
