"""The `synflow` pattern: the connections through which the least synaptic strength flows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from masksweep.strategies.core import keras_internals
from masksweep.strategies.errors import Invalid, require
from masksweep.strategies.patterns.problem import Problem
from masksweep.strategies.patterns.ranking import keep_largest
from masksweep.strategies.patterns.saliency import Saliency, gradients
from masksweep.strategies.plan import Array, Mask
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class SynFlow(Saliency):
    """The connections through which the least synaptic strength flows, before the training.

    Every weight and statistic is replaced by its magnitude, and `R` is the sum of the outputs for
    an input of ones. The score of an entry `w` is `|w| * dR/d|w|`. The entries are masked in
    `rounds`: after round `k` the fraction `(1 - sparsity) ** (k / rounds)` is kept, and the scores
    are computed again. No data are needed; if they are given, only their shape is used. The seed is
    ignored.

    A final softmax would make `R` constant, so the activation of the last layer is left out.

    Raises:
        Invalid: The sparsity is outside [0, 1), the scope is unknown, `rounds` is below 1, or the
            scores are not finite (a deep model in single precision).

    Example:
        >>> import keras
        >>> from masksweep import strategies
        >>> layers = [keras.Input((8,)), keras.layers.Dense(16, "relu", name="hidden"),
        ...           keras.layers.Dense(3, "softmax", name="output")]
        >>> masked = strategies.apply(keras.Sequential(layers), strategies.SynFlow(0.75))
        >>> int(masked.plan.weights[0].mask.sum())
        32

    Reference:
        Tanaka et al., Pruning neural networks without any data by iteratively conserving synaptic
        flow, NeurIPS 2020, arXiv:2006.05467.
    """

    name: ClassVar[str] = "synflow"
    rounds: int = 100
    """Number of times that the scores are computed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.rounds >= 1, "rounds", self.rounds, "at least 1")

    def from_problem(
        self, problem: Problem, weights: Mapping[str, Array], seed: int
    ) -> dict[str, Mask]:
        masks = {name: np.ones(array.shape, bool) for name, array in weights.items()}
        sizes = {name: np.abs(array) for name, array in problem.weights.items()}
        state = [np.abs(a) if a.dtype.kind in "fV" else a for a in map(np.asarray, problem.state)]
        positive, inputs = replace(problem, state=state), _ones(problem)
        with _without_last_activation(problem.model):
            for number in range(1, self.rounds + 1):
                masked = sizes | {name: sizes[name] * masks[name] for name in masks}
                scores = _scores(positive, masked, list(masks), inputs)
                sparsity = 1 - (1 - self.sparsity) ** (number / self.rounds)
                masks = keep_largest(self.checked(scores), sparsity, self.scope)
        return masks


def _scores(
    problem: Problem, weights: Mapping[str, Array], names: Sequence[str], inputs: Any
) -> dict[str, Array]:
    """Returns `w * dR/dw` for the targeted weights, of which none is negative."""
    import tensorflow as tf

    tensors = {name: tf.constant(array) for name, array in weights.items()}
    targeted = [tensors[name] for name in names]
    with tf.GradientTape() as tape:
        tape.watch(targeted)
        outputs = problem.outputs(list(tensors.values()), inputs, training=False)
        flow = tf.add_n([tf.reduce_sum(y) for y in tf.nest.flatten(outputs)])
    pairs = zip(names, gradients(tape, flow, targeted), strict=True)
    scores = {n: np.float64(weights[n]) * np.asarray(g).astype(np.float64) for n, g in pairs}
    if sum(float(np.abs(array).sum()) for array in scores.values()) < 1e-5 * abs(float(flow)):
        allowed = "no scores: the sum of the outputs is constant; let the model end in logits"
        raise Invalid("pattern", SynFlow.name, allowed)
    return scores


def _ones(problem: Problem) -> Any:
    """Returns an input of ones for one sample.

    Raises:
        Invalid: There are no data, and the model does not tell the shape of its inputs.
    """
    import keras

    if problem.inputs is not None:
        return keras.tree.map_structure(lambda a: np.ones_like(a[:1]), problem.inputs)
    specs = getattr(problem.model, "inputs", None) or []
    known = len(specs) > 0 and all(None not in spec.shape[1:] for spec in specs)
    require(known, "data", None, "inputs and targets, to know the inputs' shape")
    inputs = [np.ones((1, *spec.shape[1:]), spec.dtype) for spec in specs]
    return inputs[0] if len(inputs) == 1 else inputs


@contextmanager
def _without_last_activation(model: Any) -> Iterator[None]:
    """Makes the activation of the output layers linear inside a `with` block."""
    import keras

    layers = {id(y): y for y in map(keras_internals.source, getattr(model, "outputs", None) or [])}
    before = [(y, y.activation) for y in layers.values() if hasattr(y, "activation")]
    for layer, _ in before:
        layer.activation = keras.activations.linear
    try:
        yield
    finally:
        for layer, activation in before:
            layer.activation = activation
