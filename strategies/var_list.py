"""Split the weight into a trained and a frozen part, and train a list of variables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from masksweep.strategies.base import Array, Binding, Mask, Plan, Strategy
from masksweep.strategies.registry import register

WIDE, ALIGNED = 256, 64
"""From `WIDE` frozen outputs on, zeros fill up to a multiple of `ALIGNED`; XLA is faster then."""


class Split(NamedTuple):
    """A weight in two parts, by its outputs (the last axis)."""

    trained: Any
    """The kept outputs, `[kept, ...]`."""
    frozen: Any
    """The other outputs, `[..., outputs - kept]`, and zeros after them."""
    front: Any
    """Indices of all outputs, the kept ones first, `[outputs]` int32."""
    place: Any
    """Where each output is in `front`, `[outputs]` int32."""

    @classmethod
    def of(cls, v: Any, m: Any, h: Any) -> Split:
        """The parts from a binding's arrays."""
        outputs = (m.shape[0] - v.shape[0]) // 2
        return cls(v, h, front=m[:outputs], place=m[outputs : 2 * outputs])


def _layout(mask: Mask) -> Array:
    """`front`, `place` and the kept outputs in one array, `[2 outputs + kept]` int32."""
    kept = mask.reshape(-1, mask.shape[-1])[0] if mask.size else np.ones(mask.shape[-1], bool)
    front = np.argsort(~kept, kind="stable")
    return np.concatenate([front, np.argsort(front), np.flatnonzero(kept)]).astype(np.int32)


def _frozen(held: Array, layout: Array) -> Array:
    """The held values of the frozen outputs, `[..., outputs - kept]`, and zeros after them."""
    outputs = held.shape[-1]
    kept = len(layout) - 2 * outputs
    frozen: Array = held[..., layout[kept:outputs]]
    count = frozen.shape[-1]
    zeros = -count % ALIGNED if count >= WIDE else 0
    return np.pad(frozen, [(0, 0)] * (held.ndim - 1) + [(0, zeros)])


def _roll_axes(array: Any, shift: int) -> Any:
    """The last axis first (`shift` 1), or the first axis last (-1)."""
    import tensorflow as tf

    return tf.transpose(array, np.roll(np.arange(len(array.shape)), shift))


def _join(v: Any, m: Any, h: Any) -> Any:
    """The whole weight."""
    import tensorflow as tf

    split = Split.of(v, m, h)
    parts = [_roll_axes(split.trained, -1), split.frozen]
    return tf.gather(tf.concat(parts, -1), split.place, axis=-1)


def _dense(layer: Any, inputs: Any, v: Any, m: Any, h: Any) -> Any:
    """What a Dense layer computes, by two products.

    With the whole kernel, TensorFlow would compute the gradient of all its columns.
    """
    import tensorflow as tf

    split = Split.of(v, m, h)
    x, trained, frozen = (
        tf.cast(a, layer.compute_dtype) for a in (inputs, split.trained, split.frozen)
    )
    rows = tf.reshape(x, [-1, x.shape[-1]])
    y = tf.concat([tf.matmul(rows, trained, transpose_b=True), tf.matmul(rows, frozen)], -1)
    # a scatter of rows, not a gather of columns: the gradient of a gather adds up, which is slow
    outputs = split.front.shape[0]
    y = tf.transpose(y[:, :outputs])
    y = tf.tensor_scatter_nd_update(tf.zeros_like(y), split.front[:, None], y)
    y = tf.reshape(tf.transpose(y), tf.concat([tf.shape(inputs)[:-1], [outputs]], 0))
    y = y + layer.bias if layer.use_bias else y
    return layer.activation(y) if layer.activation is not None else y


@register
@dataclass(frozen=True)
class VarList(Strategy):
    """Splits a weight by outputs into a trained and a frozen variable, and trains a list.

    `v` is `[kept outputs, ...]`: the gradient of a few rows is a product that is as fast as it is
    small, which that of a few columns is not. The frozen part is in no `var_list`, so nothing can
    move it. It holds whole outputs (last axis) and whole variables, and no scattered weights.
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

        return Binding(
            layout=_layout,
            keep=_frozen,
            init=lambda w, m, h: _roll_axes(tf.gather(w, m[2 * w.shape[-1] :], axis=-1), 1),
            substitute=_join,
            dense_call=_dense,
        )
