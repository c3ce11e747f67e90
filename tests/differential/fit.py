"""Trains the model of a dense trial by `keras.Model.fit`, and compares the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from masksweep.strategies.core.audit import same_bits
from masksweep.strategies.core.weights import values
from masksweep.sweeps.components.datasets.named import Weighted
from masksweep.sweeps.components.losses import DEFAULT_LOSS, KERAS_LOSSES
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.training import setup
from masksweep.sweeps.training.loop import single_trial_loop
from masksweep.sweeps.training.step_counts import step_counts
from tests.support.trials import trial

SMALL: dict[str, Any] = {
    "strategy": "dense",
    "model": "logistic",
    "data": "digits",
    "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9},
    "speed": {"rounds": 0},
}
TRAIN: dict[str, Any] = {"epochs": 3, "batch_size": 200, "shuffle": False, "jit": False}


def dense(train: dict[str, Any] | None = None, **sections: Any) -> Trial:
    """A dense trial that takes the samples of each epoch in the order of the data."""
    return trial(**{**SMALL, **sections, "train": {**TRAIN, **(train or {})}})


def fitted(
    spec: Trial,
    optimizer: Any,
    *,
    class_weight: dict[int, float] | None = None,
    callbacks: Callable[[], list[Any]] = list,
    model: Any = None,
) -> dict[str, Any]:
    """Returns the weights by name after `keras.Model.fit` with the trial's loss.

    Args:
        spec: The trial. It does not shuffle its samples.
        optimizer: The Keras optimizer.
        class_weight: Argument of `fit`.
        callbacks: Makes the callbacks of `fit`.
        model: A new Keras model of the trial's network; by default a copy of the trial's own.
    """
    start = setup.start(spec)
    model = model or keras.models.clone_model(start.model)
    for variable, value in zip(model.trainable_variables, start.weights.values(), strict=True):
        variable.assign(value)
    for variable, value in zip(model.non_trainable_variables, start.state, strict=True):
        variable.assign(value)
    loss = KERAS_LOSSES[spec.train.loss or DEFAULT_LOSS[start.data.task]]

    def split(part: tuple[Any, Any]) -> tuple[Any, Any]:
        x, y = part
        y = y.targets if isinstance(y, Weighted) else y
        one_hot = start.data.task == "classification" and not loss.classes_as_integers
        return x, keras.utils.to_categorical(y, start.data.outputs) if one_hot else y

    settings = {"from_logits": True} if loss.from_logits else {}
    metrics = ["accuracy"] if start.data.task == "classification" else []
    model.compile(
        optimizer,
        loss=getattr(keras.losses, loss.keras_class)(**settings),
        metrics=metrics,
        jit_compile=False,
    )
    x, y = split(start.data.train)
    targets = start.data.train[1]
    weights = targets.weights if isinstance(targets, Weighted) else None
    used = step_counts(spec, len(x))[0] * spec.train.batch_size
    model.fit(
        x[:used],
        y[:used],
        batch_size=spec.train.batch_size,
        epochs=spec.train.epochs,
        shuffle=False,
        verbose=0,
        class_weight=class_weight,
        sample_weight=None if weights is None else weights[:used],
        validation_data=split(start.data.validation) if start.data.validation else None,
        callbacks=callbacks(),
    )
    return dict(zip(start.weights, values(model).values(), strict=True))


def trained(spec: Trial) -> dict[str, Any]:
    """Returns the weights by name after the training of the trial, before its audit."""
    loop = single_trial_loop(setup.start(spec))
    loop.run()
    program = loop.program.single_program
    program.training.finalize()
    return program.effective()


def assert_same_as_fit(spec: Trial, optimizer: Any, **fit_arguments: Any) -> None:
    """Asserts that the trial ends with the same bits as `keras.Model.fit`."""
    expected, ours = fitted(spec, optimizer, **fit_arguments), trained(spec)
    assert expected.keys() == ours.keys()
    for name, array in expected.items():
        assert same_bits(np.asarray(array), np.asarray(ours[name])), name
