"""Stop the gradient at the held outputs, on their way to the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from masksweep.strategies.base import Binding, Plan, Strategy
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class LossMask(Strategy):
    """Stops the gradient at the outputs whose weights are held: `where(m, y, stop_gradient(y))`.

    The loss keeps its value, and the weights of a held output get an exactly zero gradient under
    any loss, softmax cross-entropy on logits included. Leaks where `gradient_mask` does (decay,
    constraints, Ftrl, Muon, moments and EMA after a change of the mask), and through L2, whose
    gradient does not pass the outputs. It holds whole output units, kernel and bias
    alike, and the layers before get no gradient through them; the output itself still moves if
    one of those trains.
    """

    name: ClassVar[str] = "loss_mask"

    def refuses(self, plan: Plan) -> str | None:
        for w in plan.weights:
            if not w.weight.output:
                return f"{w.weight.name}: {w.weight.mixed or 'not a weight of the output layer'}"
            if w.columns is None:
                return f"{w.weight.name}: the loss masks whole outputs, not scattered weights"
        return None

    def bind(self) -> Binding:
        import tensorflow as tf

        def outputs(y: Any, m: Any) -> Any:
            kept = tf.reshape(m, [-1, m.shape[-1]])[0]
            return tf.where(kept, y, tf.stop_gradient(y))

        return Binding(init=lambda w, m, h: tf.where(m, w, h), outputs=outputs)
