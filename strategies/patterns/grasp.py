"""The `grasp` pattern: the connections whose removal keeps the most gradient flow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from masksweep.strategies.patterns.saliency import LossSaliency, gradients
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class GraSP(LossSaliency):
    """The connections whose removal reduces the gradient flow least, before the training (GraSP).

    The score of an entry `w` is `w * (H g)`, where `g` is the gradient and `H` the Hessian of the
    loss on `samples` of the training data, by the targeted weights. To first order, removing the
    entry changes the squared norm of the gradient by minus twice this score. The entries with the
    largest scores are kept.

    The authors divide the outputs by a temperature of 200 in their code. The paper does not, and
    neither does this pattern.

    Raises:
        Invalid: The sparsity is outside [0, 1), the scope is unknown, `samples` is below 1, or
            there are no data.

    Example:
        >>> import keras, numpy as np
        >>> from masksweep import strategies
        >>> layers = [keras.Input((8,)), keras.layers.Dense(16, "relu", name="hidden"),
        ...           keras.layers.Dense(1, name="output")]
        >>> x, y = np.ones((32, 8)), np.ones(32)
        >>> masked = strategies.apply(
        ...     keras.Sequential(layers), strategies.GraSP(0.75), data=(x, y), loss="mse"
        ... )
        >>> int(masked.plan.weights[0].mask.sum())
        32

    Reference:
        Wang, Zhang and Grosse, Picking Winning Tickets Before Training by Preserving Gradient
        Flow, ICLR 2020, arXiv:2002.07376.
    """

    name: ClassVar[str] = "grasp"

    def derivatives(self, loss: Callable[[], Any], weights: Sequence[Any]) -> list[Any]:
        import tensorflow as tf

        with tf.GradientTape() as outer:
            outer.watch(weights)
            with tf.GradientTape() as inner:
                inner.watch(weights)
                value = loss()
            flow = gradients(inner, value, weights)
            # the gradient of this product is the Hessian times the gradient
            product = tf.add_n([tf.reduce_sum(tf.stop_gradient(g) * g) for g in flow])
        return gradients(outer, product, weights)
