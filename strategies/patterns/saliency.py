"""The base class of patterns that mask by saliency: scores of weights before the training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from masksweep.strategies.errors import Invalid, require
from masksweep.strategies.patterns.base import Pattern, Shapes, check_sparsity
from masksweep.strategies.patterns.problem import Problem
from masksweep.strategies.patterns.ranking import Scope, check_scope, keep_largest
from masksweep.strategies.plan import Array, Mask


@dataclass(frozen=True)
class Saliency(Pattern):
    """Base class of patterns that keep the weights with the largest scores.

    A subclass computes the scores in `scores`, with TensorFlow.

    Raises:
        Invalid: The sparsity is outside [0, 1), or the scope is unknown.
    """

    sparsity: float = 0.9
    """Fraction of the entries that is masked, in [0, 1)."""
    scope: Scope = "global"
    """Whether the entries of each weight are ranked, or those of all weights together."""

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        check_scope(self.scope)

    @property
    def needs_model(self) -> bool:
        return True

    def scores(self, problem: Problem, names: Sequence[str], seed: int) -> dict[str, Array]:
        """Returns the score of each entry of the targeted weights. The largest are kept.

        Args:
            problem: The model with its data and its loss.
            names: Names of the targeted weights.
            seed: Seed of the choice of samples.
        """
        raise NotImplementedError

    def from_problem(
        self, problem: Problem, weights: Mapping[str, Array], seed: int
    ) -> dict[str, Mask]:
        scores = self.scores(problem, list(weights), seed)
        return keep_largest(self.checked(scores), self.sparsity, self.scope)

    def checked(self, scores: dict[str, Array]) -> dict[str, Array]:
        """Returns the scores.

        Raises:
            Invalid: All scores are zero, or a score is not finite.
        """
        for name, array in scores.items():
            if not np.isfinite(array).all():
                raise Invalid("pattern", self.name, f"no scores of {name}: they are not finite")
        if not any(array.any() for array in scores.values()):
            allowed = "no scores: all are zero, so the outputs do not depend on the weights"
            raise Invalid("pattern", self.name, allowed)
        return scores

    def from_weights(self, weights: Mapping[str, Array], seed: int) -> dict[str, Mask]:
        raise Invalid("pattern", self.name, "must be made with a model and its data")

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        """Returns masks of equal scores: their number of masked entries in all is right."""
        equal = {name: np.zeros(shape) for name, shape in shapes.items()}
        return keep_largest(equal, self.sparsity, self.scope)


@dataclass(frozen=True)
class LossSaliency(Saliency):
    """Base class of patterns that score weights by derivatives of the loss on training samples.

    A subclass computes the scores in `derivatives`.

    Raises:
        Invalid: The sparsity is outside [0, 1), the scope is unknown, `samples` is below 1, or
            there are no data.
    """

    samples: int = 256
    """Number of training samples of which the loss is computed, chosen by the seed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.samples >= 1, "samples", self.samples, "at least 1")

    def scores(self, problem: Problem, names: Sequence[str], seed: int) -> dict[str, Array]:
        import tensorflow as tf

        sample = problem.sample(self.samples, seed)
        weights = {name: tf.constant(array) for name, array in problem.weights.items()}
        targeted = [weights[name] for name in names]
        derivatives = self.derivatives(lambda: sample.mean_loss(list(weights.values())), targeted)
        products = (
            _float64(weight) * _float64(derivative)
            for weight, derivative in zip(targeted, derivatives, strict=True)
        )
        return {name: self.score(p) for name, p in zip(names, products, strict=True)}

    def derivatives(self, loss: Callable[[], Any], weights: Sequence[Any]) -> list[Any]:
        """Returns a derivative of the loss for each weight, in the shape of the weight.

        Args:
            loss: Computes the loss.
            weights: The tensors to differentiate by.
        """
        raise NotImplementedError

    def score(self, product: Array) -> Array:
        """Returns the scores of a weight's entries from `weight * derivative`."""
        return product


def gradients(tape: Any, loss: Any, weights: Sequence[Any]) -> list[Any]:
    """Returns the gradients of a loss as tensors; zeros where it does not depend on a weight.

    Args:
        tape: The `tf.GradientTape` that recorded the loss.
        loss: A scalar.
        weights: The tensors to differentiate by. Gradients of look-ups become dense.
    """
    import tensorflow as tf

    tensors = tape.gradient(loss, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return [tf.convert_to_tensor(gradient) for gradient in tensors]


def _float64(tensor: Any) -> Array:
    array: Array = np.asarray(tensor).astype(np.float64)
    return array
