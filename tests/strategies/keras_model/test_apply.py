"""The arguments of `apply`, its refusals, and what is saved and exported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import tensorflow as tf
from keras import layers

from masksweep import strategies
from masksweep.strategies import Columns, Random, Rows
from masksweep.strategies.core.audit import same_bits, same_weights
from masksweep.strategies.core.weights import values
from masksweep.strategies.hard_mask import HardMask
from masksweep.strategies.held.constant import Constant
from masksweep.strategies.sparse_tensor import SparseTensor
from masksweep.strategies.weight_mask import WeightMask
from tests.support.keras_models import Fit, convnet, images, penalized


def small() -> Any:
    keras.utils.set_random_seed(5)
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, "relu", name="first"),
            layers.Dense(6, "relu", name="second"),
            layers.Dense(2, name="output"),
        ]
    )


def applied_twice(first: str, second: str) -> Any:
    model = small()
    strategies.apply(model, Random(0.5), first)
    return strategies.apply(model, Random(0.5), second)


def masks(masked: Any) -> dict[str, Any]:
    return {w.weight.name: w.mask for w in masked.plan.weights}


# -- which weights are masked -------------------------------------------------------------------


def test_a_pattern_masks_every_kernel_but_the_last() -> None:
    masked = strategies.apply(small(), Random(0.75), seed=3)
    expected = Random(0.75).masks({"first/kernel": (4, 6), "second/kernel": (6, 6)}, seed=3)
    assert masks(masked).keys() == expected.keys()
    assert all(same_bits(masks(masked)[name], expected[name]) for name in expected)


def test_targets_are_globs() -> None:
    masked = strategies.apply(small(), Random(0.5), targets=["*/bias", "output/*"])
    assert list(masks(masked)) == ["first/bias", "second/bias", "output/kernel", "output/bias"]


def test_the_first_and_the_last_layer_can_stay_dense() -> None:
    masked = strategies.apply(small(), Random(0.5), targets="inner")
    assert list(masks(masked)) == ["second/kernel"]
    masked = strategies.apply(small(), Random(0.5), targets=["*kernel", "!first/*"])
    assert list(masks(masked)) == ["second/kernel", "output/kernel"]
    masked = strategies.apply(small(), Random(0.5), targets="second/*")
    assert list(masks(masked)) == ["second/kernel", "second/bias"]
    masked = strategies.apply(small(), lambda name, shape: np.ones(shape), targets="inner")
    assert list(masks(masked)) == ["second/kernel"]


def test_the_inner_layers_of_a_model_with_two_outputs() -> None:
    def model(hidden: list[str]) -> Any:
        x = start = keras.Input((4,))
        for name in hidden:
            x = layers.Dense(4, name=name)(x)
        return keras.Model(start, [layers.Dense(1, name=name)(x) for name in ("left", "right")])

    masked = strategies.apply(model(["first", "second"]), Random(0.5), targets="inner")
    assert list(masks(masked)) == ["second/kernel"]
    with pytest.raises(ValueError, match="no kernel other than the first and those of the output"):
        strategies.apply(model(["first"]), Random(0.5), targets="inner")
    with pytest.raises(ValueError, match="targets=null: no kernel other than those of the output"):
        strategies.apply(model([]), Random(0.5))


@pytest.mark.parametrize("dtype", [bool, "int64", "float32"])
def test_masks_are_adjacency_matrices(dtype: Any) -> None:
    """In a DataFrame or a sparse matrix, each entry that is not 0 trains."""
    matrix = (np.arange(24).reshape(4, 6) % 3 * -0.5).astype(dtype)
    frame = pd.DataFrame(matrix, columns=[*"abcdef"])
    mixed = frame.astype({"a": object})
    for form in (
        frame,
        mixed,
        scipy.sparse.csr_matrix(matrix),
        scipy.sparse.coo_array(matrix),
        scipy.sparse.dok_matrix(matrix),
    ):
        masked = strategies.apply(small(), {"first/kernel": form})
        assert same_bits(masks(masked)["first/kernel"], matrix != 0)
        masked = strategies.apply(small(), lambda name, shape, form=form: form, targets="first/k*")
        assert same_bits(masks(masked)["first/kernel"], matrix != 0)


def test_masks_are_arrays_by_name_or_glob() -> None:
    columns = np.tile(np.arange(6) % 2, (4, 1))
    choice = {"output/bias": [0, 1], "first/kernel": columns, "second/*": Rows(0.5), "*": columns}
    masked = strategies.apply(small(), choice, targets=["first/kernel", "second/*", "output/bias"])
    assert list(masks(masked)) == ["first/kernel", "second/kernel", "second/bias", "output/bias"]


def test_masks_are_a_function_of_name_and_shape() -> None:
    def lower(name: str, shape: tuple[int, ...]) -> Any:
        return np.tril(np.ones(shape)) if len(shape) == 2 else None

    masked = strategies.apply(small(), lower)
    assert list(masks(masked)) == ["first/kernel", "second/kernel", "output/kernel"]
    assert same_bits(masks(masked)["second/kernel"], np.tril(np.ones((6, 6), bool)))


def test_another_pattern_and_strategy_for_each_weight() -> None:
    masked = strategies.apply(
        small(),
        {"first/*": Columns(0.5), "*/kernel": Random(0.5)},
        {"first/*": "var_list", "second/*": SparseTensor(), "*": WeightMask()},
        held={"output/kernel": "init", "*": 0},
    )
    named = {w.name: w.strategy for w in strategies.summary(masked).weights}
    assert named == {
        "first/kernel": "var_list", "first/bias": "var_list", "second/kernel": "sparse_tensor",
        "second/bias": "", "output/kernel": "weight_mask", "output/bias": "",
    }  # fmt: skip
    masked.compile(keras.optimizers.AdamW(0.01, weight_decay=0.1), "mse")
    generator = np.random.default_rng(0)
    masked.fit(generator.normal(size=(64, 4)), generator.normal(size=(64, 2)), verbose=0)
    assert strategies.audit(masked).ok, strategies.audit(masked)


# -- held values --------------------------------------------------------------------------------


@pytest.mark.parametrize("held", ["zero", 0, 0.5, np.float32(0.5), "init", Constant(-2.0)])
def test_held_values(held: Any) -> None:
    model = small()
    start = values(model)["first/kernel"]
    masked = strategies.apply(model, Random(0.5), held=held, targets=["first/kernel"])
    mask = masks(masked)["first/kernel"]
    number = held.value if isinstance(held, Constant) else 0 if held == "zero" else held
    expected = start[~mask] if held == "init" else np.full(int((~mask).sum()), number, "float32")
    assert same_bits(masked.dense_weights()["first/kernel"][~mask], expected)


def test_held_values_are_arrays_by_name() -> None:
    array = np.arange(24).reshape(4, 6)
    masked = strategies.apply(small(), Random(0.5), held={"first/*": array, "*": "zero"})
    mask = masks(masked)["first/kernel"]
    kernel = masked.dense_weights()["first/kernel"]
    assert same_bits(kernel[~mask], array[~mask].astype("float32"))


# -- refusals -----------------------------------------------------------------------------------


class OwnStep(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(2)
        self(np.ones((1, 4)))

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def train_step(self, data: Any) -> Any:
        return super().train_step(data)


def nested() -> Any:
    return strategies.apply(small(), Random(0.5))(keras.Input((4,)))


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no such weight": (
        lambda: strategies.apply(small(), {"third/kernel": Random(0.5)}),
        "pattern=third/kernel: matches no weight; the weights are first/kernel",
    ),
    "no such target": (
        lambda: strategies.apply(small(), Random(0.5), targets=["conv*"]),
        "targets=conv*: matches no weight; the weights are first/kernel",
    ),
    "mask of another shape": (
        lambda: strategies.apply(small(), {"first/kernel": np.ones((6, 4))}),
        "mask of first/kernel=shape [6, 4]: must be of shape [4, 6]",
    ),
    "mask of other numbers": (
        lambda: strategies.apply(small(), {"output/bias": [0.5, 1]}),
        "mask of output/bias=[0.5]: must be 0 and 1 only",
    ),
    "a frame with gaps": (
        lambda: strategies.apply(small(), {"output/kernel": pd.DataFrame(np.full((6, 2), None))}),
        "mask of output/kernel=[nan, nan, nan]: must be numbers or booleans, of which 0 and False",
    ),
    "a frame of words": (
        lambda: strategies.apply(small(), {"output/kernel": pd.DataFrame(np.full((6, 2), "a"))}),
        "mask of output/kernel=['a', 'a', 'a']: must be numbers or booleans",
    ),
    "a sparse matrix of another shape": (
        lambda: strategies.apply(
            small(), {"first/kernel": scipy.sparse.coo_matrix((2**30, 2**30), dtype="float32")}
        ),
        "mask of first/kernel=shape [1073741824, 1073741824]: must be of shape [4, 6]",
    ),
    "no inner layers": (
        lambda: strategies.apply(
            keras.Sequential([keras.Input((4,)), layers.Dense(2), layers.Dense(2)]),
            Random(0.5),
            targets="inner",
        ),
        "targets=inner: no kernel other than the first and the last; the weights are",
    ),
    "nothing masked": (
        lambda: strategies.apply(small(), lambda name, shape: None),
        "must be a pattern that masks at least one weight",
    ),
    "not a pattern": (
        lambda: strategies.apply(small(), 0.9),  # type: ignore[arg-type]
        "pattern=0.9: must be a pattern, masks by weight name, or a function",
    ),
    "a class": (
        lambda: strategies.apply(small(), Random),  # type: ignore[arg-type]
        "pattern=the class Random without (): must be a pattern, masks by weight name, or a",
    ),
    "a class by glob": (
        lambda: strategies.apply(small(), {"first/*": Random}),
        "pattern=first/*: must have a pattern or a mask, not the class Random without ()",
    ),
    "a function by glob": (
        lambda: strategies.apply(small(), {"first/*": lambda name, shape: np.ones(shape)}),
        "pattern=first/*: must have a pattern or a mask, not a function",
    ),
    "None by glob": (
        lambda: strategies.apply(small(), {"first/*": None, "*": Random(0.5)}),
        "pattern=first/*: must have a pattern or a mask, not None",
    ),
    "a name by glob": (
        lambda: strategies.apply(small(), {"first/*": "random"}),
        "pattern=first/*: must have a pattern or a mask, not 'random'",
    ),
    "no such strategy": (
        lambda: strategies.apply(small(), Random(0.5), "masks"),
        "strategy=masks: must be one of dense, gradient_mask, hard_mask",
    ),
    "no strategy for a weight": (
        lambda: strategies.apply(small(), Random(0.5), {"first/*": "hard_mask"}),
        "strategy=['first/*']: must have a glob that matches second/kernel",
    ),
    "a strategy that refuses": (
        lambda: strategies.apply(small(), Random(0.5), "var_list"),
        "strategy=var_list: first/kernel: a variable splits by whole outputs",
    ),
    "no such held value": (
        lambda: strategies.apply(small(), Random(0.5), held="one"),
        "held=one: must be a number, an array, init or zero",
    ),
    "held values that are too large": (
        lambda: strategies.apply(
            small(), Random(0.5), held={"first/*": np.full((4, 6), 1e300), "*": 0}
        ),
        "must be finite numbers that a float32 can hold",
    ),
    "held values of another shape": (
        lambda: strategies.apply(small(), Random(0.5), held={"*": np.ones(3)}),
        "held values must be numbers of shape (4, 6)",
    ),
    "held at nan": (
        lambda: strategies.apply(small(), Random(0.5), held=float("nan")),
        "value=nan: must be a finite number",
    ),
    "not a model": (
        lambda: strategies.apply(layers.Dense(2), Random(0.5)),
        "must be a keras.Model",
    ),
    "not built": (
        lambda: strategies.apply(keras.Sequential([layers.Dense(2)]), Random(0.5)),
        "must be built: call it on a batch, or give it an Input",
    ),
    "its kernel is freed": (
        lambda: applied_twice("sparse_tensor", "hard_mask"),
        "must be built again: an earlier apply on it has freed first/kernel, because its strategy "
        "stores kept values only",
    ),
    "masked twice": (
        lambda: strategies.apply(strategies.apply(small(), Random(0.5)), Random(0.5)),
        "is masked already; use what export_plain() returns",
    ),
    "its own train_step": (
        lambda: strategies.apply(OwnStep(), {"*/kernel": Random(0.5)}),
        "model=OwnStep: overrides train_step, which a masked model does not call; give apply",
    ),
    "part of another model": (nested, "cannot be a part of another model"),
    "an optimizer of another model": (
        lambda: strategies.apply(small(), Random(0.5)).compile(built_optimizer(), "mse"),
        "must be new: it was built for the variables of another training",
    ),
    "a strategy that could not be loaded": (
        lambda: strategies.apply(small(), Random(0.5), NotRegistered()).save("m.keras"),
        "strategy=not_registered: must be registered to be saved",
    ),
    "the old format": (
        lambda: strategies.apply(small(), Random(0.5)).save("m.h5"),
        "filepath=m.h5: must end in .keras",
    ),
    "a copy without masks": (
        lambda: keras.models.clone_model(strategies.apply(small(), Random(0.5)))(np.ones((1, 4))),
        "has no masks: it is a copy",
    ),
    "audit of a plain model": (lambda: strategies.audit(small()), "must be a masked model"),
}


@dataclass(frozen=True)
class NotRegistered(HardMask):
    name = "not_registered"


def built_optimizer() -> Any:
    optimizer = keras.optimizers.SGD()
    optimizer.build(small().trainable_variables)
    return optimizer


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_call_is_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=r"=.*: ") as raised:
        call()
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir()), "a refused call has written a file"


def test_a_refusal_changes_nothing() -> None:
    model = small()
    before = values(model)
    with pytest.raises(ValueError, match="scattered"):
        strategies.apply(model, Random(0.5), {"first/*": "hard_mask", "*": "var_list"}, held=1)
    assert same_weights(values(model), before)


def test_a_masked_weight_that_its_layer_writes_to_is_refused() -> None:
    keras.utils.set_random_seed(5)
    normal = layers.SpectralNormalization(layers.Dense(4, name="dense"), name="normal")
    model = keras.Sequential([keras.Input((4,)), normal, layers.Dense(1, name="output")])
    masked = strategies.apply(model, Random(0.5), "weight_mask", targets=["normal/kernel"])
    with pytest.raises(ValueError, match="its layer writes to it in the forward pass"):
        masked(np.ones((2, 4)), training=True)


# -- files --------------------------------------------------------------------------------------


def test_a_plain_models_weights_are_held_when_they_are_loaded(tmp_path: Path) -> None:
    trained = small()
    for variable in trained.trainable_variables:
        variable.assign(variable + 1)
    trained.save_weights(tmp_path / "plain.weights.h5")
    trained.save(tmp_path / "plain.keras")
    for file in ("plain.weights.h5", "plain.keras"):
        for strategy in ("gradient_mask", "sparse_values"):
            masked = strategies.apply(small(), Random(0.5), strategy, held=0.25)
            masked.load_weights(tmp_path / file)
            mask = masks(masked)["first/kernel"]
            kernel, source = masked.dense_weights()["first/kernel"], values(trained)["first/kernel"]
            assert same_bits(kernel, np.where(mask, source, np.float32(0.25)))
            assert not any(w.moved for w in strategies.audit(masked).weights)
    with pytest.raises(ValueError, match="must be a file of weights"):
        masked.load_weights(tmp_path / "missing.weights.h5")


@pytest.mark.parametrize("strategy", ["hard_mask", "sparse_values", "var_list"])
def test_a_saved_model_has_masks_held_values_and_optimizer(strategy: str, tmp_path: Path) -> None:
    pattern = Columns(0.5) if strategy == "var_list" else Random(0.5)
    fit = Fit(compiling={"run_eagerly": True}, fitting=lambda: {"steps_per_epoch": 2})
    masked = strategies.apply(fit.build(), pattern, strategy, held="init")
    fit.fit(masked)
    masked.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is strategies.MaskedModel
    assert same_weights(loaded.dense_weights(), masked.dense_weights())
    assert same_weights(masks(loaded), masks(masked))
    assert loaded.holding.strategies == masked.holding.strategies
    assert str(strategies.audit(loaded)) == str(strategies.audit(masked))
    assert str(strategies.summary(loaded)) == str(strategies.summary(masked))
    assert fit.fit(loaded) == fit.fit(masked)
    assert same_weights(loaded.dense_weights(), masked.dense_weights())


def test_masks_of_other_sizes_are_not_loaded_over(tmp_path: Path) -> None:
    strategies.apply(small(), Random(0.5), "sparse_values").save_weights(tmp_path / "w.weights.h5")
    masked = strategies.apply(small(), Random(0.75), "sparse_values")
    before = masked.dense_weights()
    with pytest.raises(ValueError, match="masks of other sizes"):
        masked.load_weights(tmp_path / "w.weights.h5")
    assert same_weights(masked.dense_weights(), before)


@pytest.mark.parametrize("build", [convnet, penalized, small])
def test_an_exported_model_is_plain(build: Callable[[], Any], tmp_path: Path) -> None:
    masked = strategies.apply(build(), Random(0.5), "sparse_values", targets=["*/kernel"], held=1)
    plain = masked.export_plain()
    assert type(plain) is type(masked.model)
    x = images()[0] if build is not small else np.ones((3, 4))
    assert same_bits(plain.predict(x, verbose=0), masked.predict(x, verbose=0))
    plain.save(tmp_path / "plain.keras")
    assert b"masksweep" not in (tmp_path / "plain.keras").read_bytes()
    assert same_weights(values(plain), masked.dense_weights())


@pytest.mark.parametrize("strategy", ["hard_mask", "sparse_values"])
def test_frozen_layers_are_saved_with_their_masks(strategy: str, tmp_path: Path) -> None:
    masked = strategies.apply(small(), Random(0.5), strategy, held=0.5)
    masked.compile("adam", "mse", run_eagerly=True)
    masked.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0)
    before = masked.dense_weights()
    masked.model.get_layer("first").trainable = False
    masked.compile(
        "adam", "mse", run_eagerly=True
    )  # as Keras asks for, when `trainable` has changed
    masked.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0)
    trained = masked.dense_weights()
    assert trained.keys() == before.keys()
    assert same_bits(trained["first/kernel"], before["first/kernel"])
    masked.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert same_weights(loaded.dense_weights(), trained)
    assert same_weights(masks(loaded), masks(masked))
    masked.load_weights(tmp_path / "model.keras")
    assert same_weights(masked.dense_weights(), trained)
    masked.trainable = False
    masked.save_weights(tmp_path / "all.weights.h5")
    other = strategies.apply(small(), Random(0.5), strategy, seed=1)
    other.load_weights(tmp_path / "all.weights.h5")
    assert same_weights(other.dense_weights(), trained)
    assert list(strategies.summary(masked).weights) == list(strategies.summary(loaded).weights)


def test_weights_of_another_masked_model_are_refused(tmp_path: Path) -> None:
    lower = np.tril(np.ones((6, 6)))
    saved = strategies.apply(small(), {"second/kernel": lower}, "sparse_values")
    saved.save_weights(tmp_path / "w.weights.h5")
    for pattern, strategy in (
        ({"second/kernel": lower}, "hard_mask"),
        ({"first/kernel": np.ones((4, 6)), "second/kernel": lower}, "sparse_values"),
    ):
        masked = strategies.apply(small(), pattern, strategy)
        before = masked.dense_weights()
        message = r"weights=second/kernel \(sparse_values\): must be masked as in this model"
        with pytest.raises(ValueError, match=message):
            masked.load_weights(tmp_path / "w.weights.h5")
        assert same_weights(masked.dense_weights(), before)


def test_weights_in_several_files_are_loaded(tmp_path: Path) -> None:
    masked = strategies.apply(small(), Random(0.5), "sparse_values")
    masked.save_weights(tmp_path / "w.weights.json", max_shard_size=1)
    other = strategies.apply(small(), Random(0.5), "sparse_values", seed=1)
    other.load_weights(tmp_path / "w.weights.json")
    assert same_weights(masks(other), masks(masked))


def test_a_model_with_several_outputs_is_asked_as_before() -> None:
    keras.utils.set_random_seed(5)
    start = keras.Input((4,))
    hidden = layers.Dense(6, "relu", name="hidden")(start)
    outputs = [layers.Dense(1, name=name)(hidden) for name in ("left", "right")]

    def history(model: Any, loss: Any, metrics: Any) -> list[str]:
        model.compile("sgd", loss, metrics=metrics, run_eagerly=True)
        x, y = np.ones((8, 4)), np.ones((8, 1))
        return sorted(model.fit(x, [y, y], verbose=0).history)

    for loss, metrics in (("mse", None), ({"left": "mse", "right": "mae"}, {"left": ["mae"]})):
        plain = keras.Model(start, outputs)
        masked = strategies.apply(plain, Random(0.5))
        assert list(masks(masked)) == ["hidden/kernel"]
        assert history(masked, loss, metrics) == history(plain, loss, metrics)
    assert masked.get_layer("left") is plain.get_layer("left")
    assert (masked.input_shape, masked.output_shape) == (plain.input_shape, plain.output_shape)


def test_what_is_exported_for_serving_is_the_plain_model(tmp_path: Path) -> None:
    masked = strategies.apply(small(), Random(0.5), "sparse_values")
    masked.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    x = np.ones((2, 4), "float32")
    assert np.allclose(served.serve(x), masked.predict(x, verbose=0), atol=1e-6)


# -- what is printed ----------------------------------------------------------------------------


def test_the_audit_sees_a_violation_and_a_training_that_moves_nothing() -> None:
    masked = strategies.apply(small(), Random(0.5), "init_only", targets=["*/kernel"])
    assert not strategies.audit(masked).ok
    assert "train first" in str(strategies.audit(masked))
    masked.compile("sgd", "mse")
    masked.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0)
    audit = strategies.audit(masked)
    assert not audit.ok
    assert [w.violations > 0 for w in audit.weights] == [True, True, True]
    assert "not ok" in str(audit)
    kernel = masked.model.get_layer("first").kernel
    held = strategies.apply(small(), Random(0.5), "gradient_mask")
    held.compile("sgd", "mse")
    held.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0)
    assert strategies.audit(held).ok
    kernel = held.model.get_layer("first").kernel
    kernel.assign(np.where(masks(held)["first/kernel"], kernel, -0.0))
    (first, second) = strategies.audit(held).weights
    assert (first.violations, first.drift, second.violations) == (12, 0.0, 0)


def test_weights_that_are_frozen_whole_pass_the_audit() -> None:
    masked = strategies.apply(small(), {"first/kernel": np.zeros((4, 6))}, held="init")
    masked.compile("sgd", "mse")
    masked.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0)
    assert strategies.audit(masked).ok


def test_the_summary_tells_one_held_value_from_several() -> None:
    model = keras.Sequential([keras.Input((50,)), layers.Dense(50, name="wide")])
    held = np.zeros((50, 50))
    masked = strategies.apply(model, {"wide/*": np.zeros((50, 50))}, targets="wide/kernel")
    assert strategies.summary(masked).weights[0].held == "0"
    held[-1, -1] = 1  # the last of 2,500
    masked = strategies.apply(
        model, {"wide/*": np.zeros((50, 50))}, targets="wide/kernel", held={"*": held}
    )
    assert strategies.summary(masked).weights[0].held == "values"


def test_the_summary_has_the_sparsity_and_the_flops_of_each_weight_and_of_all() -> None:
    model = keras.Sequential(
        [
            keras.Input((20, 3)),
            layers.Conv1D(8, 5, name="conv"),
            layers.GRU(40, name="gru"),
            layers.Dense(5, name="output"),
        ]
    )
    some = np.arange(120) % 3 > 0
    chosen = {
        "conv/kernel": some.reshape(5, 3, 8),
        "gru/*/kernel": np.arange(960).reshape(8, 120) % 4 > 0,
        "output/kernel": np.zeros((40, 5)),
    }
    held = {"conv/kernel": 0, "gru/*": np.tile([0.0, 0.5], (8, 60)), "output/kernel": -0.0}
    masked = strategies.apply(
        model, chosen, targets=["conv/kernel", "gru/*/kernel", "output/kernel"], held=held
    )
    summary = strategies.summary(masked)
    found = {w.name: (w.masked, w.flops, w.masked_flops) for w in summary.weights}
    assert found == {
        "conv/kernel": (40, 2 * 16 * 120, 2 * 16 * 80),
        "conv/bias": (0, 0, 0),
        # of the masked entries those of even columns are held at zero, the others at 0.5
        "gru/gru_cell/kernel": (240, 2 * 16 * 960, 2 * 16 * (960 - 240)),
        "gru/gru_cell/recurrent_kernel": (0, 2 * 16 * 4800, 2 * 16 * 4800),
        "gru/gru_cell/bias": (0, 0, 0),
        "output/kernel": (200, 400, 0),
        "output/bias": (0, 0, 0),
    }
    assert [w.sparsity for w in summary.weights] == [1 / 3, 0, 0.25, 0, 0, 1, 0]
    assert [w.density for w in summary.weights] == [2 / 3, 1, 0.75, 1, 1, 0, 1]
    entries = 120 + 8 + 960 + 4800 + 240 + 200 + 5
    assert (summary.sparsity, summary.density) == (480 / entries, (entries - 480) / entries)
    assert (summary.whole.flops, summary.whole.masked_flops) == (188_560, 179_200)
    assert str(summary).splitlines()[-1].split() == [
        "all", "6,333", "0.9242", "0.07579", "188,560", "179,200"
    ]  # fmt: skip


def test_entries_held_at_another_value_than_zero_cost_as_usual() -> None:
    (first, *_) = strategies.summary(strategies.apply(small(), Random(0.5), held=0.5)).weights
    assert (first.masked, first.flops, first.masked_flops) == (12, 48, 48)
    half = np.tile([0.0, 0.5], (4, 3))
    masked = strategies.apply(small(), {"first/kernel": np.zeros((4, 6))}, held={"*": half})
    (first, *_) = strategies.summary(masked).weights
    assert (first.masked, first.flops, first.masked_flops) == (24, 48, 24)


def test_flops_that_are_unknown_are_said_to_be() -> None:
    model = keras.Sequential([keras.Input((None, 3)), layers.Dense(4, name="dense"), layers.GRU(2)])
    masked = strategies.apply(model, Random(0.5), targets="*/kernel")
    summary = strategies.summary(masked)
    assert {w.flops for w in (*summary.weights, summary.whole)} == {None}
    assert summary.sparsity > 0
    *_, whole, why = str(summary).splitlines()
    assert whole.split()[-2:] == ["?", "?"]
    assert why == (
        "FLOPs are unknown: inputs=shape (None, None, 3): has unknown sizes; to count, give inputs "
        "with these sizes"
    )
    given = strategies.summary(masked, keras.Input((10, 3)))
    assert given.weights[0].flops == 2 * 10 * 12
    assert given == strategies.summary(masked, np.ones((7, 10, 3)))
    assert not given.unknown
    with pytest.raises(strategies.Invalid, match=r"model=.*cannot be traced"):
        strategies.summary(masked, keras.Input((10, 2)))


class Scaled(layers.Layer):  # type: ignore[misc]
    def build(self, shape: Any) -> None:
        self.table = self.add_weight(shape=shape[1:], name="table")

    def call(self, x: Any) -> Any:
        return x * self.table


def test_a_weight_whose_products_cannot_be_counted_is_named() -> None:
    stack = [Scaled(name="scaled"), layers.Dense(4, name="dense"), layers.Dense(1, name="output")]
    masked = strategies.apply(keras.Sequential([keras.Input((5, 3)), *stack]), Random(0.5))
    summary = strategies.summary(masked)
    assert [w.flops for w in summary.weights if not w.name.endswith("bias")] == [None, 120, 40]
    assert summary.whole.flops is None
    why = "FLOPs are unknown: the products with scaled/table cannot be counted"
    assert str(summary).splitlines()[-1] == why


def test_the_summary_fits_into_100_columns() -> None:
    x = keras.Input((32, 32, 64))
    y = layers.Reshape((900, 512))(layers.Conv2D(512, 3, name="conv")(x))
    attention = layers.MultiHeadAttention(16, 128, name="self_attention")
    model = keras.Model(x, layers.Dense(10, name="output")(attention(y, y)))
    text = str(strategies.summary(strategies.apply(model, Random(0.95), targets="*kernel")))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert "530,841,600" in text
    names = [line.split("  ")[0] for line in lines]
    assert "self_attention/attention_output/kernel" in "".join(names)
    assert names.count("self_attention/") == 8, "they are broken at slashes"


def test_the_usual_summary_shows_the_layers(capsys: pytest.CaptureFixture[str]) -> None:
    strategies.apply(small(), Random(0.5)).summary()
    assert "second" in capsys.readouterr().out
