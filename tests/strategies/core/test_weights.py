"""Tests of the names and properties of a model's weights, and of plans."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from masksweep.strategies import STRATEGIES, Invalid, MaskedWeight, Plan, Weight
from masksweep.strategies.core.audit import save_and_reload, violations
from masksweep.strategies.core.held_weight import HeldWeight, with_new_calls
from masksweep.strategies.core.selection import target_names
from masksweep.strategies.core.training import Training
from masksweep.strategies.core.weights import (
    describe,
    make_plan,
    unique_names,
    values,
)
from masksweep.strategies.held.zero import Zero
from masksweep.strategies.patterns.random import Random
from masksweep.strategies.sparse_tensor import SparseTensor
from masksweep.strategies.weight_mask import WeightMask


def functional(*stack: Any, shape: tuple[int, ...] = (4,)) -> Any:
    return keras.Sequential([keras.Input(shape), *stack])


def names(model: Any) -> list[str]:
    return [w.name for w in describe(model)]


# -- names -----------------------------------------------------------------------------------


def nested() -> Any:
    """Returns a model with layers at three depths, three of them with the same name.

    One more layer is applied twice.
    """
    shared = layers.Dense(4, name="shared")
    low = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="same")], name="low")
    high = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="same"), low], name="high")
    start = keras.Input((4,))
    return keras.Model(start, layers.Dense(4, name="same")(shared(high(shared(start)))))


def test_names_are_layers_and_variables_in_the_models_order() -> None:
    model = nested()
    expected = [
        f"{layer}/{variable}"
        for layer in ("shared", "high/same", "high/low/same", "same")
        for variable in ("kernel", "bias")
    ]
    assert names(model) == expected
    for weight, variable in zip(describe(model), model.trainable_variables, strict=True):
        assert weight.name.endswith(f"/{variable.name}")
        assert weight.shape == variable.shape
        np.testing.assert_array_equal(values(model)[weight.name], variable.numpy())


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (layers.GRU(2, name="a"), (5, 3), ["gru_cell/kernel", "gru_cell/recurrent_kernel"]),
        (layers.Embedding(3, 2, name="a"), (5,), ["embeddings"]),
        (layers.SeparableConv1D(2, 3, name="a"), (5, 3), ["depthwise_kernel", "pointwise_kernel"]),
        (layers.BatchNormalization(name="a"), (3,), ["gamma", "beta"]),
        (
            layers.TimeDistributed(layers.Dense(2, name="b"), name="a"),
            (5, 3),
            ["b/kernel", "b/bias"],
        ),
    ],
)
def test_names_of_other_layers(layer: Any, shape: tuple[int, ...], expected: list[str]) -> None:
    assert names(functional(layer, shape=shape))[:2] == [f"a/{name}" for name in expected]


def test_names_leave_frozen_layers_out() -> None:
    model = functional(layers.Dense(4, name="a"), layers.Dense(4, name="b"))
    model.get_layer("a").trainable = False
    assert names(model) == ["b/kernel", "b/bias"]


def test_names_survive_saving_and_loading(tmp_path: Path) -> None:
    model = nested()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert describe(loaded) == describe(model)


@keras.saving.register_keras_serializable("Tests")
class Twice(layers.Layer):
    """A layer that has variables with one name, without a name, and one that does not train."""

    def build(self, shape: Any) -> None:
        self.parts = [
            self.add_weight(shape=(4, 4), name="kernel"),
            self.add_weight(shape=(4, 4)),
            self.add_weight(shape=(4, 4), name="kernel"),
            self.add_weight(shape=(4, 4)),
            self.add_weight(shape=(4, 4), name="kernel", trainable=False),
        ]

    def call(self, x: Any) -> Any:
        for part in self.parts:
            x = x @ part
        return x


TWICE = ["own/kernel", "own/variable", "own/kernel#1", "own/variable#1"]


def test_the_second_of_one_name_has_a_number(tmp_path: Path) -> None:
    """Also for variables without a name, whose automatic names differ between models."""
    model = functional(Twice(name="own"), layers.Dense(2, name="last"))
    assert names(model) == [*TWICE, "last/kernel", "last/bias"]
    assert [w.is_kernel for w in describe(model)] == [True, False, True, False, True, False]
    assert target_names(describe(model), None) == ["own/kernel", "own/kernel#1"]
    assert target_names(describe(model), ["own/kernel#*"]) == ["own/kernel#1"]
    assert target_names(describe(model), ["own/kernel"]) == ["own/kernel"]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].parts[1].name != model.layers[0].parts[1].name
    assert describe(loaded) == describe(model)
    for name, array in values(model).items():
        np.testing.assert_array_equal(values(loaded)[name], array)


def test_a_number_does_not_depend_on_what_is_frozen() -> None:
    model = functional(Twice(name="own"))
    model.layers[0].parts[0].trainable = False
    assert names(model) == TWICE[1:]


def test_the_second_of_one_name_is_held_and_audited(tmp_path: Path) -> None:
    """The name `layer/variable#1` means the same variable in training and after reloading."""
    model = functional(Twice(name="own"), layers.Dense(1, name="last"))
    plan = make_plan(
        describe(model),
        values(model),
        masks=Random(0.5).from_weights,
        held=Zero().values,
        targets=["own/kernel#1", "own/variable#1"],
    )
    start = values(model)
    training = Training(
        model,
        WeightMask(),
        plan,
        optimizer=keras.optimizers.SGD(0.1),
        loss=keras.losses.MeanSquaredError(),
    )
    data = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    for _ in range(3):
        training.step(data, data[:, :1])
    state = [np.asarray(v) for v in model.non_trainable_variables]
    trained = dict(zip(names(model), training.effective(), strict=True))
    trained = {name: np.asarray(array) for name, array in trained.items()}
    loaded = values(save_and_reload(model, trained, state, tmp_path / "model.keras"))
    assert violations(loaded, plan) == (0, 0.0)
    assert violations(start, plan)[0] > 0, "they were not zero before"
    assert not np.array_equal(loaded["own/kernel"], start["own/kernel"])
    swapped = loaded | {"own/kernel#1": loaded["own/kernel"]}
    assert violations(swapped, plan)[0] > 0


class Twins(keras.Model):  # type: ignore[misc]
    """A model with two layers of the same name."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = layers.Dense(4, name="twin"), layers.Dense(4, name="twin")

    def call(self, x: Any) -> Any:
        return self.other(self.one(x))


def test_two_layers_of_one_name() -> None:
    model = Twins()
    model(np.zeros((1, 4)))
    assert names(model) == ["twin/kernel", "twin/bias", "twin/kernel#1", "twin/bias#1"]
    np.testing.assert_array_equal(values(model)["twin/kernel#1"], model.other.kernel)


def test_the_layer_of_the_second_of_one_name() -> None:
    model = Twins()
    model(np.zeros((1, 4)))
    masks, held = Random(0.5).from_weights, Zero().values
    for name, layer in (("twin/kernel", model.one), ("twin/kernel#1", model.other)):
        plan = make_plan(describe(model), values(model), masks=masks, held=held, targets=[name])
        variable = dict(zip(names(model), model.trainable_variables, strict=True))[name]
        held_weight = HeldWeight(plan.weights[0], SparseTensor().bind(), variable)
        assert with_new_calls(model, [held_weight]) == [(held_weight, layer)]


def test_unique_names() -> None:
    assert unique_names(["a", "b", "a", "a#1", "a"]) == ["a", "b", "a#1", "a#1#1", "a#2"]


# -- kinds -----------------------------------------------------------------------------------


def two_heads() -> Any:
    start = keras.Input((4,))
    return keras.Model(start, [layers.Dense(4)(start), layers.Dense(4)(start)])


def applied_twice() -> Any:
    """Returns a model that applies its only layer twice, so each unit acts on all outputs."""
    start = keras.Input((4,))
    layer = layers.Dense(4)
    return keras.Model(start, layer(layer(start)))


def mixed(x: Any) -> Any:
    return x / keras.ops.sum(x, axis=-1, keepdims=True)


LAST: dict[str, tuple[Callable[[], Any], bool]] = {
    "dense": (lambda: functional(layers.Dense(4)), True),
    "sigmoid": (lambda: functional(layers.Dense(4, "sigmoid")), True),
    "sequence": (lambda: functional(layers.Dense(4), shape=(5, 4)), True),
    "softmax": (lambda: functional(layers.Dense(4, "softmax")), False),
    "log_softmax": (lambda: functional(layers.Dense(4, "log_softmax")), False),
    "softmax layer as activation": (lambda: functional(layers.Dense(4, layers.Softmax())), False),
    "unknown activation": (lambda: functional(layers.Dense(4, mixed)), False),
    "softmax layer": (lambda: functional(layers.Dense(4), layers.Softmax()), False),
    "activation layer": (lambda: functional(layers.Dense(4), layers.Activation("relu")), False),
    "convolution": (lambda: functional(layers.Conv1D(4, 3), shape=(5, 4)), False),
    "inside": (lambda: functional(functional(layers.Dense(4))), False),
    "applied twice": (applied_twice, False),
    "two heads": (two_heads, False),
}


@pytest.mark.parametrize("last", LAST)
def test_output_weights_act_on_one_output_each(last: str) -> None:
    model, output = LAST[last]
    assert {w.output for w in describe(model())} == {output}


def test_only_the_last_layers_weights_are_the_outputs() -> None:
    model = functional(layers.Dense(4, name="a"), layers.Dense(4, name="b"))
    assert {w.name for w in describe(model) if w.output} == {"b/kernel", "b/bias"}


def test_regularizers_and_constraints() -> None:
    layer = layers.Dense(4, name="a", kernel_regularizer="l2", bias_constraint="non_neg")
    kernel, bias = describe(functional(layer))
    assert (kernel.regularized, kernel.constrained) == (True, False)
    assert (bias.regularized, bias.constrained) == (False, True)
    assert (kernel.layer, kernel.dtype, kernel.is_kernel) == ("Dense", "float32", True)
    assert not bias.is_kernel


def test_a_layer_that_is_applied_twice_shares_its_weights_with_no_other() -> None:
    assert not any(w.shared for model in (applied_twice(), nested()) for w in describe(model))


# -- targets ---------------------------------------------------------------------------------

FOUND = [
    Weight(name, (2, 2), "float32", "Dense")
    for name in ("a/kernel", "a/bias", "b/c/kernel", "b/gru/recurrent_kernel", "d/kernel")
]


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (None, ["a/kernel", "b/c/kernel", "b/gru/recurrent_kernel"]),
        (["d/kernel", "a/*"], ["a/kernel", "a/bias", "d/kernel"]),
        (["*/kernel"], ["a/kernel", "b/c/kernel", "d/kernel"]),
        (["a/*", "*bias"], ["a/kernel", "a/bias"]),
        (["[ad]/kernel"], ["a/kernel", "d/kernel"]),
        ("inner", ["b/c/kernel", "b/gru/recurrent_kernel"]),
        (["*", "!*bias"], ["a/kernel", "b/c/kernel", "b/gru/recurrent_kernel", "d/kernel"]),
        (["*kernel", "!b/*", "b/c/*"], ["a/kernel", "b/c/kernel", "d/kernel"]),
        (["a/*", "!a/bias", "*bias"], ["a/kernel", "a/bias"]),
        (["*", "!*/kernel", "!a/*"], ["b/gru/recurrent_kernel"]),
    ],
)
def test_targets(targets: list[str] | str | None, expected: list[str]) -> None:
    assert target_names(FOUND, targets) == expected


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (["e/*"], "targets=e/*: matches no weight; the weights are a/kernel, a/bias"),
        (["a/*", "A/*"], "targets=A/*: matches no weight"),
        (["kernel"], "targets=kernel: matches no weight"),
        ([], "at least one glob"),
        (["inner"], "targets=inner: matches no weight"),  # in a list, it is a glob
        ("a/*", "targets=a/*: must be inner, or a list of globs"),
        (["!a/*"], "targets=!a/*: excludes no weight; none is chosen before it"),
        (["!a/*", "*"], "targets=!a/*: excludes no weight; none is chosen before it"),
        (["a/*", "!d/*"], "targets=!d/*: excludes no weight; those chosen before it are a/kernel"),
        (["*", "!e/*"], "targets=!e/*: excludes no weight"),
        (["a/*", "!*"], "must be globs that do not exclude every weight"),
    ],
    ids=str,
)
def test_targets_must_be_found(targets: Any, words: str) -> None:
    with pytest.raises(Invalid) as caught:
        target_names(FOUND, targets)
    assert caught.value.key == "targets"
    assert words in str(caught.value)


def test_a_word_for_kernels_needs_enough_of_them() -> None:
    with pytest.raises(Invalid, match="targets=null: no kernel other than the last; the weights"):
        target_names(FOUND[:2], None)
    with pytest.raises(Invalid, match="targets=inner: no kernel other than the first and the last"):
        target_names(FOUND[:3], "inner")


# -- plans -----------------------------------------------------------------------------------


def test_a_plan_masks_what_is_targeted() -> None:
    model = functional(layers.Dense(8, name="a"), layers.Dense(4, name="b"))
    plan = make_plan(
        describe(model),
        values(model),
        masks=Random(0.75).from_weights,
        held=Zero().values,
        targets=["*/kernel"],
        outputs_held=[1],
    )
    assert [w.weight.name for w in plan.weights] == ["a/kernel", "b/kernel"]
    assert plan.outputs_held == (1,)
    assert plan.sparsity == 0.75
    assert plan.find("b/kernel") is plan.weights[1]
    assert plan.find("a/bias") is None
    assert Plan().sparsity == 0


WEIGHT = Weight("a/kernel", (2, 3), "float32", "Dense")
MASK, ZEROS = np.ones((2, 3), bool), np.zeros((2, 3), "float32")


@pytest.mark.parametrize(
    ("mask", "held", "words"),
    [
        (MASK.T, ZEROS, "a mask of shape"),
        (MASK.astype(int), ZEROS, "boolean"),
        (MASK, ZEROS.T, "held values of shape"),
        (MASK, ZEROS.astype("float64"), "float32"),
    ],
)
def test_a_masked_weight_must_fit(mask: Any, held: Any, words: str) -> None:
    with pytest.raises(Invalid, match=words) as caught:
        MaskedWeight(WEIGHT, mask, held)
    assert caught.value.key == "a/kernel"


def test_columns_are_the_whole_outputs_that_are_kept() -> None:
    whole = np.array([[True, False, True]] * 2)
    kept = MaskedWeight(WEIGHT, whole, ZEROS).columns
    assert kept is not None
    assert kept.tolist() == [True, False, True]
    whole[0, 0] = False
    assert MaskedWeight(WEIGHT, whole, ZEROS).columns is None


def test_holds_zero_counts_masked_entries_only() -> None:
    held = ZEROS.copy()
    held[0, 0] = 1
    mask = np.zeros((2, 3), bool)
    assert not MaskedWeight(WEIGHT, mask, held).holds_zero
    mask[0, 0] = True
    assert MaskedWeight(WEIGHT, mask, held).holds_zero


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (layers.Dense(3, activation="softmax"), "activation (softmax) mixes its outputs"),
        (layers.EinsumDense("ab,bc->ac", 3), "the output layer is a EinsumDense, whose"),
    ],
    ids=["softmax", "another kind"],
)
def test_why_a_weight_of_the_output_layer_acts_on_many_outputs(layer: Any, said: str) -> None:
    model = keras.Sequential([keras.Input((4,)), layer])
    (kernel, *_) = describe(model)
    mask = np.ones(kernel.shape, bool)
    held = np.zeros(kernel.shape, kernel.dtype)
    reason = STRATEGIES["loss_mask"]().refuses(Plan((MaskedWeight(kernel, mask, held),)))
    assert said in str(reason)
