"""Trials that start from the weights of a file: the names and shapes, identity, masks, outputs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from masksweep.strategies import Invalid
from masksweep.strategies.core.audit import same_bits, same_weights
from masksweep.strategies.core.weights import values
from masksweep.strategies.plan import Array
from masksweep.sweeps.components.initializers import network
from masksweep.sweeps.components.models import MODELS
from masksweep.sweeps.components.models.mlp import MLP
from masksweep.sweeps.components.models.resnet import ResNet
from masksweep.sweeps.config.sections import Start
from masksweep.sweeps.config.trial import Trial, parse
from masksweep.sweeps.results import TrialResult
from masksweep.sweeps.training.preflight import check_plans
from masksweep.sweeps.training.run_trial import build_start, run
from masksweep.sweeps.training.start_weights import from_file
from tests.support.trials import BASE, trial

STILL = {"train": {"epochs": 0, "batch_size": 100, "jit": False}, "speed": {"rounds": 0}}


def saved(model: Any, path: Path) -> str:
    model.save(path)
    return str(path)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Array]]:
    """A file with the weights of `BASE`'s network, and these weights. A third of them is zero."""
    net = network(MLP(hidden=(12, 8)), (64,), 10)
    model, rng = net.build(5), np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape) * rng.integers(0, 3, variable.shape))
    return saved(model, tmp_path_factory.mktemp("start") / "net.keras"), values(model)


def make(path: str, **sections: Any) -> Trial:
    return trial(**{**STILL, "start": {"path": path}, **sections})


def test_every_model_starts_from_a_file_of_its_own(tmp_path: Path) -> None:
    """The weights and the moving statistics, whatever the seed; random states are drawn."""
    for model in (ResNet(8, 2), MODELS["cnn1d"](), MODELS["gru"]()):
        inputs = (8, 8, 1) if model.name == "resnet" else (16,)
        net = network(model, inputs, 3)
        given = net.build(7)
        for variable in given.non_trainable_variables:
            if "moving" in variable.path:
                variable.assign(variable + 3)
        start = Start(path=saved(given, tmp_path / f"{model.name}.keras"))
        weights, state = from_file(start, net, net.initial(0))
        assert same_weights(weights, values(given))
        found = [np.asarray(v.numpy()) for v in given.non_trainable_variables]
        for variable, array, other in zip(given.non_trainable_variables, state, found, strict=True):
            assert same_bits(array, other) or "seed" in variable.path


def test_a_trial_starts_from_the_file_whatever_its_seed(
    digits: tuple[str, dict[str, Array]],
) -> None:
    path, stored = digits
    for seed in (0, 1):
        start = build_start(make(path, seed=seed), None)
        assert not isinstance(start, TrialResult)
        assert same_weights(start.weights, stored)


def test_the_content_is_the_identity(digits: tuple[str, Any], tmp_path: Path) -> None:
    path = digits[0]
    copy = str(shutil.copy(path, tmp_path / "elsewhere.keras"))
    assert make(path).id == make(copy).id
    assert make(path).id == make(copy, start={"path": copy, "run": "a" * 32}).id
    assert make(path).id != trial(**STILL).id
    keras.models.load_model(copy, compile=False).save(copy)
    assert make(path).id != make(copy).id
    assert trial(start={}).id == trial().id


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another width": (
        {"model": {"name": "mlp", "hidden": [12, 9]}},
        "has hidden_2/kernel of shape (12, 8), and the model needs (12, 9); "
        "start.new=[hidden_2/kernel] draws the outputs that the file lacks",
    ),
    "a smaller layer": (
        {"model": {"name": "mlp", "hidden": [11, 8]}},
        "has hidden_1/kernel of shape (64, 12), and the model needs (64, 11)",
    ),
    "another layer": (
        {"model": {"name": "mlp", "hidden": [12, 8, 8]}},
        "has no hidden_3/kernel, which the model has; start.new=[hidden_3/kernel] draws it",
    ),
    "more inputs": (
        {"data": "wine"},
        "has hidden_1/kernel of shape (64, 12), and the model needs (13, 12)",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_the_first_weight_that_does_not_fit_is_named(kind: str, digits: tuple[str, Any]) -> None:
    sections, said = REFUSED[kind]
    with pytest.raises(Invalid) as caught:
        check_plans([make(digits[0], **sections)])
    assert str(caught.value) == f"start.path={digits[0]}: {said}"


def test_a_glob_of_new_must_match(digits: tuple[str, Any]) -> None:
    start = {"path": digits[0], "new": ["outputs/*"]}
    with pytest.raises(Invalid, match=r"start\.new=outputs/\*: matches no weight; the weights are"):
        check_plans([make(digits[0], start=start)])


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = network(MLP(hidden=(12, 8)), (64,), 10).build(0)
    model.trainable_variables[0].assign(np.full((64, 12), np.nan))
    path = saved(model, tmp_path / "nan.keras")
    with pytest.raises(Invalid, match="numbers in hidden_1/kernel that are not finite"):
        check_plans([make(path)])


def test_a_file_is_refused_before_tensorflow_loads_it(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((64,)), keras.layers.Lambda(lambda x: x)])
    path = saved(model, tmp_path / "code.keras")
    with pytest.raises(Invalid, match="has a Lambda, which may bring code") as caught:
        make(path)
    assert caught.value.key == "start.path"
    with pytest.raises(Invalid, match=r"must be a \.keras file"):
        make("net.h5")


def test_a_run_is_fetched_by_the_driver_only() -> None:
    with pytest.raises(Invalid, match="fetched by masksweep run, plan and submit only"):
        parse({**BASE, "start": {"run": "a" * 32}})


# -- masks of the weights in the file --------------------------------------------------------


def test_masks_follow_from_the_magnitudes_in_the_file(digits: tuple[str, dict[str, Array]]) -> None:
    path, stored = digits
    start = build_start(make(path, pattern={"name": "smallest", "sparsity": 0.5}, seed=3), None)
    assert not isinstance(start, TrialResult)
    for masked in start.plan.weights:
        sizes = np.abs(stored[masked.weight.name])
        assert sizes[masked.mask].min() >= sizes[~masked.mask].max()
        assert 0.4 < masked.mask.mean() < 0.6


def test_the_zeros_in_the_file_are_kept(digits: tuple[str, dict[str, Array]]) -> None:
    path, stored = digits
    train = {"epochs": 1, "batch_size": 100, "jit": False}
    result = run(make(path, pattern="zeros", strategy="hard_mask", targets=["*"], train=train))
    zeros = sum(int((array == 0).sum()) for array in stored.values())
    size = sum(array.size for array in stored.values())
    assert result.metrics["sparsity/achieved"] == pytest.approx(zeros / size)
    assert result.metrics["integrity/ok"] == 1
    assert result.metrics["integrity/moved"] > 0


def test_the_preflight_sees_the_masks_of_the_file(tmp_path: Path) -> None:
    model = network(MLP(hidden=(12, 8)), (64,), 10).build(0)
    kernel = model.get_layer("hidden_1").kernel
    kernel.assign(kernel * np.r_[np.zeros(2), np.ones(10)])
    path = saved(model, tmp_path / "cut.keras")
    (answer,) = check_plans([make(path, pattern="zeros")])
    assert answer.cut_off == "hidden_1/kernel 2 of 12 units"


# -- a classifier with new outputs -----------------------------------------------------------


def test_old_outputs_are_held_while_new_ones_train(tmp_path: Path) -> None:
    old = network(MLP(hidden=(12, 8)), (64,), 6).build(1)
    path, stored = saved(old, tmp_path / "old.keras"), values(old)
    grown = make(
        path,
        start={"path": path, "new": ["output/*"]},
        strategy="var_list",
        pattern={"name": "columns", "indices": list(range(6))},
        held="init",
        targets=["output/*"],
        train={"epochs": 1, "batch_size": 100, "jit": False},
    )
    start = build_start(grown, None)
    assert not isinstance(start, TrialResult)
    others = build_start(trial(**STILL), None)
    assert not isinstance(others, TrialResult)
    for name in ("output/kernel", "output/bias"):
        assert same_bits(start.weights[name][..., :6], stored[name])
        assert same_bits(start.weights[name][..., 6:], others.weights[name][..., 6:])
    result = run(grown)
    assert result.metrics["integrity/ok"] == 1
    assert result.metrics["integrity/violations"] == 0
