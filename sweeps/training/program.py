"""A compiled training program: many steps in one call, reused for every trial of its shape."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from masksweep.strategies.base import Array, Plan, Strategy
from masksweep.strategies.core import audit
from masksweep.strategies.core.training import Training
from masksweep.sweeps.components.datasets.base import Task
from masksweep.sweeps.components.models import Model
from masksweep.sweeps.components.optimizers import Optimizer
from masksweep.sweeps.training.step_loop import StepLoop
from masksweep.sweeps.training.steps import LossLimit, Progress, Steps

Lane = Sequence[Array]
"""The values of all variables of one trial."""
SLICE = 4096
"""Samples that are evaluated at once."""
KEPT = 16
"""Programs that a process keeps; the least recently used goes first."""


@dataclass(frozen=True)
class Shape:
    """Everything that shapes the graph of a program. All else enters as values."""

    strategy: Strategy
    model: Model
    optimizer: Optimizer
    inputs: tuple[int, ...]
    outputs: int
    task: Task
    trainable: tuple[str, ...]
    masked: tuple[tuple[Any, ...], ...]
    """Name of each masked weight, and the shapes of its `Binding.constants`."""
    jit: bool
    statistics: tuple[str, ...] | None = None
    width: int = 1
    """Trials that run side by side (see `vectorized`)."""

    @classmethod
    def of(cls, plan: Plan, strategy: Strategy, optimizer: Optimizer, **given: Any) -> Shape:
        constants = strategy.bind().constants
        masked = tuple((w.weight.name, *(a.shape for a in constants(w))) for w in plan.weights)
        # the learning rate is a variable, so one program serves all
        timeless = replace(optimizer, learning_rate=1.0)
        return cls(strategy=strategy, optimizer=timeless, masked=masked, **given)


_programs: OrderedDict[Shape, Any] = OrderedDict()


def kept(shape: Shape, make: Callable[[], Any]) -> Any:
    """The process's program of this shape; made if there is none yet."""
    if shape not in _programs:
        _programs[shape] = make()
    _programs.move_to_end(shape)
    while len(_programs) > KEPT:
        _programs.popitem(last=False)
    return _programs[shape]


def forget(shape: Shape) -> None:
    """Let go of the process's program of this shape."""
    _programs.pop(shape, None)


def programs() -> list[Any]:
    """The programs that the process keeps, the least recently used first."""
    return list(_programs.values())


def clear_programs() -> None:
    """Let go of all programs of the process."""
    _programs.clear()


@contextmanager
def without_programs() -> Iterator[None]:
    """For a while the process has no programs; afterwards those that it had before."""
    before = dict(_programs)
    _programs.clear()
    try:
        yield
    finally:
        _programs.clear()
        _programs.update(before)


class Program:
    """One model, strategy and optimizer, compiled; weights, masks and data order are values."""

    def __init__(self, shape: Shape, model: Any, plan: Plan) -> None:
        self.shape = shape
        classify = shape.task == "classification"
        self._loss = (
            keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            if classify
            else keras.losses.MeanSquaredError()
        )
        self.score = _accuracy if classify else _mse
        self.training = Training(
            model,
            shape.strategy,
            plan,
            optimizer=shape.optimizer.build(pure=shape.width > 1),
            loss=self._loss,
            trainable=shape.trainable,
            statistics=shape.statistics,
        )
        rate = self.training.optimizer.learning_rate
        self._rate = next(i for i, v in enumerate(self.training.variables) if v is rate)
        masked = bool(self.training.masked)
        self.loop = StepLoop(self._step, self._count if masked else None, jit=shape.jit)
        self._evaluate = of_any_size(self.losses)
        self._predict = tf.function(
            lambda x: self.training.forward(x, training=False)[0], autograph=False
        )
        self._gradients = tf.function(self.training.gradients, autograph=False)

    def start(
        self, weights: Mapping[str, Array], state: Sequence[Array], plan: Plan, rate: float
    ) -> list[Array]:
        """As `Training.start`, with a learning rate."""
        found = self.training.start(weights, state, plan)
        found[self._rate] = np.asarray(rate, found[self._rate].dtype)
        return found

    # -- as `Packed` has it, with one lane -----------------------------------------------------

    @property
    def one(self) -> Program:
        """The program that looks at a lane."""
        return self

    @property
    def compile_seconds(self) -> float:
        return self.loop.compile_seconds

    def run(
        self, x: Any, y: Any, order: Any, steps: Steps, limits: Sequence[LossLimit] = ()
    ) -> list[Progress]:
        """Train; see `StepLoop.run`. `order` may have a leading axis of one lane."""
        order = tf.convert_to_tensor(order, tf.int32)
        order = tf.reshape(order, order.shape[-2:])
        return self.loop.run(x, y, order, steps, limits or [LossLimit()])

    def lanes(self, count: int | None = None) -> list[Lane]:
        """The values of the first variables, by default of all."""
        return [[np.asarray(v.numpy()) for v in self.training.all_variables[:count]]]

    def evaluate_lanes(self, x: Any, y: Any) -> list[tuple[float, float]]:
        """As `evaluate`."""
        return [self.evaluate(x, y)]

    # -- in a graph ----------------------------------------------------------------------------

    def _step(self, x: Any, y: Any, order: Any, i: Any) -> tuple[Any, Any]:
        # gathered: a slice would be compiled anew by XLA for every start
        rows = tf.gather(order, i)
        targets = tf.gather(y, rows)
        loss, outputs = self.training.step(tf.gather(x, rows), targets)
        return loss, self.score(targets, outputs)

    def entries(self) -> list[tuple[Any, Any, Any]]:
        """In a graph: (dense values, mask, held values) of each masked weight, to be audited."""
        training = self.training
        return [
            (weight, masked.kept.value, masked.held.value)
            for w, weight in zip(training.weights, training.effective(), strict=True)
            if (masked := training.masked.get(w.name))
        ]

    def _count(self) -> tuple[Any, Any]:
        counts = [audit.count(*entry) for entry in self.entries()]
        return tf.add_n([c for c, _ in counts]), tf.reduce_max([d for _, d in counts])

    def losses(self, x: Any, y: Any) -> tuple[Any, Any]:
        outputs = self.training.forward(x, training=False)[0]
        return self._loss(y, outputs), self.score(y, outputs)

    def evaluate(self, x: Any, y: Any) -> tuple[float, float]:
        """(mean loss, accuracy or mean squared error) of the samples."""
        sums = np.zeros(2)
        for i in range(0, len(x), SLICE):
            part = slice(i, i + SLICE)
            sums += [float(a) * len(x[part]) for a in self._evaluate(x[part], y[part])]
        loss, score = sums / len(x)
        return float(loss), float(score)

    def predict(self, x: Any) -> Array:
        """The live model's outputs, `[samples, outputs]`."""
        return np.asarray(self._predict(x))

    def gradients(self, x: Any, y: Any) -> dict[str, Any]:
        """What the optimizer gets for a batch now, as `Training.gradients`; trains nothing."""
        found: dict[str, Any] = self._gradients(x, y)
        return found

    def effective(self) -> dict[str, Array]:
        """The dense weights by name."""
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
            if w.name in training.masked and tuple(v.shape) == w.shape
        }

    def raw_drift(self, start: Mapping[str, Array]) -> float | None:
        """Largest move of a raw variable at a masked entry since `start`; None without any."""
        moves = [
            np.abs(now - start[name])[~self.training.masked[name].kept.numpy()]
            for name, now in self.raw().items()
        ]
        return max((float(m.max()) for m in moves if m.size), default=None)


def of_any_size(call: Callable[..., Any]) -> Callable[..., Any]:
    """A function of batches as a graph, traced once whatever the number of samples."""

    @cache
    def traced(*batches: tf.TensorSpec) -> Any:
        return tf.function(call, input_signature=batches, autograph=False)

    def called(*batches: Array) -> Any:
        given = (tf.TensorSpec((None, *b.shape[1:]), b.dtype) for b in batches)
        return traced(*given)(*batches)

    return called


def _accuracy(targets: Any, outputs: Any) -> Any:
    right = tf.equal(tf.cast(tf.argmax(outputs, -1), targets.dtype), targets)
    return tf.reduce_mean(tf.cast(right, tf.float32))


def _mse(targets: Any, outputs: Any) -> Any:
    return tf.reduce_mean(tf.square(targets - outputs))
