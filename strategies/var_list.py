"""Split the weight into a trained and a frozen part, and train a list of variables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from strategies.base import Array, Binding, Mask, Plan, Strategy
from strategies.weights import Rewritten

WIDE, ALIGNED = 256, 64
"""So many frozen outputs, and more, are filled up to a multiple with zeros: XLA's products on a CPU
are up to a third slower on widths that are none."""


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


def _split(layer: Any, inputs: Any, training: Any = None) -> Any:
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
    y = tf.concat([tf.matmul(rows, trained, transpose_b=True), tf.matmul(rows, frozen)], -1)
    # put where it belongs, not gathered from there: that gradient is a gather, the other adds up
    outputs = front.shape[0]
    y = tf.transpose(y[:, :outputs])
    y = tf.tensor_scatter_nd_update(tf.zeros_like(y), front[:, None], y)
    y = tf.reshape(tf.transpose(y), tf.concat([tf.shape(inputs)[:-1], [outputs]], 0))
    y = y + layer.bias if layer.use_bias else y
    return layer.activation(y) if layer.activation is not None else y


@dataclass(frozen=True)
class VarList(Strategy):
    """Splits a weight by outputs into a trained and a frozen variable, and trains a list.

    `v` is `[kept outputs, ...]`: the gradient of rows is a product that is as fast as it is small,
    which that of a few columns is not. The frozen part is in no `var_list`, so nothing can move it.
    It holds whole outputs (last axis) and whole variables; scattered weights it cannot split off.
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
            rewrite=lambda model, names: Rewritten(model, names, _split),
            layout=_order,
            keep=_frozen,
            init=lambda w, m, h: turned(tf.gather(w, m[2 * w.shape[-1] :], axis=-1), 1),
            substitute=join,
        )
