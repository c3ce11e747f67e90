"""Losses, metrics and class weights in whole trials, alone and in a pack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from masksweep.strategies import Invalid
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.results import TrialResult
from masksweep.sweeps.training import iterative_pruning, pack, preflight, setup
from masksweep.sweeps.training.checkpoint import Checkpoints
from masksweep.sweeps.training.loop import single_trial_loop
from masksweep.sweeps.training.run_trial import run
from masksweep.sweeps.training.state import PackMember
from tests.support.data_files import write_npz
from tests.support.trials import BASE, trial

METRICS = ["sparse_categorical_accuracy", "auc", "sparse_categorical_crossentropy"]


def make(width: int = 1, seed: int = 0, **train: Any) -> Trial:
    settings = {**BASE["train"], "jit": width > 1, **train}
    return trial(train=settings, speed={"rounds": 0}, launch={"pack": width}, seed=seed)


def test_metrics_are_recorded_beside_the_accuracy() -> None:
    reports: list[Any] = []
    result = run(make(metrics=METRICS), reports.append)
    curves = [report.metrics for report in reports if report.metrics]
    for part, metrics in [("test", result.metrics), ("validation", curves[0])]:
        accuracy = metrics[f"{part}/sparse_categorical_accuracy"]
        assert accuracy == pytest.approx(metrics[f"{part}/accuracy"], abs=1e-6)
        crossentropy = metrics[f"{part}/sparse_categorical_crossentropy"]
        assert crossentropy == pytest.approx(metrics[f"{part}/loss"], rel=1e-5)
        assert 0.5 < metrics[f"{part}/auc"] <= 1
    assert not any(name.startswith("train/auc") for name in result.metrics)


def test_the_loss_that_is_evaluated_has_the_terms_of_regularizers_as_in_keras() -> None:
    mlp = {"name": "mlp", "hidden": [12], "l2": 0.05}
    loop = single_trial_loop(setup.start(trial(strategy="dense", model=mlp, speed={"rounds": 0})))
    loop.run()
    (scores,) = loop.scores("validation")
    model = loop.program.single_program.training.model
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = loop.runs[0].start.data.validation
    assert scores["validation/loss"] == model.evaluate(x, y, batch_size=len(y), verbose=0)
    assert sum(model.losses) > 0.1


@pytest.mark.slow  # compiles a pack
def test_metrics_and_class_weights_in_a_pack() -> None:
    train = {"metrics": METRICS, "class_weight": "balanced", "loss": "categorical_crossentropy"}
    members = [
        PackMember(spec, lambda report: None, Checkpoints(f"memory://{seed}", spec.id, 60))
        for seed, spec in enumerate(make(2, seed, **train) for seed in (0, 1))
    ]
    for seed, packed in enumerate(pack.run(members)):
        assert isinstance(packed, TrialResult), packed
        alone = run(make(1, seed, **train))
        for name in ("train/loss", *(f"test/{name}" for name in ("loss", *METRICS))):
            assert packed.metrics[name] == pytest.approx(alone.metrics[name], abs=1e-3), name


def test_the_loss_of_test_and_validation_has_no_class_weights() -> None:
    """A weight of 2 for each class doubles the loss and, with a constant step, nothing else."""
    plain, doubled = (run(make(class_weight=w)).metrics for w in (None, [2.0] * 10))
    # Adam divides by the size of the gradient, but for its epsilon
    for name in ("validation/loss", "test/loss"):
        assert doubled[name] == pytest.approx(plain[name], rel=1e-3)
    assert doubled["train/loss"] == pytest.approx(2 * plain["train/loss"], rel=1e-3)


def test_the_number_of_class_weights_is_checked_before_the_first_trial() -> None:
    with pytest.raises(Invalid, match=r"train\.class_weight=.*must have 10 numbers"):
        preflight.check_plans([make(class_weight=[1, 2])])
    answers = preflight.check([make(), make(class_weight="balanced")], preflight.check_plans)
    assert not answers


@pytest.mark.parametrize(
    "pattern",
    [{"name": "snip"}, {"name": "grasp"}, {"name": "magnitude", "round": 1, "rounds": 3}],
    ids=lambda pattern: pattern["name"],
)
def test_samples_without_weight_choose_no_mask(pattern: dict[str, Any], tmp_path: Path) -> None:
    def masks(classes: Any, weights: Any) -> Any:
        arrays = {"y_train": classes, "sample_weight_train": weights}
        data = {"name": "npz", "path": write_npz(tmp_path / "d.npz", **arrays), "validation": 0.0}
        train = {**BASE["train"], "batch_size": 10, "jit": False}
        start = setup.start(trial(data=data, train=train, pattern=pattern))
        plan = iterative_pruning.with_masks(start, None).plan
        return np.concatenate([w.mask.ravel() for w in plan.weights])

    classes, weights = np.arange(40) % 3, np.where(np.arange(40) < 20, 2.0, 0.0)
    others = np.where(weights > 0, classes, (classes + 1) % 3)
    expected = masks(classes, weights)
    np.testing.assert_array_equal(masks(others, weights), expected)
    assert not np.array_equal(masks(others, None), expected)


def test_weights_of_classes_and_of_samples_are_refused_together(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "d.npz", sample_weight_train=np.ones(40))
    train = {**BASE["train"], "batch_size": 8, "class_weight": "balanced"}
    with pytest.raises(Invalid, match=r"train\.class_weight=balanced: must be null, as in Keras: "):
        preflight.check_plans([trial(data={"name": "npz", "path": path}, train=train)])


def test_scores_by_gradients_are_of_the_trials_loss() -> None:
    pattern = {"name": "snip", "sparsity": 0.5}

    def masks(**train: Any) -> Any:
        spec = trial(pattern=pattern, train={**BASE["train"], "jit": False, **train})
        return np.concatenate([w.mask.ravel() for w in setup.start(spec).plan.weights])

    assert not np.array_equal(masks(), masks(loss="mean_absolute_error"))
