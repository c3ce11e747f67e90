"""Split the weight into a trained and a frozen part, and train a list of variables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from strategies.base import Array, Binding, Mask, Plan, Strategy


def _order(mask: Mask) -> Array:
    """Where each output stands once the kept ones are moved to the front, and how many those are.

    `[outputs + kept]` int32: `perm`, with `concat([trained, frozen])[perm]` the outputs in their
    order, then the indices of the kept outputs.
    """
    kept = mask.reshape(-1, mask.shape[-1])[0] if mask.size else np.ones(mask.shape[-1], bool)
    front = np.argsort(~kept, kind="stable")
    return np.concatenate([np.argsort(front), np.flatnonzero(kept)]).astype(np.int32)


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
            outputs = h.shape[-1]
            perm, kept = m[:outputs], m[outputs:]
            if not kept.shape[0]:
                return tf.identity(h)
            front = tf.argsort(perm)
            frozen = tf.gather(h, front[kept.shape[0] :], axis=-1)
            return tf.gather(tf.concat([v, frozen], -1), perm, axis=-1)

        return Binding(
            layout=_order,
            init=lambda w, m, h: tf.gather(w, m[h.shape[-1] :], axis=-1),
            substitute=join,
        )
