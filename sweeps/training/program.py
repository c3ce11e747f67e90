"""A compiled training program: one call runs many steps, and all trials of one shape reuse it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import tensorflow as tf

from masksweep.strategies.core import audit
from masksweep.strategies.core.training import Training
from masksweep.strategies.plan import Array, Plan
from masksweep.sweeps.components.datasets import named
from masksweep.sweeps.components.datasets.named import Named, Weighted
from masksweep.sweeps.components.datasets.stored_images import BYTE_RANGE
from masksweep.sweeps.components.optimizers.base import rate_variables
from masksweep.sweeps.training import model_ends
from masksweep.sweeps.training.losses import training_loss
from masksweep.sweeps.training.program_shape import Shape
from masksweep.sweeps.training.scores import SCORES
from masksweep.sweeps.training.step_loop import StepLoop
from masksweep.sweeps.training.steps import LossLimit, Progress, Steps

Lane = Sequence[Array]
"""Values of the variables of one trial, in the order of `Training.all_variables`."""
MAX_EVALUATED_SAMPLES = 4096
"""Largest number of samples in one call of the evaluation."""


class Program:
    """The compiled training of one model under one strategy and one optimizer.

    Weights, masks, held values, learning rate and data order are values, so nothing is compiled
    again for another trial of the same shape.

    Args:
        shape: The shape of the program.
        model: A built Keras model, which no other program uses.
        plan: A plan of that shape; `start` can put another one in its place.
    """

    def __init__(self, shape: Shape, model: Any, plan: Plan) -> None:
        self.shape = shape
        self._loss = training_loss(
            model,
            shape.task,
            shape.heads,
            loss=shape.loss,
            loss_weights=shape.loss_weights,
            class_weights=shape.class_weights,
        )
        self.training = Training(
            model,
            shape.strategy,
            plan,
            optimizer=shape.optimizer.build(pure=shape.width > 1),
            loss=self._loss,
            trainable=shape.trainable,
            statistics=shape.statistics,
        )
        rates = {id(v): n for n, v in enumerate(rate_variables(self.training.optimizer))}
        self._rates = {
            i: rates[id(v)] for i, v in enumerate(self.training.variables) if id(v) in rates
        }
        """By the index of a variable in `training.variables`: the number of its rate."""
        # a variable, because TensorFlow multiplies by the inverse of a constant, which is inexact
        self._byte_range = tf.Variable(BYTE_RANGE, trainable=False)
        masked = bool(self.training.masked)
        self.loop = StepLoop(self._step, self._count if masked else None, jit=shape.jit)
        self._evaluate = trace_for_any_size(self.losses)
        self._predict = tf.function(self.outputs, autograph=False)
        self._outputs = trace_for_any_size(self.outputs)
        self._gradients = tf.function(self.training.gradients, autograph=False)
        self._dense_gradients = tf.function(self._dense_gradients_of, autograph=False)

    def start(
        self, weights: Mapping[str, Array], state: Sequence[Array], plan: Plan, rate: float
    ) -> list[Array]:
        """The values of all variables at the start of a trial.

        Args:
            weights: Initial values of the trainable weights by name.
            state: Initial values of the non-trainable variables, in the model's order.
            plan: The masked weights.
            rate: The learning rate.

        Raises:
            Invalid: The plan does not fit the program; see `Training.start`.
        """
        arrays = self.training.start(weights, state, plan)
        values = replace(self.shape.optimizer, learning_rate=rate).rates
        for index, number in self._rates.items():
            arrays[index] = np.asarray(values[number], arrays[index].dtype)
        return arrays

    # -- the interface that `PackedProgram` has too, here with one lane --------------------------

    @property
    def single_program(self) -> Program:
        """This program; for a `PackedProgram`, the program that shows the values of one lane."""
        return self

    @property
    def compile_seconds(self) -> float:
        return self.loop.compile_seconds

    def run(
        self, x: Any, y: Any, order: Any, steps: Steps, limits: Sequence[LossLimit] = ()
    ) -> list[Progress]:
        """Trains; see `StepLoop.run`. `order` may have a leading axis of size 1."""
        order = tf.convert_to_tensor(order, tf.int32)
        order = tf.reshape(order, order.shape[-2:])
        return self.loop.run(x, y, order, steps, limits or [LossLimit()])

    def lanes(self, count: int | None = None) -> list[Lane]:
        """The values of the first `count` variables, by default of all, as a list of one lane."""
        return [[np.asarray(v.numpy()) for v in self.training.all_variables[:count]]]

    def evaluate_lanes(self, x: Any, y: Any) -> list[tuple[float, float]]:
        """The result of `evaluate`, as a list of one lane."""
        return [self.evaluate(x, y)]

    def outputs_of_lanes(self, x: Any) -> Array:
        """Outputs for all samples, `[1, samples, outputs]`, without training."""
        parts = range(0, named.count(x), MAX_EVALUATED_SAMPLES)
        outputs = [self._outputs(named.take(x, slice(i, i + MAX_EVALUATED_SAMPLES))) for i in parts]
        return np.concatenate(outputs)[np.newaxis]

    # -- in a graph ----------------------------------------------------------------------------

    def _step(self, x: Any, y: Any, order: Any, i: Any) -> tuple[Any, Any]:
        # not a slice, which XLA would compile again for every start index
        rows = tf.gather(order, i)
        targets = self.targets(y, rows)
        loss, outputs = self.training.step(self.inputs(x, rows), targets)
        return loss, self.score(targets, outputs)

    def score(self, targets: Any, outputs: Any) -> Any:
        """The score of a batch, a scalar in a graph; that of the first of several outputs.

        Samples count the same, whatever their weights.
        """
        if isinstance(targets, Weighted):
            targets = targets.targets
        if self.shape.heads is not None:
            first = next(iter(self.shape.heads))
            targets = targets[first]
            outputs = model_ends.by_name(self.training.model, outputs)[first]
        return SCORES[self.shape.task](targets, outputs)

    def targets(self, y: Any, rows: Any) -> Any:
        """The targets in these rows of `y`, as tensors in a graph."""
        return named.map_arrays(lambda array: tf.gather(array, rows), y)

    def inputs(self, x: Any, rows: Any) -> Any:
        """The inputs in these rows of `x`, as tensors in a graph; bytes as numbers in [0, 1]."""
        return self._numbers(named.map_arrays(lambda array: tf.gather(array, rows), x))

    def _numbers(self, x: Any) -> Any:
        """Inputs as floating-point numbers, in a graph."""
        # only the rows of StoredImages are bytes here; DataSet.load makes float32 of other uint8
        is_bytes = not isinstance(x, Mapping) and x.dtype == tf.uint8
        return tf.cast(x, tf.float32) / self._byte_range if is_bytes else x

    def entries(self) -> list[tuple[Any, Any, Any]]:
        """(dense values, mask, held values) of each masked weight, as tensors in a graph."""
        training = self.training
        return [
            (weight, masked.kept.value, masked.held.value)
            for w, weight in zip(training.weights, training.effective(), strict=True)
            if (masked := training.masked.get(w.name))
        ]

    def _count(self) -> tuple[Any, Any]:
        counts = [audit.count_violations(*entry) for entry in self.entries()]
        return tf.add_n([c for c, _ in counts]), tf.reduce_max([d for _, d in counts])

    def outputs(self, x: Any) -> Any:
        """Outputs of the model for one batch without training, in a graph.

        Returns:
            `[batch, outputs]` float32; several outputs stand side by side.
        """
        outputs = self.training.forward(x, training=False)[0]
        return model_ends.side_by_side(self.training.model, self.shape.heads, outputs)

    def losses(self, x: Any, y: Any) -> tuple[Any, Any]:
        """(mean loss, accuracy or mean squared error) of one batch, as tensors in a graph.

        As in Keras, the loss has the terms that layers add, such as those of regularizers.
        """
        outputs, _, added = self.training.forward(x, training=False)
        loss = self._loss.unweighted(y, outputs)
        return loss + sum(tf.cast(term, loss.dtype) for term in added), self.score(y, outputs)

    def evaluate(self, x: Any, y: Any) -> tuple[float, float]:
        """(mean loss, accuracy or mean squared error) over all samples, without training."""
        sums, samples = np.zeros(2), named.count(x)
        for i in range(0, samples, MAX_EVALUATED_SAMPLES):
            part = slice(i, i + MAX_EVALUATED_SAMPLES)
            inputs, targets = named.take(x, part), named.take(y, part)
            sums += [float(a) * named.count(inputs) for a in self._evaluate(inputs, targets)]
        loss, score = sums / samples
        return float(loss), float(score)

    def predict(self, x: Any) -> Array:
        """Outputs of the model as it is now, `[samples, outputs]`."""
        return np.asarray(self._predict(x))

    def gradients(self, x: Any, y: Any) -> dict[str, Any]:
        """Gradients of a batch as the optimizer gets them, by weight name; trains nothing."""
        by_name: dict[str, Any] = self._gradients(x, y)
        return by_name

    def dense_gradients(self, x: Any, y: Any) -> dict[str, Any]:
        """Gradients of a batch by the dense weights, by the names of the masked weights."""
        by_name: dict[str, Any] = self._dense_gradients(x, y)
        return by_name

    def _dense_gradients_of(self, x: Any, y: Any) -> dict[str, Any]:
        return self.training.dense_gradients(self._numbers(x), y)

    def effective(self) -> dict[str, Array]:
        """The effective weights by name: dense, as the strategy computes them now."""
        training = self.training
        return {
            w.name: np.asarray(a)
            for w, a in zip(training.weights, training.effective(), strict=True)
        }

    def raw(self) -> dict[str, Array]:
        """The raw variables behind the masked weights, where they have the weight's shape."""
        training = self.training
        return {
            w.name: np.asarray(v.numpy())
            for w, v in zip(training.weights, training.values, strict=True)
            if w.name in training.masked and training.masked[w.name].has_weight_order
        }

    def raw_drift(self, start: Mapping[str, Array]) -> float | None:
        """Largest absolute change of a raw variable at a masked entry.

        Args:
            start: Raw variables by name at the start, as `raw` returns them.

        Returns:
            The largest change, or None if no raw variable has a masked entry.
        """
        changes = [
            np.abs(now - start[name])[~self.training.masked[name].kept.numpy()]
            for name, now in self.raw().items()
        ]
        return max((float(m.max()) for m in changes if m.size), default=None)


def trace_for_any_size(call: Callable[..., Any]) -> Callable[..., Any]:
    """`call` as a `tf.function` that is traced once for batches of any number of samples."""

    @cache
    def traced(*batches: Any) -> Any:
        return tf.function(call, input_signature=batches, autograph=False)

    def spec(batch: Array) -> tf.TensorSpec:
        return tf.TensorSpec((None, *batch.shape[1:]), batch.dtype)

    def called(*batches: named.Part) -> Any:
        specs = (named.map_arrays(spec, batch) for batch in batches)
        return traced(*(Named(s) if isinstance(s, dict) else s for s in specs))(*batches)

    return called
