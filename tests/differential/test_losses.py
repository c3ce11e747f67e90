"""Compares Keras and the dense strategy for each loss, without and with weights of the classes."""

from __future__ import annotations

import inspect
from typing import Any, get_args

import keras
import numpy as np
import pytest

from masksweep.sweeps.components.datasets.base import Task
from masksweep.sweeps.components.losses import DEFAULT_LOSS, KERAS_LOSSES, losses_for
from masksweep.sweeps.components.losses.keras_losses import LEFT_OUT
from masksweep.sweeps.components.metrics import KERAS_METRICS
from masksweep.sweeps.training.keras_metrics import compute
from masksweep.sweeps.training.losses import balanced

from .compare import Case, assert_same, by_keras


@pytest.mark.parametrize(
    ("task", "name"), [(task, name) for task in get_args(Task) for name in losses_for(task)]
)
def test_a_loss(task: Task, name: str) -> None:
    assert_same(Case(loss=name, task=task, mode="eager"))


@pytest.mark.parametrize("name", losses_for("classification"))
def test_weights_of_classes(name: str) -> None:
    assert_same(weighted(name))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_weighted_loss_under_half_precision(policy: str) -> None:
    assert_same(weighted("categorical_focal_crossentropy", policy=policy))


def test_weights_change_the_training() -> None:
    with_weights, without = weighted("huber"), weighted("huber", class_weights=None)
    kernels = [by_keras(case)["weights"][0] for case in (with_weights, without)]
    assert not np.array_equal(*kernels)


def weighted(loss: str, **others: Any) -> Case:
    settings = {"class_weights": (0.5, 3.0, 1.25), "mode": "eager", **others}
    return Case(loss=loss, task="classification", **settings)


def test_every_loss_of_keras_can_be_named_or_is_left_out_for_a_reason() -> None:
    functions = {
        name
        for name, function in inspect.getmembers(keras.losses, inspect.isfunction)
        if name not in ("get", "serialize", "deserialize")
    }
    assert functions == KERAS_LOSSES.keys() | LEFT_OUT.keys()
    assert not KERAS_LOSSES.keys() & LEFT_OUT.keys()
    for name, loss in KERAS_LOSSES.items():
        kind = getattr(keras.losses, loss.keras_class)
        assert loss.from_logits == ("from_logits" in inspect.signature(kind).parameters), name
        assert kind().name in (name, f"{name}_loss", f"{name}_error"), name
    assert all(task in KERAS_LOSSES[name].tasks for task, name in DEFAULT_LOSS.items())


@pytest.mark.parametrize("name", KERAS_METRICS)
def test_a_metric_is_what_evaluate_of_keras_returns(name: str) -> None:
    description = KERAS_METRICS[name]
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(50, 7)).astype("float32")
    classes = rng.integers(0, 7, 50)
    metric = getattr(keras.metrics, description.keras_class)(**description.settings)
    assert metric.name == name
    if description.tasks == ("regression",):
        targets, last = np.abs(rng.normal(size=(50, 7))).astype("float32"), "linear"
        outputs = np.abs(outputs)  # some metrics take the logarithm
    else:
        targets = classes if description.classes_as_integers else np.eye(7)[classes]
        last = "softmax" if description.probabilities else "linear"
    model = keras.Sequential([keras.Input((7,)), keras.layers.Activation(last)])
    model.compile(
        loss=lambda targets, outputs: keras.ops.sum(outputs, -1),
        metrics=[metric],
        run_eagerly=True,
    )
    expected = model.evaluate(outputs, targets, batch_size=50, verbose=0, return_dict=True)[name]
    ours = targets if description.tasks == ("regression",) else classes
    assert compute([name], ours, outputs) == {name: pytest.approx(expected, rel=1e-6)}


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    classes = np.array([0, 0, 0, 2, 2, 1], "int32")
    expected = compute_class_weight("balanced", classes=np.arange(3), y=classes)
    assert balanced(classes, 3) == tuple(expected)
    assert balanced(classes, 4) == (*expected, 1.0)
