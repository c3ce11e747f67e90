"""The `loss_mask` strategy: stop the gradient at the held outputs, before the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from masksweep.strategies.base import Strategy
from masksweep.strategies.binding import Binding
from masksweep.strategies.plan import Plan
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class LossMask(Strategy):
    """Stops the gradient at the outputs whose weights are held: `where(m, y, stop_gradient(y))`.

    `y` are the model's outputs `[..., outputs]`, and `m` is true for the outputs that are kept. The
    loss keeps its value. The weights of a held output get a gradient of exactly zero under any
    loss, also under softmax cross-entropy on logits.

    Holds: whole output units of the last layer, in its kernel and its bias, where `gradient_mask`
    holds. Leaks: where `gradient_mask` leaks (weight decay, constraints, Ftrl, Muon, and moments
    and EMA after a change of the mask), and through L2 regularization, whose gradient does not
    come through the outputs.

    The layers before the last one get no gradient through a held output. The value of a held
    output still changes if one of these layers trains.

    Example:
        >>> import tensorflow as tf
        >>> y = tf.Variable([[1.0, 2.0]])
        >>> with tf.GradientTape() as tape:
        ...     loss = tf.reduce_sum(LossMask().bind().outputs(y, tf.constant([True, False])))
        >>> tape.gradient(loss, y).numpy()
        array([[1., 0.]], dtype=float32)
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
