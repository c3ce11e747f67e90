"""TensorFlow's fused Adam: the fastest dense control that TensorFlow offers without XLA.

Trials do not use it. It rounds in another order than Keras' Adam: after one step a fifth of the
weights have other bits, and after fifty steps two thirds. The dense control of a trial is
`keras.fit` to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import tensorflow as tf

from masksweep.sweeps.components.optimizers.adam import Adam


class Fused(keras.optimizers.Adam):  # type: ignore[misc]
    """Keras' Adam with its update in one TensorFlow kernel, as in TensorFlow 1."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        step = tf.cast(self.iterations.value + 1, variable.dtype)
        index = self._get_variable_index(variable)
        handles = (v[index].value.handle for v in (self._momentums, self._velocities))
        m, v = handles
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=m,
            v=v,
            beta1_power=tf.pow(tf.cast(self.beta_1, variable.dtype), step),
            beta2_power=tf.pow(tf.cast(self.beta_2, variable.dtype), step),
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


@dataclass(frozen=True)
class FusedAdam(Adam):
    """The settings of `Fused`. No config can name it, and it does not compile under XLA."""

    name: ClassVar[str] = "fused_adam"

    def build(self, pure: bool = False) -> Any:
        assert not pure, "it is one fused operation on tf.Variables"
        return Fused(self.learning_rate, self.beta_1, self.beta_2, self.epsilon)
