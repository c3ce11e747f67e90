"""Trials of one shape side by side in one program: every variable has a leading axis of lanes.

What runs is the alone program's own step, mapped over the lanes (`tf.vectorized_map`) under a
`keras.StatelessScope`, so no strategy, optimizer or layer has to know of it. Keras' optimizers are
pure functions there (see `Optimizer.build`), each lane with its own slots and learning rate, and so
also those that look at whole weights (LAMB, Muon, clipping by norm) see their own lane's only.
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
from masksweep.sweeps.training.program import SLICE, Lane, Program, of_any_size
from masksweep.sweeps.training.step_loop import StepLoop
from masksweep.sweeps.training.steps import LossLimit, Progress, Steps

IN_TURN = ("StatelessRandom", "StatelessTruncated")
"""Operations that may run lane by lane: drawing random numbers is little of a step."""

LOOPED = re.compile(r"Using a while_loop for converting (\w+)|(\w+) uses a while_loop")
T = TypeVar("T")


class Unpackable(Exception):
    """Why trials of a shape cannot run side by side."""


class Packed:
    """`width` trials in one program. `one` is the same for a single trial, to look at a lane with.

    Within one width, a trial's bits depend neither on its lane nor on its neighbours. Raises
    `Unpackable` at the first run where an operation of the step does not vectorize or compile.
    """

    def __init__(self, one: Program) -> None:
        self.one, self.width = one, one.shape.width
        self._variables = one.training.all_variables
        self._stacked = [
            tf.Variable(np.zeros((self.width, *v.shape), v.numpy().dtype), trainable=False)
            for v in self._variables
        ]
        self.loop = StepLoop(
            self._step,
            self._count if one.training.masked else None,
            lanes=(self.width,),
            jit=True,
            compiling=_vectorizing,
        )
        self._evaluate = of_any_size(self._losses)

    @property
    def compile_seconds(self) -> float:
        return self.loop.compile_seconds

    # -- lanes ---------------------------------------------------------------------------------

    def lane(self) -> Lane:
        """What `one` holds now."""
        return [np.asarray(v.numpy()) for v in self._variables]

    def look(self, lane: Lane) -> Program:
        """`one`, with the values of a lane."""
        self.one.training.put(lane)
        return self.one

    def fill(self, lanes: Sequence[Lane]) -> None:
        """Start with these, at most `width`; the first fills the rest up."""
        by_variable = zip(*self.padded(lanes), strict=True)
        for stacked, arrays in zip(self._stacked, by_variable, strict=True):
            stacked.assign(np.stack(arrays))

    def lanes(self, count: int | None = None) -> list[Lane]:
        """The values of every lane: of the first variables, by default of all."""
        stacked = [v.numpy() for v in self._stacked[:count]]
        return [[array[i] for array in stacked] for i in range(self.width)]

    def padded(self, given: Sequence[T]) -> list[T]:
        """As many as there are lanes."""
        return [*given, *[given[0]] * (self.width - len(given))]

    # -- training ------------------------------------------------------------------------------

    def run(
        self, x: Any, y: Any, order: Any, steps: Steps, limits: Sequence[LossLimit] = ()
    ) -> list[Progress]:
        """Train all lanes; see `StepLoop.run`. `order` is `[lanes, epoch, batch]`.

        A lane whose mean loss is not within its limit makes no progress any more; the others go on.
        """
        order = tf.convert_to_tensor(order, tf.int32)
        if len(order) < self.width:
            order = tf.gather(order, self.padded(range(len(order))))
        return self.loop.run(x, y, order, steps, self.padded(limits or [LossLimit()]))

    def _step(self, x: Any, y: Any, order: Any, i: Any) -> tuple[Any, Any]:
        rows = tf.gather(order, i, axis=1)
        values = [v.value() for v in self._stacked]
        new, loss, score = self._map(
            self._step_of_lane, (values, tf.gather(x, rows), tf.gather(y, rows))
        )
        for variable, array in zip(self._stacked, new, strict=False):
            variable.assign(array)
        return loss, score

    def _step_of_lane(self, given: Any) -> Any:
        values, x, y = given
        with self._scope(values) as scope:
            loss, outputs = self.one.training.step(x, y)
            new = [scope.get_current_value(v) for v in self.one.training.variables]
        return new, loss, self.one.score(y, outputs)

    def _count(self) -> Any:
        def entries(values: Any) -> Any:
            with self._scope(values):
                return self.one.entries()

        found = self._map(entries, [v.value() for v in self._stacked])
        counts = [audit.count(w, kept, held, lanes=True) for w, kept, held in found]
        return tf.add_n([c for c, _ in counts]), tf.reduce_max([d for _, d in counts], axis=0)

    def _scope(self, values: Sequence[Any]) -> Any:
        return keras.StatelessScope(list(zip(self._variables, values, strict=True)))

    def _map(self, one: Any, given: Any) -> Any:
        return tf.vectorized_map(one, given, fallback_to_while_loop=True, warn=True)

    # -- scores --------------------------------------------------------------------------------

    def evaluate_lanes(self, x: Any, y: Any) -> list[tuple[float, float]]:
        """As `Program.evaluate`, of every lane."""
        sums = np.zeros((2, self.width))
        most = max(1, SLICE // self.width)
        for i in range(0, len(x), most):
            part = slice(i, i + most)
            sums += [
                a.numpy().astype(float) * len(x[part]) for a in self._evaluate(x[part], y[part])
            ]
        return [(float(loss), float(score)) for loss, score in (sums / len(x)).T]

    def _losses(self, x: Any, y: Any) -> Any:
        def losses(values: Any) -> Any:
            with self._scope(values):
                return self.one.losses(x, y)

        return self._map(losses, [v.value() for v in self._stacked])


@contextmanager
def _vectorizing() -> Iterator[None]:
    """Raise `Unpackable` for what does not vectorize or compile meanwhile."""
    try:
        with _falling_back() as kinds:
            yield
    except (MemoryError, tf.errors.ResourceExhaustedError):
        raise  # it says nothing of the step
    except Exception as error:  # what TensorFlow raises has no common class
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise Unpackable(f"its step does not compile for lanes: {line}") from error
    if kinds:
        raise Unpackable(f"{', '.join(sorted(kinds))} cannot run side by side")


@contextmanager
def _falling_back() -> Iterator[set[str]]:
    """The kinds of operations that TensorFlow says it runs lane by lane, but those that may."""
    found: set[str] = set()

    class Heard(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            said = LOOPED.match(record.getMessage())
            if said and not (kind := said[1] or said[2]).startswith(IN_TURN):
                found.add(kind)
            return not said

    heard, logger = Heard(), tf.get_logger()
    logger.addFilter(heard)
    try:
        yield found
    finally:
        logger.removeFilter(heard)
