"""Through what a held entry moved: one training step, looked at after each of its stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import numpy as np

from masksweep.strategies.base import Array, Mask
from masksweep.strategies.core.audit import bits
from masksweep.strategies.core.keras_internals import AVERAGE, DECAY, UPDATE
from masksweep.strategies.core.slots import slots_of
from masksweep.strategies.core.training import Training

Cause = Literal["form", "decay", "gradient", "slots", "update", "EMA", "constraint"]
"""What first made an entry differ from its held value:

form: how the strategy writes the effective weight down (a product with the mask gives -0.0);
decay: the optimizer's weight decay, which assigns past the gradients;
gradient: a gradient that is not zero there reached the optimizer;
slots: what earlier gradients left in the optimizer there, with none now;
update: the optimizer's rule itself, with no gradient and fresh slots there: it computes the weight
anew (Ftrl), looks across entries (Muon), or divides zero by zero;
EMA: the average of the weights, written over them;
constraint: a constraint of the variable.
"""


NDCause = Array
"""An array of causes, of a weight's shape; empty where nothing differs."""


def causes(training: Training, x: Any, y: Any) -> list[Cause]:
    """Take one step on a batch, and tell what made held entries differ that differ after it.

    Runs eagerly, and trains: call it before the step in question. Empty if all is held. Wraps
    methods of `keras.optimizers.Optimizer` (Keras 3) for the time of the step.
    """
    seen = Seen(training)
    with seen.listening():
        training.step(x, y)
    return seen.causes()


def causes_of_finalizing(training: Training) -> list[Cause]:
    """As `causes`, for the end of the training, where EMA is written to the weights."""
    seen = Seen(training)
    training.finalize()
    seen.look("EMA")
    return [c for c in seen.causes() if c == "EMA"]  # what differed before is not its doing


class Seen:
    """Which masked entries differ from their held values, and since what."""

    def __init__(self, training: Training) -> None:
        self._training = training
        self._since: dict[str, NDCause] = {}
        for weight in training.weights:
            if weight.name in training.masked:
                self._since[weight.name] = np.full(weight.shape, "", dtype=object)
        self.look("form")

    def _wrong(self) -> dict[str, Mask]:
        training = self._training
        named = zip(training.weights, training.effective(), strict=True)
        found = {}
        for weight, value in named:
            if masked := training.masked.get(weight.name):
                differs = bits(np.asarray(value)) != bits(masked.held.numpy())
                found[weight.name] = ~masked.kept.numpy() & differs
        return found

    def look(self, cause: Cause | dict[str, NDCause]) -> None:
        """Note the cause, or one for each entry, of what differs now and did not before."""
        for name, wrong in self._wrong().items():
            since = self._since[name]
            told = cause[name] if isinstance(cause, dict) else np.full(since.shape, cause, object)
            new = wrong & (since == "")
            since[new] = told[new]
            since[~wrong] = ""

    def causes(self) -> list[Cause]:
        """Of all entries that differ now, in the order of the stages."""
        found = {c for since in self._since.values() for c in since[since != ""].tolist()}
        return [c for c in get_args(Cause) if c in found]

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Look after each stage of the steps that are taken meanwhile."""
        optimizer = self._training.optimizer
        stages: dict[str, Callable[..., Any]] = {
            DECAY: self._after(getattr(optimizer, DECAY), "decay"),
            UPDATE: self._update(getattr(optimizer, UPDATE)),
            AVERAGE: self._after(getattr(optimizer, AVERAGE), "EMA"),
            "apply": self._after(optimizer.apply, "constraint"),
        }
        for name, wrapped in stages.items():
            setattr(optimizer, name, wrapped)
        try:
            yield
        finally:
            for name in stages:
                delattr(optimizer, name)
        self.look("constraint")  # what the strategy set back is held again

    def _after(self, method: Callable[..., Any], cause: Cause) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            found = method(*args, **kwargs)
            self.look(cause)
            return found

        return wrapped

    def _update(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(grads: Any, variables: Any, rate: Any) -> Any:
            told = self._behind(grads, variables)
            found = method(grads, variables, rate)
            self.look(told)
            return found

        return wrapped

    def _behind(self, grads: Any, variables: Any) -> dict[str, NDCause]:
        """Before an update, what would be behind a move, for each entry of each masked weight."""
        import tensorflow as tf

        training, told = self._training, {}
        by_variable = {id(v): g for g, v in zip(grads, variables, strict=True)}
        for weight, value in zip(training.weights, training.values, strict=True):
            if weight.name not in training.masked:
                continue
            behind = np.full(weight.shape, "update", dtype=object)
            gradient = by_variable.get(id(value))
            if tuple(value.shape) == weight.shape and gradient is not None:
                for slot, fresh in slots_of(training, value):
                    behind[slot != fresh] = "slots"
                behind[np.asarray(tf.convert_to_tensor(gradient)) != 0] = "gradient"
            told[weight.name] = behind
        return told
