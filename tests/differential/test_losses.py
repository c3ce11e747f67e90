"""Compares Keras and the dense strategy for each loss, without and with weights of the classes."""

from __future__ import annotations

import inspect
from typing import Any, get_args

import keras
import numpy as np
import pytest
import tensorflow as tf

from masksweep.strategies.core.audit import same_bits
from masksweep.sweeps.components.datasets.arrays import Task
from masksweep.sweeps.components.losses import DEFAULT_LOSS, KERAS_LOSSES, losses_for
from masksweep.sweeps.components.losses.keras_losses import LEFT_OUT
from masksweep.sweeps.components.metrics import KERAS_METRICS
from masksweep.sweeps.training.keras_metrics import compute
from masksweep.sweeps.training.losses import TrainingLoss, balanced
from tests.support.selection import by_default

from .compare import Case, assert_same, by_keras

ALL = [(task, name) for task in get_args(Task) for name in losses_for(task)]
TRAINED = [
    ("classification", "sparse_categorical_crossentropy"),
    ("classification", "categorical_focal_crossentropy"),
    ("multi_label", "binary_crossentropy"),
    ("regression", "huber"),
]
WEIGHTS = (0.5, 3.0, 1.25)
NOT_SETTINGS = {"from_logits", "axis", "reduction", "name", "dtype"}
"""Arguments of losses that a config cannot give."""


@pytest.mark.parametrize(("task", "name"), ALL)
def test_a_loss_and_its_gradient(task: Task, name: str) -> None:
    """Of a batch. `test_a_loss` trains with it."""
    description = KERAS_LOSSES[name]
    options = {"from_logits": True} if description.from_logits else {}
    theirs = getattr(keras.losses, description.keras_class)(**options)
    rng = np.random.default_rng(0)
    outputs = tf.constant(rng.uniform(0.1, 2, (5, 3)).astype("float32"))
    targets = np.abs(rng.normal(size=(5, 3))).astype("float32")
    expected = targets
    if task == "multi_label":
        expected = targets = (targets > 0.5).astype("float32")
    if task == "classification":
        targets = targets.argmax(-1).astype("int32")
        integers = description.classes_as_integers
        expected = targets if integers else keras.utils.to_categorical(targets, 3)
    for weights in (None, WEIGHTS) if task == "classification" else (None,):
        loss = TrainingLoss(task, name, weights)
        sample_weight = None if weights is None else np.array(weights, "float32")[targets]
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(outputs)
            ours = loss(tf.constant(targets), outputs)
            keras_loss = theirs(expected, outputs, sample_weight=sample_weight)
        assert same_bits(ours.numpy(), keras_loss.numpy())
        gradients = [tape.gradient(value, outputs).numpy() for value in (ours, keras_loss)]
        assert same_bits(*gradients)
        assert gradients[0].any()


@pytest.mark.parametrize(
    ("text", "theirs"),
    [
        ("categorical_crossentropy(label_smoothing=0.1)", {"label_smoothing": 0.1}),
        ("categorical_focal_crossentropy(alpha=0.5, gamma=1)", {"alpha": 0.5, "gamma": 1.0}),
        ("huber(delta=0.25)", {"delta": 0.25}),
        ("sparse_categorical_crossentropy(ignore_class=2)", {"ignore_class": 2}),
    ],
)
def test_a_loss_with_settings(text: str, theirs: dict[str, Any]) -> None:
    name = text.partition("(")[0]
    description = KERAS_LOSSES[name]
    options = {"from_logits": True} if description.from_logits else {}
    keras_loss = getattr(keras.losses, description.keras_class)(**options, **theirs)
    outputs = tf.constant(np.random.default_rng(0).normal(size=(5, 3)), tf.float32)
    targets = np.array([0, 2, 1, 2, 0], "int32")
    integers = description.classes_as_integers
    expected = keras_loss(targets if integers else np.eye(3, dtype="f4")[targets], outputs)
    ours = TrainingLoss("classification", text)(tf.constant(targets), outputs)
    assert same_bits(ours.numpy(), expected.numpy())
    plain = TrainingLoss("classification", name)(tf.constant(targets), outputs)
    assert ours.numpy() != plain.numpy()


@pytest.mark.parametrize(("task", "name"), by_default(TRAINED, ALL))
def test_a_loss(task: Task, name: str) -> None:
    assert_same(Case(loss=name, task=task, mode="eager"))


@pytest.mark.parametrize(
    "name",
    by_default(
        ["sparse_categorical_crossentropy", "categorical_focal_crossentropy"],
        losses_for("classification"),
    ),
)
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
    settings = {"class_weights": WEIGHTS, "mode": "eager", **others}
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
        parameters = inspect.signature(kind).parameters.items()
        defaults = {key: p.default for key, p in parameters if key not in NOT_SETTINGS}
        assert defaults == loss.defaults, name
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
    found = compute([name], description.tasks[0], ours, outputs)
    assert found == {name: pytest.approx(expected, rel=1e-6)}


def test_each_label_that_is_probable_counts_for_the_f1_score() -> None:
    """By default Keras takes the most probable label alone, as of classes."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, (50, 4)).astype("float32")
    logits = rng.normal(size=(50, 4)).astype("float32") + targets
    values = []
    for threshold in (0.5, None):
        metric = keras.metrics.F1Score(average="macro", threshold=threshold)
        metric.update_state(targets, keras.ops.sigmoid(logits))
        values.append(float(metric.result()))
    assert values[0] > 1.1 * values[1]
    found = compute(["f1_score"], "multi_label", targets, logits)
    assert found == {"f1_score": pytest.approx(values[0], rel=1e-6)}


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    classes = np.array([0, 0, 0, 2, 2, 1], "int32")
    expected = compute_class_weight("balanced", classes=np.arange(3), y=classes)
    assert balanced(classes, 3) == tuple(expected)
    assert balanced(classes, 4) == (*expected, 1.0)
