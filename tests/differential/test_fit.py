"""A dense trial of a sweep ends with the bits of `keras.Model.fit`, whatever its training is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras.optimizers import schedules

from masksweep.sweeps.results import TrialResult
from masksweep.sweeps.training.losses import balanced
from masksweep.sweeps.training.run_trial import run
from tests.support.data_files import write_npz
from tests.support.selection import by_default
from tests.support.trials import trial

from .fit import SMALL, assert_same_as_fit, dense, fitted, trained

OPTIMIZER, RATE = SMALL["optimizer"], 0.1
STEPS = 18
"""Training steps of the trial."""


def sgd(rate: Any = RATE) -> Any:
    return keras.optimizers.SGD(rate, momentum=0.9)


@pytest.mark.parametrize("loss", [None, "categorical_focal_crossentropy"])
def test_a_loss_and_weights_of_classes(loss: str | None) -> None:
    spec = dense({"loss": loss, "class_weight": "balanced"})
    weights = balanced(spec.data.load().train[1], 10)
    assert_same_as_fit(spec, sgd(), class_weight=dict(enumerate(weights)))


@pytest.mark.parametrize(
    ("task", "loss"),
    [
        ("classification", None),
        ("classification", "categorical_focal_crossentropy"),
        ("multi_label", None),
        ("regression", "huber"),
    ],
)
def test_weights_of_samples(task: str, loss: str | None, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = {"classification": np.arange(40) % 3, "multi_label": rng.integers(0, 2, (40, 3))}.get(
        task, rng.normal(size=(40, 2))
    )
    weights = rng.uniform(0, 3, 40) * (np.arange(40) % 5 > 0)  # float64, and zero for a fifth
    arrays = {"y_train": y, "y_test": y[:10], "sample_weight_train": weights}
    path = write_npz(tmp_path / "weighted.npz", **arrays)
    spec = dense({"loss": loss, "batch_size": 9}, data={"name": "npz", "path": path, "task": task})
    assert spec.data.load().train[1].weights.min() == 0
    assert_same_as_fit(spec, sgd())


def test_a_regression() -> None:
    spec = dense({"loss": "huber", "batch_size": 100}, data="diabetes")
    assert_same_as_fit(spec, sgd())


def test_the_comparison_can_fail() -> None:
    spec = dense({"class_weight": [2.0, *[1.0] * 9]})
    expected, ours = fitted(spec, sgd()), trained(spec)
    assert not all(np.array_equal(expected[name], ours[name]) for name in expected)


SCHEDULES: list[tuple[Any, Any]] = [
    ("constant", RATE),
    ({"name": "cosine", "alpha": 0.1}, schedules.CosineDecay(RATE, STEPS, 0.1)),
    (
        {"name": "cosine", "warmup_steps": 5},
        schedules.CosineDecay(0.0, STEPS - 5, warmup_target=RATE, warmup_steps=5),
    ),
    (
        {"name": "step", "boundaries": [4, 11], "factor": 0.3},
        schedules.PiecewiseConstantDecay([4, 11], [RATE, RATE * 0.3, RATE * 0.3**2]),
    ),
    (
        {"name": "exponential", "decay_steps": 3, "decay_rate": 0.7, "staircase": True},
        schedules.ExponentialDecay(RATE, 3, 0.7, True),
    ),
    ("exponential", schedules.ExponentialDecay(RATE, STEPS, 0.1)),
]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    by_default(SCHEDULES[2:4], SCHEDULES),
    ids=lambda schedule: str(schedule)[:30],
)
def test_a_schedule(schedule: Any, expected: Any) -> None:
    spec = dense(optimizer={**OPTIMIZER, "schedule": schedule})
    assert_same_as_fit(spec, sgd(expected))


def test_a_warm_up_before_a_schedule_without_one_in_keras() -> None:
    class ThenStep(schedules.LearningRateSchedule):  # type: ignore[misc]
        def __call__(self, step: Any) -> Any:
            step = keras.ops.cast(step, "float32")
            later = schedules.PiecewiseConstantDecay([4], [RATE, RATE * 0.5])(step - 5)
            return keras.ops.where(step < 5, RATE * (step / 5), later)

    schedule = {"name": "step", "boundaries": [4], "factor": 0.5, "warmup_steps": 5}
    assert_same_as_fit(dense(optimizer={**OPTIMIZER, "schedule": schedule}), sgd(ThenStep()))


@pytest.mark.parametrize("monitor", ["validation/loss", "validation/accuracy"])
def test_early_stopping(monitor: str) -> None:
    stopping = keras.callbacks.EarlyStopping(
        monitor.replace("validation/", "val_"), patience=2, restore_best_weights=True
    )
    spec = dense(
        {"epochs": 30, "early_stopping": {"patience": 2, "monitor": monitor}},
        optimizer={**OPTIMIZER, "learning_rate": 4.0},
    )
    assert_same_as_fit(spec, sgd(4.0), callbacks=lambda: [stopping])
    assert 2 <= stopping.stopped_epoch < 29, "it must end early, and not with the first epochs"
    assert stopping.best_epoch < stopping.stopped_epoch


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        model = keras.Sequential(
            [keras.Input((64,)), keras.layers.Dense(12, "relu"), keras.layers.Dense(10)]
        )
    finally:
        keras.config.set_dtype_policy("float32")
    spec = dense({"mixed_precision": policy}, model={"name": "mlp", "hidden": [12]})
    assert_same_as_fit(spec, sgd(), model=model)


def augmented() -> Any:
    """A network for digits that begins with layers of augmentation, which draw in each step."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((64,)),
            layers.Reshape((8, 8, 1)),
            layers.RandomFlip(),
            layers.RandomTranslation(0.2, 0.2),
            layers.RandomRotation(0.1),
            layers.RandomContrast(0.2),
            layers.Flatten(),
            layers.Dense(10, name="output"),
        ]
    )


def test_augmentation_as_layers_of_the_model(tmp_path: Path) -> None:
    path = str(tmp_path / "net.keras")
    augmented().save(path)
    file = {"name": "keras_file", "path": path}
    spec = dense({"epochs": 2}, model=file, data={"name": "digits", "validation": 0.0})
    assert_same_as_fit(spec, sgd(), model=keras.models.load_model(path))
    masked = trial(
        model=file,
        targets=["output/kernel"],
        train={"epochs": 2, "jit": False},
        speed={"rounds": 0},
    )
    first, again = (run(masked, lambda _: None, None) for _ in range(2))
    assert isinstance(first, TrialResult)
    assert isinstance(again, TrialResult)
    assert first.metrics["integrity/ok"] == 1
    assert first.tags["trial.weights_sha256"] == again.tags["trial.weights_sha256"]
