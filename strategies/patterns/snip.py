"""The `snip` pattern: the connections to which the loss is least sensitive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from masksweep.strategies.patterns.saliency import LossSaliency, gradients
from masksweep.strategies.plan import Array
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class SNIP(LossSaliency):
    """The connections to which the loss is least sensitive, before the training (SNIP).

    The score of an entry `w` is `|w * dL/dw|`, where `L` is the loss on `samples` of the training
    data. The entries with the largest scores are kept.

    Raises:
        Invalid: The sparsity is outside [0, 1), the scope is unknown, `samples` is below 1, or
            there are no data.

    Example:
        >>> import keras
        >>> from masksweep import strategies
        >>> layers = [keras.Input((8,)), keras.layers.Dense(16, "relu", name="hidden"),
        ...           keras.layers.Dense(1, name="output")]
        >>> x, y = np.ones((32, 8)), np.ones(32)
        >>> masked = strategies.apply(
        ...     keras.Sequential(layers), strategies.SNIP(0.75), data=(x, y), loss="mse"
        ... )
        >>> int(masked.plan.weights[0].mask.sum())
        32

    Reference:
        Lee, Ajanthan and Torr, SNIP: Single-shot Network Pruning based on Connection Sensitivity,
        ICLR 2019, arXiv:1810.02340.
    """

    name: ClassVar[str] = "snip"

    def derivatives(self, loss: Callable[[], Any], weights: Sequence[Any]) -> list[Any]:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(weights)
            value = loss()
        return gradients(tape, value, weights)

    def score(self, product: Array) -> Array:
        return np.abs(product)
