"""Runs trials of one shape side by side in one program: each variable has a leading axis of lanes.

A lane holds the values of one trial. The step of the single-trial program is mapped over the lanes
with `tf.vectorized_map`, under a `keras.StatelessScope`; so strategies, optimizers and layers need
no code for lanes. Keras' optimizers are pure functions there (see `Optimizer.build`), and each lane
has its own slots and learning rate. So an optimizer that reads whole weights (LAMB, Muon, clipping
by norm) reads those of its own lane only.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import keras
import numpy as np
import tensorflow as tf

from masksweep.strategies.core import audit
from masksweep.strategies.plan import Array
from masksweep.sweeps.components.datasets import named
from masksweep.sweeps.training.program import (
    MAX_EVALUATED_SAMPLES,
    Lane,
    Program,
    trace_for_any_size,
)
from masksweep.sweeps.training.step_loop import StepLoop
from masksweep.sweeps.training.steps import LossLimit, Progress, Steps

MAY_RUN_LANE_BY_LANE = ("StatelessRandom", "StatelessTruncated")
"""Prefixes of operations that may run lane by lane. Random numbers take little of a step's time."""

LOOP_WARNING = re.compile(r"Using a while_loop for converting (\w+)|(\w+) uses a while_loop")
"""TensorFlow's warnings that it runs an operation lane by lane, with the operation's name."""
T = TypeVar("T")


class Unpackable(Exception):
    """Trials of this shape cannot run side by side; the message is the reason."""


class PackedProgram:
    """A program that trains `width` trials at once.

    With the same width, the bits of a trial's result depend neither on its lane nor on the trials
    in the other lanes.

    Args:
        single_program: The program of a single trial. `load_lane` writes the values of a lane into
            it, to evaluate and audit this lane.

    Raises:
        Unpackable: Raised by the first `run`, if an operation of the step does not vectorize or
            compile.
    """

    def __init__(self, single_program: Program) -> None:
        self.single_program, self.width = single_program, single_program.shape.width
        self._variables = single_program.training.all_variables
        self._stacked = [
            tf.Variable(np.zeros((self.width, *v.shape), v.numpy().dtype), trainable=False)
            for v in self._variables
        ]
        self.loop = StepLoop(
            self._step,
            self._count if single_program.training.masked else None,
            lanes=(self.width,),
            jit=True,
            compiling=_require_vectorized,
        )
        self._evaluate = trace_for_any_size(self._losses)
        self._outputs = trace_for_any_size(self._outputs_of_batch)

    @property
    def compile_seconds(self) -> float:
        return self.loop.compile_seconds

    # -- lanes ---------------------------------------------------------------------------------

    def current_lane(self) -> Lane:
        """The values that `single_program` holds now."""
        return [np.asarray(v.numpy()) for v in self._variables]

    def load_lane(self, lane: Lane) -> Program:
        """Writes the values of a lane into `single_program`, and returns `single_program`."""
        self.single_program.training.assign_all(lane)
        return self.single_program

    def set_lanes(self, lanes: Sequence[Lane]) -> None:
        """Sets all lanes. If fewer than `width` are given, copies of the first fill the others."""
        by_variable = zip(*self.pad(lanes), strict=True)
        for stacked, arrays in zip(self._stacked, by_variable, strict=True):
            stacked.assign(np.stack(arrays))

    def lanes(self, count: int | None = None) -> list[Lane]:
        """The values of the first `count` variables, by default of all, for each lane."""
        stacked = [v.numpy() for v in self._stacked[:count]]
        return [[array[i] for array in stacked] for i in range(self.width)]

    def pad(self, items: Sequence[T]) -> list[T]:
        """The items, extended to `width` with copies of the first."""
        return [*items, *[items[0]] * (self.width - len(items))]

    # -- training ------------------------------------------------------------------------------

    def run(
        self, x: Any, y: Any, order: Any, steps: Steps, limits: Sequence[LossLimit] = ()
    ) -> list[Progress]:
        """Trains all lanes; see `StepLoop.run`. `order` is `[lanes, steps, batch]`.

        A lane whose mean loss exceeds its limit makes no more progress; the others go on.
        """
        order = tf.convert_to_tensor(order, tf.int32)
        if len(order) < self.width:
            order = tf.gather(order, self.pad(range(len(order))))
        return self.loop.run(x, y, order, steps, self.pad(limits or [LossLimit()]))

    def _step(self, x: Any, y: Any, order: Any, i: Any) -> tuple[Any, Any]:
        rows = tf.gather(order, i, axis=1)
        values = [v.value() for v in self._stacked]
        new_values, loss, score = self._map(
            self._step_of_lane,
            (values, self.single_program.inputs(x, rows), self.single_program.targets(y, rows)),
        )
        for variable, array in zip(self._stacked, new_values, strict=False):
            variable.assign(array)
        return loss, score

    def _step_of_lane(self, lane_inputs: Any) -> Any:
        values, x, y = lane_inputs
        with self._scope(values) as scope:
            training = self.single_program.training
            loss, outputs = training.step(x, y)
            new_values = [scope.get_current_value(v) for v in training.variables]
        return new_values, loss, self.single_program.score(y, outputs)

    def _count(self) -> Any:
        def entries(values: Any) -> Any:
            with self._scope(values):
                return self.single_program.entries()

        weights = self._map(entries, [v.value() for v in self._stacked])
        counts = [
            audit.count_violations(weight, kept, held, lanes=True) for weight, kept, held in weights
        ]
        return tf.add_n([c for c, _ in counts]), tf.reduce_max([d for _, d in counts], axis=0)

    def _scope(self, values: Sequence[Any]) -> Any:
        return keras.StatelessScope(list(zip(self._variables, values, strict=True)))

    def _map(self, function: Any, elements: Any) -> Any:
        return tf.vectorized_map(function, elements, fallback_to_while_loop=True, warn=True)

    # -- scores --------------------------------------------------------------------------------

    def evaluate_lanes(self, x: Any, y: Any) -> list[tuple[float, float]]:
        """(mean loss, accuracy or mean squared error) over all samples, for each lane."""
        sums, samples = np.zeros((2, self.width)), named.count(x)
        batch_size = max(1, MAX_EVALUATED_SAMPLES // self.width)
        for i in range(0, samples, batch_size):
            inputs, targets = (named.take(part, slice(i, i + batch_size)) for part in (x, y))
            sums += [
                value.numpy().astype(float) * named.count(inputs)
                for value in self._evaluate(inputs, targets)
            ]
        return [(float(loss), float(score)) for loss, score in (sums / samples).T]

    def outputs_of_lanes(self, x: Any) -> Array:
        """Outputs for all samples without training, `[lanes, samples, outputs]`."""
        batch_size = max(1, MAX_EVALUATED_SAMPLES // self.width)
        slices = [slice(i, i + batch_size) for i in range(0, named.count(x), batch_size)]
        return np.concatenate([self._outputs(named.take(x, rows)) for rows in slices], axis=1)

    def _outputs_of_batch(self, x: Any) -> Any:
        def outputs(values: Any) -> Any:
            with self._scope(values):
                return self.single_program.outputs(x)

        return self._map(outputs, [v.value() for v in self._stacked])

    def _losses(self, x: Any, y: Any) -> Any:
        def losses(values: Any) -> Any:
            with self._scope(values):
                return self.single_program.losses(x, y)

        return self._map(losses, [v.value() for v in self._stacked])


@contextmanager
def _require_vectorized() -> Iterator[None]:
    """Context that raises `Unpackable` if a step does not vectorize or compile in it."""
    try:
        with _collect_looped_operations() as kinds:
            yield
    except (MemoryError, tf.errors.ResourceExhaustedError):
        raise  # a lack of memory does not mean that the step cannot be vectorized
    except Exception as error:  # TensorFlow's errors have no common base class
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise Unpackable(f"its step does not compile for lanes: {line}") from error
    if kinds:
        raise Unpackable(f"{', '.join(sorted(kinds))} cannot run side by side")


@contextmanager
def _collect_looped_operations() -> Iterator[set[str]]:
    """Context that collects the operations that TensorFlow runs lane by lane.

    Those of `MAY_RUN_LANE_BY_LANE` are left out.
    """
    kinds: set[str] = set()

    class WarningCollector(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            match = LOOP_WARNING.match(record.getMessage())
            if match and not (kind := match[1] or match[2]).startswith(MAY_RUN_LANE_BY_LANE):
                kinds.add(kind)
            return not match

    collector, logger = WarningCollector(), tf.get_logger()
    logger.addFilter(collector)
    try:
        yield kinds
    finally:
        logger.removeFilter(collector)
