"""Split the weight into a trained and a frozen part, and train a list of variables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from strategies.base import Array, Binding, Mask, Plan, Strategy
from strategies.weights import Rewritten


def _order(mask: Mask) -> Array:
    """How the outputs stand once the kept ones are moved to the front, `[2 outputs + kept]` int32.

    `perm`, with `concat([trained, frozen])[perm]` the outputs in their order; `front`, its inverse;
    the kept outputs.
    """
    kept = mask.reshape(-1, mask.shape[-1])[0] if mask.size else np.ones(mask.shape[-1], bool)
    front = np.argsort(~kept, kind="stable")
    return np.concatenate([np.argsort(front), front, np.flatnonzero(kept)]).astype(np.int32)


def _frozen(held: Array, order: Array) -> Array:
    """The frozen outputs, `[..., outputs - kept]`."""
    outputs = held.shape[-1]
    found: Array = held[..., order[len(order) - outputs : 2 * outputs]]
    return found


def _split(layer: Any, inputs: Any, training: Any = None) -> Any:
    """What a Dense layer computes, by the two parts that its kernel was joined from.

    The gradient of the joined kernel would be that of all its columns, to drop most of them. Under
    mixed precision the kernel is cast, which forgets its parts: correct, and slower.
    """
    import keras
    import tensorflow as tf

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def in_order(y: Any, perm: Any, front: Any) -> tuple[Any, Any]:
        # a gather's own gradient adds up, entry by entry; that of a permutation is its inverse
        return tf.gather(y, perm, axis=-1), lambda dy: (tf.gather(dy, front, axis=-1), None, None)

    parts = getattr(layer.kernel.value, "parts", None)
    if parts is None:
        return type(layer).call(layer, inputs, training=training)
    trained, frozen, perm, front = parts
    y = tf.concat([keras.ops.matmul(inputs, part) for part in (trained, frozen)], -1)
    y = in_order(y, perm, front)
    y = y + layer.bias if layer.use_bias else y
    return layer.activation(y) if layer.activation is not None else y


@dataclass(frozen=True)
class VarList(Strategy):
    """Splits a weight by outputs into a trained and a frozen variable, and trains a list.

    `v` is `[..., kept outputs]`. The frozen part is in no `var_list`, so nothing can move it. It
    holds whole outputs (last axis) and whole variables; scattered weights it cannot split off.
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

        def join(v: Any, m: Any, h: Any) -> Any:
            outputs = v.shape[-1] + h.shape[-1]
            perm, front = m[:outputs], m[outputs : 2 * outputs]
            whole = tf.gather(tf.concat([v, h], -1), perm, axis=-1)
            whole.parts = v, h, perm, front
            return whole

        return Binding(
            rewrite=lambda model, names: Rewritten(model, names, _split),
            layout=_order,
            keep=_frozen,
            init=lambda w, m, h: tf.gather(w, m[2 * w.shape[-1] :], axis=-1),
            substitute=join,
        )
