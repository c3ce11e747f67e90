"""Trains a model by Keras, by `Training` and by `apply` with the dense strategy, and compares."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from masksweep.strategies import Plan, apply
from masksweep.strategies.core.audit import same_bits
from masksweep.strategies.core.training import Training
from masksweep.strategies.dense import Dense
from masksweep.sweeps.components.datasets.arrays import Task
from masksweep.sweeps.components.losses import KERAS_LOSSES
from masksweep.sweeps.training.losses import TrainingLoss

from . import models, optimizers
from .layer_kinds import KINDS

Mode = Literal["graph", "eager"]
STEPS: dict[Mode, int] = {"graph": 4, "eager": 2}
"""Number of steps. In a graph, the steps after the first one take no time."""
OUTPUTS = 3


@dataclass(frozen=True)
class Case:
    """The model, optimizer and settings of one comparison."""

    kind: str = "Dense"
    """Kind of layer. Several kinds, separated by `|`, are side by side in one model."""
    optimizer: str = "Adam"
    option: str = "none"
    form: str = "functional"
    policy: str = "float32"
    mode: Mode = "graph"
    wrapper: str = ""
    seed: int = 0
    loss: str = "mean_squared_error"
    """A name of `KERAS_LOSSES`."""
    task: Task = "regression"
    class_weights: tuple[float, ...] | None = None

    def model(self) -> Any:
        kinds = [KINDS[name] for name in self.kind.split("|")]
        kind = kinds[0] if len(kinds) == 1 else models.beside(kinds)
        return models.make(partial(models.FORMS[self.form], kind), self.data()[0][0], self.policy)

    def data(self) -> tuple[Any, Any]:
        dtype = "float64" if self.policy == "float64" else "float32"
        x, y = models.data(KINDS[self.kind.split("|")[0]], dtype, STEPS[self.mode], self.seed)
        return x, y.argmax(-1).astype("int32") if self.task == "classification" else y

    def new_optimizer(self, model: Any) -> Any:
        return optimizers.make(self.optimizer, self.option, model, self.wrapper)


def by_keras(case: Case, masked: bool = False) -> dict[str, list[Any]]:
    """Returns all values that training changes, at the start and after a training by Keras.

    Args:
        case: What is trained.
        masked: Whether the model is one of `apply`, with the dense strategy for each kernel.
    """
    model = case.model()
    start = _arrays(model.trainable_variables)
    optimizer = case.new_optimizer(model)
    if masked:
        model = apply(model, _half_of_kernels, "dense")
    loss, class_weight = KERAS_LOSSES[case.loss], None
    if case.class_weights:
        class_weight = dict(enumerate(case.class_weights))
    model.compile(
        optimizer,
        loss=getattr(keras.losses, loss.keras_class)(
            **({"from_logits": True} if loss.from_logits else {})
        ),
        jit_compile=False,
        run_eagerly=case.mode == "eager",
    )
    for x, y in zip(*case.data(), strict=True):
        if case.task == "classification" and not loss.classes_as_integers:
            y = keras.utils.to_categorical(y, OUTPUTS)
        model.train_on_batch(x, y, class_weight=class_weight)
    model.optimizer.finalize_variable_values(model.trainable_variables)
    return _values(start, model.trainable_variables, model.non_trainable_variables, model.optimizer)


def _half_of_kernels(name: str, shape: tuple[int, ...]) -> Any:
    """A mask for `apply`. SpectralNormalization writes to its kernel, so it cannot be masked."""
    masked = name.endswith("kernel") and "spectral" not in name
    return np.arange(np.prod(shape)).reshape(shape) % 2 if masked else None


def by_training(case: Case) -> dict[str, list[Any]]:
    """Returns the same values after a training by `Training`, which may raise `Invalid`."""
    model = case.model()
    start = _arrays(model.trainable_variables)
    loss = TrainingLoss(case.task, case.loss, case.class_weights)
    training = Training(model, Dense(), Plan(), optimizer=case.new_optimizer(model), loss=loss)
    step = tf.function(training.step) if case.mode == "graph" else training.step
    for x, y in zip(*case.data(), strict=True):
        step(tf.constant(x), tf.constant(y))
    training.finalize()
    return _values(start, training.values, training.state, training.optimizer)


def _values(start: Any, weights: Any, state: Any, optimizer: Any) -> dict[str, list[Any]]:
    groups = {"weights": weights, "state": state, "optimizer": optimizer.variables}
    return {"start": start, **{name: _arrays(group) for name, group in groups.items()}}


def _arrays(variables: Any) -> list[Any]:
    return [np.array(v.numpy()) for v in variables]


def assert_same(
    case: Case, keras_values: dict[str, list[Any]] | None = None, *, masked: bool = False
) -> None:
    """Asserts that two trainings end with the same bits, and that the weights changed.

    Args:
        case: What is trained.
        keras_values: The result of `by_keras`, if it is known already.
        masked: Whether `apply` is compared with Keras, else `Training`.
    """
    keras_values = keras_values or by_keras(case)
    ours = by_keras(case, masked=True) if masked else by_training(case)
    if case.policy == "float32":  # with fewer bits, Adam's small steps may round to zero
        pairs = zip(keras_values["start"], keras_values["weights"], strict=True)
        assert any(not same_bits(a, b) for a, b in pairs), "nothing was trained"
    for group, arrays in keras_values.items():
        assert len(arrays) == len(ours[group])
        for index, (keras_array, our_array) in enumerate(zip(arrays, ours[group], strict=True)):
            assert same_bits(keras_array, our_array), f"{case}: {group} {index} differ"
