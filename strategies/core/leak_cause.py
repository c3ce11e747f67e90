"""Finds the cause of a leak: which stage of a training step moves a masked entry.

It takes one step and compares the masked entries with their held values after each stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import numpy as np

from masksweep.strategies.core.audit import bits
from masksweep.strategies.core.keras_internals import AVERAGE, DECAY, UPDATE
from masksweep.strategies.core.slots import slots_of
from masksweep.strategies.core.training import Training
from masksweep.strategies.plan import Array, Mask

Cause = Literal["form", "decay", "gradient", "slots", "update", "EMA", "constraint"]
"""The first stage that makes a masked entry differ from its held value:

form: the way in which the strategy computes the weight (a product with the mask gives -0.0);
decay: the optimizer's weight decay, which changes the weight without a gradient;
gradient: the optimizer gets a gradient that is not zero at the entry;
slots: the gradient is zero at the entry, but earlier gradients are left in an optimizer slot;
update: the gradient is zero and the slots have their initial values, but the optimizer's rule still
changes the entry: it computes the weight from slots (Ftrl), uses other entries (Muon), or divides
zero by zero;
EMA: the weights are replaced by their averages;
constraint: a constraint of the variable.
"""


CauseArray = Array
"""An object array of causes, in a weight's shape; an empty string where nothing differs."""


def causes(training: Training, x: Any, y: Any) -> list[Cause]:
    """Takes one step on a batch, and returns the causes of all violations after it.

    The step runs eagerly and trains the model. Call this in the state before the step that is to be
    explained. Methods of the optimizer are wrapped during the step.

    Args:
        training: The training, in the state before the step.
        x: Inputs of the batch.
        y: Targets of the batch.

    Returns:
        The causes, in the order of the stages; empty if all masked entries are held.
    """
    recorder = CauseRecorder(training)
    with recorder.recording():
        training.step(x, y)
    return recorder.causes()


def causes_of_finalizing(training: Training) -> list[Cause]:
    """Does the same as `causes` for the end of the training, when EMA replaces the weights.

    Returns:
        `["EMA"]`, or an empty list.
    """
    recorder = CauseRecorder(training)
    training.finalize()
    recorder.record("EMA")
    return [c for c in recorder.causes() if c == "EMA"]  # other causes are older


class CauseRecorder:
    """Records which masked entries differ from their held values, and the first cause of each."""

    def __init__(self, training: Training) -> None:
        self._training = training
        self._first_causes: dict[str, CauseArray] = {}
        for weight in training.weights:
            if weight.name in training.masked:
                self._first_causes[weight.name] = np.full(weight.shape, "", dtype=object)
        self.record("form")

    def _violating_entries(self) -> dict[str, Mask]:
        training = self._training
        named = zip(training.weights, training.effective(), strict=True)
        wrong_entries = {}
        for weight, value in named:
            if masked := training.masked.get(weight.name):
                differs = bits(np.asarray(value)) != bits(masked.held.numpy())
                wrong_entries[weight.name] = ~masked.kept.numpy() & differs
        return wrong_entries

    def record(self, cause: Cause | dict[str, CauseArray]) -> None:
        """Records a cause for each entry that differs now and did not before.

        Args:
            cause: One cause for all these entries, or arrays of causes by weight name.
        """
        for name, wrong in self._violating_entries().items():
            since = self._first_causes[name]
            causes = cause[name] if isinstance(cause, dict) else np.full(since.shape, cause, object)
            new = wrong & (since == "")
            since[new] = causes[new]
            since[~wrong] = ""

    def causes(self) -> list[Cause]:
        """Returns the causes of all entries that differ now, in the order of the stages."""
        present = {c for since in self._first_causes.values() for c in since[since != ""].tolist()}
        return [c for c in get_args(Cause) if c in present]

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Calls `record` after each stage of the steps that are taken inside a `with` block."""
        optimizer = self._training.optimizer
        # a LossScaleOptimizer calls the stages of the optimizer inside it
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
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
        self.record("constraint")  # entries that the strategy set back are held again

    def _after(self, method: Callable[..., Any], cause: Cause) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            self.record(cause)
            return result

        return wrapped

    def _update(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(grads: Any, variables: Any, rate: Any) -> Any:
            entry_causes = self._causes_before_update(grads, variables)
            result = method(grads, variables, rate)
            self.record(entry_causes)
            return result

        return wrapped

    def _causes_before_update(self, grads: Any, variables: Any) -> dict[str, CauseArray]:
        """Returns, before an update, the cause that a change of each entry would have.

        The arrays of causes are by the names of the masked weights.
        """
        import tensorflow as tf

        training, entry_causes = self._training, {}
        by_variable = {id(v): g for g, v in zip(grads, variables, strict=True)}
        for weight, value in zip(training.weights, training.values, strict=True):
            if weight.name not in training.masked:
                continue
            weight_causes = np.full(weight.shape, "update", dtype=object)
            gradient = by_variable.get(id(value))
            if training.masked[weight.name].has_weight_order and gradient is not None:
                for slot, fresh in slots_of(training, value):
                    weight_causes[slot != fresh] = "slots"
                weight_causes[np.asarray(tf.convert_to_tensor(gradient)) != 0] = "gradient"
            entry_causes[weight.name] = weight_causes
        return entry_causes
