"""The `var_list` strategy: split a weight by outputs, and train only one of the two parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from masksweep.strategies.base import Strategy
from masksweep.strategies.binding import Binding
from masksweep.strategies.plan import Array, Mask, Plan
from masksweep.strategies.registry import register

MIN_PADDED_OUTPUTS, PADDING_MULTIPLE = 256, 64
"""If at least `MIN_PADDED_OUTPUTS` outputs are frozen, zeros are added until their number is a
multiple of `PADDING_MULTIPLE`. XLA computes the product faster at such sizes."""


class Split(NamedTuple):
    """A weight `[..., outputs]` that is split by its outputs (the last axis) into two parts."""

    trained: Any
    """The kept outputs, `[kept, ...]`: the last axis of the weight comes first."""
    frozen: Any
    """The masked outputs, `[..., outputs - kept + padding]`; the padding is zeros."""
    front: Any
    """Indices of all outputs, the kept outputs first, `[outputs]` int32."""
    place: Any
    """Position of each output in `front`, `[outputs]` int32."""

    @classmethod
    def of(cls, v: Any, m: Any, h: Any) -> Split:
        """Makes the parts from the arrays of the binding."""
        outputs = (m.shape[0] - v.shape[0]) // 2
        return cls(v, h, front=m[:outputs], place=m[outputs : 2 * outputs])


def _layout(mask: Mask) -> Array:
    """Returns `front`, `place` and the indices of the kept outputs as one int32 array."""
    kept = mask.reshape(-1, mask.shape[-1])[0] if mask.size else np.ones(mask.shape[-1], bool)
    front = np.argsort(~kept, kind="stable")
    return np.concatenate([front, np.argsort(front), np.flatnonzero(kept)]).astype(np.int32)


def _frozen(held: Array, layout: Array) -> Array:
    """Returns the held values of the frozen outputs, padded: `Split.frozen`."""
    outputs = held.shape[-1]
    kept = len(layout) - 2 * outputs
    frozen: Array = held[..., layout[kept:outputs]]
    count = frozen.shape[-1]
    zeros = -count % PADDING_MULTIPLE if count >= MIN_PADDED_OUTPUTS else 0
    return np.pad(frozen, [(0, 0)] * (held.ndim - 1) + [(0, zeros)])


def _roll_axes(array: Any, shift: int) -> Any:
    """Moves the last axis to the front (`shift=1`), or the first axis to the end (`shift=-1`)."""
    import tensorflow as tf

    return tf.transpose(array, np.roll(np.arange(len(array.shape)), shift))


def _join(v: Any, m: Any, h: Any) -> Any:
    """Returns the whole weight, `[..., outputs]`."""
    import tensorflow as tf

    split = Split.of(v, m, h)
    parts = [_roll_axes(split.trained, -1), split.frozen]
    return tf.gather(tf.concat(parts, -1), split.place, axis=-1)


def _matmul(x: Any, v: Any, m: Any, h: Any) -> Any:
    """Multiplies by the kernel in two products: one product would have all columns' gradient."""
    import tensorflow as tf

    split = Split.of(v, m, h)
    trained, frozen = tf.cast(split.trained, x.dtype), tf.cast(split.frozen, x.dtype)
    y = tf.concat([tf.matmul(x, trained, transpose_b=True), tf.matmul(x, frozen)], -1)
    # a scatter of rows puts the outputs in order: the gradient of a gather of columns is slow
    y = tf.transpose(y[:, : split.front.shape[0]])
    y = tf.tensor_scatter_nd_update(tf.zeros_like(y), split.front[:, None], y)
    return tf.transpose(y)


@register
@dataclass(frozen=True)
class VarList(Strategy):
    """Splits a weight by outputs into a trained and a frozen part, and trains only the first.

    The name is that of the optimizer's argument: the list of the variables that train. The frozen
    part is not in this list, so no optimizer, weight decay or EMA can move it. The trained part
    `v` is `[kept outputs, ...]`: a gradient with outputs as rows takes less time with fewer rows.

    It holds whole outputs (last axis) and whole variables, and refuses weights with a constraint.
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
            matmul=_matmul,
        )
