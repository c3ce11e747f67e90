"""The preflight: a child process of the driver that checks the plans of trials."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from masksweep.strategies import Invalid
from masksweep.sweeps.config.plan import PlannedTrial, with_answers
from masksweep.sweeps.training.preflight import Preflight, check, saving_problem
from masksweep.sweeps.training.setup import start
from tests.support import data_files
from tests.support.sweep_process import wait_for
from tests.support.trials import trial


@pytest.fixture(scope="module")
def child() -> Iterator[Preflight]:
    """A preflight that has loaded TensorFlow before it was asked anything."""
    with Preflight() as started:
        maps = Path(f"/proc/{started._child._process.pid}/maps")
        wait_for(lambda: "libtensorflow" in maps.read_text())
        yield started
    assert not started._child._process.is_alive()


def test_it_answers_for_every_trial(child: Preflight) -> None:
    trials = [trial(strategy=s, seed=i) for s in ("weight_mask", "var_list") for i in (0, 1)]
    answers = check(trials, child.ask)
    assert answers.keys() == {t.id for t in trials if t.strategy.name == "var_list"}


def test_it_says_what_is_cut_off(child: Preflight) -> None:
    sparse = {"name": "random", "sparsity": 0.99}
    plain, minimum_fan, dense, held_constant = (
        trial(pattern=sparse),
        trial(pattern={"name": "random", "sparsity": 0.8, "min_fan_in": 1, "min_fan_out": 1}),
        trial(strategy="dense", pattern=sparse),
        trial(pattern=sparse, held={"name": "constant", "value": 0.5}),
    )
    answers = check([plain, minimum_fan, dense, held_constant], child.ask)
    assert answers.keys() == {plain.id}
    masks = start(plain).plan.weights
    counts = [[int((~w.mask).all(axis=axis).sum()) for axis in (0, 1)] for w in masks]
    texts = [f"hidden_1/kernel {counts[0][0]} of 12 units, {counts[0][1]} of 64 inputs",
             f"hidden_2/kernel {counts[1][0]} of 8 units, {counts[1][1]} of 12 inputs"]  # fmt: skip
    assert answers[plain.id].cut_off == "; ".join(texts)
    (shown,) = with_answers([PlannedTrial(plain, [])], answers)
    assert shown.describe()["cut_off"] == answers[plain.id].cut_off


def test_what_cannot_be_planned_comes_back_as_bad_input(child: Preflight) -> None:
    with pytest.raises(Invalid, match=r"targets=nope/\*"):
        check([trial(targets=["nope/*"])], child.ask)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (
            {"model": "resnet"},
            "model=resnet: inputs=(64,) of data=digits must be images [height, width, channels]",
        ),
        (
            {"model": {"name": "keras_file", "path": "sigmoid"}},
            "model.path=sigmoid.keras: ends in a sigmoid; the loss takes logits, so the model",
        ),
        (
            {"model": {"name": "keras_file", "path": "three"}},
            "model.path=three.keras: has outputs of the shape (None, 3); digits has 10 classes, ",
        ),
        (
            {"model": {"name": "keras_file", "path": "image"}},
            "model.path=image.keras: has inputs of the shape (None, 8, 8, 1); it must be that of",
        ),
        (
            {"model": {"name": "cnn1d", "kernels": [100]}},
            "model=cnn1d: cannot be built: ValueError: Computed output size would be zero or negat",
        ),
    ],
)
def test_a_model_that_does_not_fit_its_data_is_one_line(
    child: Preflight, sections: dict[str, Any], said: str, tmp_path: Path
) -> None:
    if path := isinstance(sections["model"], dict) and sections["model"].get("path"):
        file = tmp_path / f"{path}.keras"
        _save(path, file)
        sections = {"model": {**sections["model"], "path": str(file)}}
    with pytest.raises(Invalid) as caught:
        check([trial(**sections)], child.ask)
    assert str(caught.value).replace(f"{tmp_path}/", "").startswith(said)
    assert "\n" not in str(caught.value)


def test_a_layer_that_keras_cannot_load_is_found_without_a_file() -> None:
    import keras

    class Unregistered(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x

    layers: dict[Any, str] = {
        Unregistered: "TypeError: Could not locate class 'Unregistered'. ",
        lambda: keras.layers.Lambda(lambda x: x, name="f"): "ValueError: Requested the deserializa",
        lambda: keras.layers.Dense(4, activation="relu"): "",
    }
    for make, said in layers.items():
        model = keras.Sequential([keras.Input((3,)), make()])
        problem = saving_problem(model)
        assert problem.startswith(said), problem
        assert bool(problem) == bool(said), problem


def _save(kind: str, file: Path) -> None:
    import keras

    inputs = keras.Input((8, 8, 1) if kind == "image" else (64,))
    flat = keras.layers.Flatten()(inputs)
    outputs, activation = (3 if kind == "three" else 10), ("sigmoid" if kind == "sigmoid" else None)
    layer = keras.layers.Dense(outputs, activation, name="output")
    keras.Model(inputs, layer(keras.layers.Dense(4, name="hidden")(flat))).save(file)


def test_an_event_after_the_last_step_of_any_trial_is_one_line(child: Preflight) -> None:
    for key in ("resume_at", "switch_at"):
        trials = [trial(train={"steps": steps, key: 50}) for steps in (100, 10)]
        check(trials[:1], child.ask)
        with pytest.raises(Invalid, match=rf"^train\.{key}=50: must be below 10, the training"):
            check(trials, child.ask)


def test_flops_that_cannot_be_matched_are_one_line(child: Preflight, tmp_path: Path) -> None:
    import keras

    layers = [keras.layers.Conv1D(4, 2), keras.layers.GlobalMaxPooling1D(), keras.layers.Dense(3)]
    keras.Sequential([keras.Input((None, 1)), *layers]).save(tmp_path / "any.keras")
    x = data_files.arrays()["x_train"][..., np.newaxis]
    path = data_files.write_npz(tmp_path / "d.npz", x_train=x, x_test=x[:10])
    trials = [
        trial(
            model={"name": "keras_file", "path": str(tmp_path / "any.keras")},
            data={"name": "npz", "path": path},
            train={"batch_size": 8, "match_flops": match},
        )
        for match in (None, "dense")
    ]
    check(trials[:1], child.ask)
    with pytest.raises(Invalid, match=r"^train\.match_flops=dense: must be null: the products of"):
        check(trials, child.ask)


def test_flops_are_matched_where_there_are_some(child: Preflight) -> None:
    logistic: dict[str, Any] = {"model": {"name": "logistic"}, "targets": ["*/kernel"]}
    matched = {"epochs": 1, "batch_size": 100, "match_flops": "dense"}
    untrained = trial(**logistic, train={**matched, "epochs": 0})
    check([untrained], child.ask)
    nothing_kept = trial(**logistic, train=matched, pattern={"name": "random", "sparsity": 0.9999})
    with pytest.raises(Invalid, match=r"^train\.match_flops=dense: must be null: with these masks"):
        check([nothing_kept], child.ask)


def test_a_model_that_ends_its_process_is_bad_input() -> None:
    with Preflight() as child:
        child._child._process.kill()
        with pytest.raises(Invalid, match="ended the process that built it"):
            check([trial()], child.ask)


def test_one_that_is_left_early_is_gone() -> None:
    with Preflight() as child:
        pass
    assert child._child._process.exitcode is not None
