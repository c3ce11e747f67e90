"""The compiled loop of training steps, for one trial or for several side by side.

Results have the shape `[*lanes]`: `[]` for one trial, and `[width]` for several.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import tensorflow as tf

from masksweep.sweeps.components.datasets import named
from masksweep.sweeps.training.steps import NEVER, LossLimit, Progress, Steps, within


class StepLoop:
    """A compiled loop of training steps.

    Args:
        step: `(x, y, order, i) -> (loss, score)`, each `[*lanes]`. Trains on the batch in row `i`
            of the order. It is traced in a graph.
        violations: `() -> (violations int64, largest drift float32)`, each `[*lanes]`. Audits the
            weights. It is traced in a graph. None if nothing is masked.
        lanes: The shape `[*lanes]`.
        jit: Whether to compile with XLA.
        compiling: Returns a context manager, in which the calls run that trace and compile.
    """

    def __init__(
        self,
        step: Callable[[Any, Any, Any, Any], tuple[Any, Any]],
        violations: Callable[[], tuple[Any, Any]] | None,
        *,
        lanes: tuple[int, ...] = (),
        jit: bool,
        compiling: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._step, self._violations, self._lanes = step, violations, lanes
        self._compiling = compiling
        self.function = tf.function(self._train, jit_compile=jit, autograph=False)
        self.compile_seconds = 0.0
        self._compiled: set[tuple[tuple[int, ...], ...]] = set()

    def run(
        self, x: Any, y: Any, order: Any, steps: Steps, limits: Sequence[LossLimit]
    ) -> list[Progress]:
        """Trains. The first call with inputs of new shapes compiles the loop first.

        Args:
            x: Inputs of all samples, `[samples, ...]`.
            y: Targets of all samples, `[samples, ...]`.
            order: Indices of the samples in the batches of an epoch, or of some of its steps,
                `[*lanes, steps, batch]` int32.
            steps: The steps to run.
            limits: The loss limit of each lane.

        Returns:
            Progress over these steps, for each lane.
        """
        arrays = (*named.arrays_of(x), *named.arrays_of(y), order)
        shapes = tuple(tuple(array.shape) for array in arrays)
        if shapes not in self._compiled:  # compile by a call with no steps
            tic = time.perf_counter()
            with self._compiling():
                self._call(x, y, order, Steps(0, 0), limits)
            self.compile_seconds += time.perf_counter() - tic
            self._compiled.add(shapes)
        return self._call(x, y, order, steps, limits)

    def _call(
        self, x: Any, y: Any, order: Any, steps: Steps, limits: Sequence[LossLimit]
    ) -> list[Progress]:
        def by_lane(values: Sequence[Any], dtype: Any) -> Any:
            return tf.constant(np.reshape(values, self._lanes), dtype)

        epoch = steps.epoch or order.shape[-2]
        step_numbers = (steps.done, steps.count, steps.audit_every, steps.last, epoch)
        arrays = self.function(
            x,
            y,
            order,
            [tf.constant(number, tf.int64) for number in step_numbers],
            by_lane([loss_limit.before for loss_limit in limits], tf.float64),
            by_lane([loss_limit.limit for loss_limit in limits], tf.float64),
            by_lane([loss_limit.active for loss_limit in limits], tf.bool),
        )
        return [
            Progress(int(done), float(loss), float(score), int(peak), int(first), float(drift))
            for done, loss, score, peak, first, drift in zip(
                *(np.atleast_1d(array.numpy()) for array in arrays), strict=True
            )
        ]

    def _train(
        self, x: Any, y: Any, order: Any, numbers: Any, before: Any, limit: Any, active: Any
    ) -> Any:
        done, count, interval, last, epoch = numbers
        lanes, rows = self._lanes, order.shape[-2]

        def is_training(steps: Any, loss: Any) -> Any:
            steps_of_epoch = tf.cast(done % epoch + steps, tf.float64)
            return active & within(before + loss, steps_of_epoch, limit)

        def continues(i: Any, steps: Any, loss: Any, *_: Any) -> Any:
            return (i < count) & tf.reduce_any(is_training(steps, loss))

        def body(
            i: Any, steps: Any, loss: Any, score: Any, peak: Any, first: Any, drift: Any
        ) -> Any:
            training = is_training(steps, loss)
            batch_loss, batch_score = self._step(x, y, order, (done + i) % rows)
            number = done + i + 1
            if self._violations is not None:
                due = (number % interval == 0) | (number == last)
                wrong, distance = tf.cond(due, self._violations, self._none)
                wrong, distance = tf.where(training, wrong, 0), tf.where(training, distance, 0)
                first = tf.where((wrong > 0) & (first == NEVER), number, first)
                peak, drift = tf.maximum(peak, wrong), tf.maximum(drift, distance)
            return (
                i + 1,
                steps + tf.cast(training, tf.int64),
                loss + tf.where(training, tf.cast(batch_loss, tf.float64), 0),
                score + tf.where(training, tf.cast(batch_score, tf.float64), 0),
                peak,
                first,
                drift,
            )

        # summed in float64, so that the chunks of the training do not change the curve
        zero, zeros = tf.zeros(lanes, tf.int64), tf.zeros(lanes, tf.float64)
        start = tf.constant(0, tf.int64), zero, zeros, zeros, zero, zero + NEVER, tf.zeros(lanes)
        return tf.while_loop(continues, body, start)[1:]

    def _none(self) -> tuple[Any, Any]:
        return tf.zeros(self._lanes, tf.int64), tf.zeros(self._lanes)
