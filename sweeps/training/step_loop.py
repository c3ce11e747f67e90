"""The compiled loop of training steps, for one trial or for several side by side.

All of it is written for any number of lanes: the shape `[*lanes]` is `[]` for one trial, and
`[width]` for several.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import tensorflow as tf

from masksweep.sweeps.training.steps import NEVER, LossLimit, Progress, Steps, within


class StepLoop:
    """A compiled loop of training steps.

    Args:
        step: `(x, y, order, i) -> (loss, score)`, each `[*lanes]`: in a graph, train on the batch
            in row `i` of the order.
        violations: `() -> (violations int64, largest drift float32)`, each `[*lanes]`: in a graph,
            audit the weights. None if nothing is masked.
        lanes: The shape `[*lanes]`.
        jit: Whether to compile with XLA.
        compiling: Makes a context manager for the calls that trace and compile.
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
        self._compiled: set[tuple[int, ...]] = set()

    def run(
        self, x: Any, y: Any, order: Any, steps: Steps, limits: Sequence[LossLimit]
    ) -> list[Progress]:
        """Train.

        Args:
            x: Inputs of all samples.
            y: Targets of all samples.
            order: Samples of the batches of an epoch, `[*lanes, epoch, batch]` int32.
            steps: Which steps.
            limits: One for each lane.

        Returns:
            What came of the steps, for each lane.
        """
        shapes = (*x.shape, *order.shape)
        if shapes not in self._compiled:  # compile, without training
            tic = time.perf_counter()
            with self._compiling():
                self._call(x, y, order, Steps(0, 0), limits)
            self.compile_seconds += time.perf_counter() - tic
            self._compiled.add(shapes)
        return self._call(x, y, order, steps, limits)

    def _call(
        self, x: Any, y: Any, order: Any, steps: Steps, limits: Sequence[LossLimit]
    ) -> list[Progress]:
        def by_lane(values: Sequence[Any], kind: Any) -> Any:
            return tf.constant(np.reshape(values, self._lanes), kind)

        numbers = (steps.done, steps.count, steps.audit_every, steps.last)
        arrays = self.function(
            x,
            y,
            order,
            [tf.constant(number, tf.int64) for number in numbers],
            by_lane([each.before for each in limits], tf.float64),
            by_lane([each.limit for each in limits], tf.float64),
            by_lane([each.active for each in limits], tf.bool),
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
        done, count, every, last = numbers
        lanes, epoch = self._lanes, order.shape[-2]

        def trains(steps: Any, loss: Any) -> Any:
            of_epoch = tf.cast(done % epoch + steps, tf.float64)
            return active & within(before + loss, of_epoch, limit)

        def goes_on(i: Any, steps: Any, loss: Any, *_: Any) -> Any:
            return (i < count) & tf.reduce_any(trains(steps, loss))

        def body(
            i: Any, steps: Any, loss: Any, score: Any, peak: Any, first: Any, drift: Any
        ) -> Any:
            counts = trains(steps, loss)
            batch_loss, batch_score = self._step(x, y, order, (done + i) % epoch)
            number = done + i + 1
            if self._violations is not None:
                due = (number % every == 0) | (number == last)
                wrong, far = tf.cond(due, self._violations, self._none)
                wrong, far = tf.where(counts, wrong, 0), tf.where(counts, far, 0)
                first = tf.where((wrong > 0) & (first == NEVER), number, first)
                peak, drift = tf.maximum(peak, wrong), tf.maximum(drift, far)
            return (
                i + 1,
                steps + tf.cast(counts, tf.int64),
                loss + tf.where(counts, tf.cast(batch_loss, tf.float64), 0),
                score + tf.where(counts, tf.cast(batch_score, tf.float64), 0),
                peak,
                first,
                drift,
            )

        # sums of single floats are exact in double: a curve must not tell how it was cut up
        none, zero = tf.zeros(lanes, tf.int64), tf.zeros(lanes, tf.float64)
        start = tf.constant(0, tf.int64), none, zero, zero, none, none + NEVER, tf.zeros(lanes)
        return tf.while_loop(goes_on, body, start)[1:]

    def _none(self) -> tuple[Any, Any]:
        return tf.zeros(self._lanes, tf.int64), tf.zeros(self._lanes)
