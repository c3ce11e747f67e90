"""Models, optimizers and data sets, compared with independent computations of their values."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from masksweep.strategies import Invalid
from masksweep.sweeps.components.datasets.explicit import Explicit
from masksweep.sweeps.components.datasets.mnist1d import MNIST1D
from masksweep.sweeps.components.datasets.sums import Sums
from masksweep.sweeps.components.models import Model
from masksweep.sweeps.components.models.cnn1d import CNN1D
from masksweep.sweeps.components.models.explicit import Explicit as Network
from masksweep.sweeps.components.models.gru import GRU
from masksweep.sweeps.components.models.logistic import Logistic
from masksweep.sweeps.components.models.mlp import MLP
from masksweep.sweeps.components.optimizers import OPTIMIZERS
from masksweep.sweeps.config.trial import parse
from tests.support.trials import BASE

KERNELS = (((0.1, -0.2, 0.3), (0.4, 0.5, -0.6)), ((0.7,), (-0.8,), (0.9,)))
BIASES = ((0.01, -0.02, 0.03), (0.5,))


def values(model: Any) -> dict[str, np.ndarray]:
    return {v.path: v.numpy() for v in model.weights}


def inputs(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def built(model: Model, shape: tuple[int, ...] = (8,), outputs: int = 3, seed: int = 7) -> Any:
    keras.utils.set_random_seed(seed)
    return model.build(shape, outputs)


# -- initial values from the config ----------------------------------------------------------

BY_HAND = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "linear": lambda x: x,
}


@pytest.mark.parametrize("activation", BY_HAND)
@pytest.mark.parametrize("biases", [None, BIASES])
def test_a_network_that_is_written_out_computes_what_it_says(activation: Any, biases: Any) -> None:
    model = built(Network(KERNELS, biases, activation), (2,), 1)
    y = x = inputs(5, 2)
    for number, kernel in enumerate(KERNELS):
        bias = np.zeros(len(kernel[0])) if biases is None else biases[number]
        y = BY_HAND[activation](y @ np.array(kernel) + bias)
    np.testing.assert_allclose(model(x).numpy(), y, rtol=1e-5, atol=1e-6)


def test_a_network_that_is_written_out_starts_from_just_these_values() -> None:
    model = built(Network(KERNELS, BIASES), (2,), 1)
    assert [layer.name for layer in model.layers] == ["hidden_1", "output"]
    for layer, kernel, bias in zip(model.layers, KERNELS, BIASES, strict=True):
        np.testing.assert_array_equal(layer.kernel.numpy(), np.array(kernel, np.float32))
        np.testing.assert_array_equal(layer.bias.numpy(), np.array(bias, np.float32))
    one_layer = built(Network(KERNELS[1:]), (3,), 1)
    assert [layer.name for layer in one_layer.layers] == ["output"]


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"kernels": []}, "kernels"),
        ({"kernels": [[]]}, "kernels"),
        ({"kernels": [[[]]]}, "kernels"),
        ({"kernels": [[[1, 2], [3]]]}, "kernels"),
        ({"kernels": [[[1, 2]], [[1]]]}, "kernels"),  # 2 units, 1 row
        ({"kernels": [[[1, 2]]], "biases": []}, "biases"),
        ({"kernels": [[[1, 2]]], "biases": [[1]]}, "biases"),
        ({"kernels": [[[1, 2]]], "biases": [[1, 2], [3]]}, "biases"),
        ({"kernels": [[[1, 2]]], "activation": "step"}, "activation"),
    ],
    ids=str,
)
def test_shapes_that_do_not_fit_are_refused(given: dict[str, Any], key: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse({**BASE, "model": {"name": "explicit", **given}})
    assert caught.value.key == f"model.{key}"


@pytest.mark.parametrize(("shape", "outputs"), [((3,), 1), ((2,), 2), ((2, 1), 1), ((1,), 2)])
def test_a_network_that_does_not_fit_the_data_is_refused(
    shape: tuple[int, ...], outputs: int
) -> None:
    built(Network(KERNELS), (2,), 1)
    with pytest.raises(Invalid, match="as the data") as caught:
        Network(KERNELS).build(shape, outputs)
    assert caught.value.key.endswith("kernels")


# -- initial values as in PyTorch ------------------------------------------------------------


def fan_in(layer: Any) -> int:
    """PyTorch's fan-in: the inputs of one unit, or the number of units of a recurrent layer."""
    if hasattr(layer, "units") and hasattr(layer, "recurrent_kernel"):
        return int(layer.units)
    return int(np.prod(layer.kernel.shape[:-1]))


LAYERS: dict[str, tuple[Model, Any]] = {
    "mlp": (
        MLP((50, 40), init="torch"),
        lambda m: [m.get_layer(n) for n in ("hidden_1", "hidden_2", "output")],
    ),
    "logistic": (Logistic(init="torch"), lambda m: [m.get_layer("output")]),
    "residual, normed": (
        MLP((30, 30), residual=True, batch_norm=True, dropout=0.1, init="torch"),
        lambda m: [m.get_layer(n) for n in ("hidden_1", "hidden_2", "output")],
    ),
    "cnn1d": (
        CNN1D(init="torch"),
        lambda m: [m.get_layer(n) for n in ("conv_1", "conv_2", "conv_3", "output")],
    ),
    "gru": (
        GRU(20, init="torch"),
        lambda m: [
            m.get_layer("both_ways").forward_layer.cell,
            m.get_layer("both_ways").backward_layer.cell,
            m.get_layer("output"),
        ],
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_torchs_initial_values_fill_their_interval(name: str) -> None:
    network, layers_of = LAYERS[name]
    model = built(network, (40,), 10)
    drawn = 0
    for layer in layers_of(model):
        bound = fan_in(layer) ** -0.5
        assert len(layer.trainable_variables) >= 2
        for variable in layer.trainable_variables:
            array = variable.numpy().ravel()
            drawn += array.size
            assert np.abs(array).max() <= bound
            assert np.unique(array).size > 0.99 * array.size
            if array.size >= 40:  # a few draws may miss the ends of the interval
                assert array.max() > 0.8 * bound
                assert array.min() < -0.8 * bound
                assert array.std() == pytest.approx(bound / 3**0.5, rel=0.25)
            if array.size >= 1000:
                assert abs(array.mean()) < 0.1 * bound
                assert array.std() == pytest.approx(bound / 3**0.5, rel=0.05)
    normalized = sum(v.shape[0] for v in model.trainable_variables if v.name in ("gamma", "beta"))
    assert drawn + normalized == sum(int(np.prod(v.shape)) for v in model.trainable_variables)


@pytest.mark.parametrize("name", LAYERS)
def test_torchs_initial_values_are_those_of_the_seed(name: str) -> None:
    network, _ = LAYERS[name]
    first, again, other = (
        [v.numpy() for v in built(network, (40,), 10, seed).trainable_variables]
        for seed in (1, 1, 2)
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    changed = [not np.array_equal(a, b) for a, b in zip(first, other, strict=True)]
    assert sum(changed) >= 2
    assert all(changed) or name == "residual, normed"  # gamma and beta start at 1 and 0


def test_a_normed_networks_scale_and_shift_start_as_ever() -> None:
    model = built(MLP((30,), batch_norm=True, init="torch"))
    norm = model.get_layer("norm_1")
    assert (norm.gamma.numpy() == 1).all()
    assert (norm.beta.numpy() == 0).all()


@pytest.mark.parametrize("network", [MLP((9,)), CNN1D(), GRU(), Logistic()], ids=lambda n: n.name)
def test_keras_own_initial_values_are_the_default(network: Any) -> None:
    """Biases tell them apart: they start at 0 in Keras, but not in PyTorch."""
    default, torch = (
        built(dataclasses.replace(network, **init), (12,)) for init in ({}, {"init": "torch"})
    )
    assert all((v.numpy() == 0).all() for v in default.trainable_variables if v.name == "bias")
    assert all((v.numpy() != 0).all() for v in torch.trainable_variables if v.name == "bias")


# -- the MLP ---------------------------------------------------------------------------------


def test_a_plain_mlp_starts_as_keras_sequential_of_the_same_layers_does() -> None:
    """Published results depend on these initial values."""
    mlp = built(MLP((12, 8), activation="tanh"), (10,), 4)
    keras.utils.set_random_seed(7)
    plain = keras.Sequential(
        [
            keras.Input((10,)),
            layers.Dense(12),
            layers.Activation("tanh"),
            layers.Dense(8),
            layers.Activation("tanh"),
            layers.Dense(4),
        ]
    )
    pairs = list(zip(mlp.weights, plain.weights, strict=True))
    assert len(pairs) == 6
    for weight, expected in pairs:
        np.testing.assert_array_equal(weight.numpy(), expected.numpy())
    x = inputs(6, 10)
    np.testing.assert_array_equal(mlp(x).numpy(), plain(x).numpy())


def test_a_logistic_model_is_an_mlp_without_hidden_layers() -> None:
    assert [v.shape for v in built(Logistic()).weights] == [(8, 3), (3,)]
    for weight, expected in zip(built(Logistic()).weights, built(MLP(())).weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), expected.numpy())


def test_options_change_no_initial_value() -> None:
    plain = [v.numpy() for v in built(MLP((8, 8))).weights]
    for options in (
        {"residual": True},
        {"l2": 0.1},
        {"constraint": "max_norm"},
        {"output_activation": "sigmoid"},
    ):
        arrays = [v.numpy() for v in built(MLP((8, 8), **options)).trainable_variables]
        for array, expected in zip(arrays, plain, strict=True):
            np.testing.assert_array_equal(array, expected)


def test_every_hidden_layer_but_the_first_adds_its_input() -> None:
    model = built(MLP((6, 6, 6), activation="tanh", residual=True, init="torch"), (5,), 2)
    x = inputs(4, 5)
    (k1, b1), (k2, b2), (k3, b3), (k4, b4) = (
        (model.get_layer(n).kernel.numpy(), model.get_layer(n).bias.numpy())
        for n in ("hidden_1", "hidden_2", "hidden_3", "output")
    )
    first = np.tanh(x @ k1 + b1)
    second = first + np.tanh(first @ k2 + b2)
    third = second + np.tanh(second @ k3 + b3)
    np.testing.assert_allclose(model(x).numpy(), third @ k4 + b4, rtol=1e-5, atol=1e-6)


def test_residual_layers_are_of_one_width() -> None:
    MLP((6, 6), residual=True)
    with pytest.raises(Invalid) as caught:
        parse({**BASE, "model": {"name": "mlp", "hidden": [6, 7], "residual": True}})
    assert caught.value.key == "model.hidden"


def test_output_activation_is_of_the_output_alone() -> None:
    plain, sigmoid = built(MLP((6,))), built(MLP((6,), output_activation="sigmoid"))
    x = inputs(4, 8)
    np.testing.assert_allclose(sigmoid(x), keras.ops.sigmoid(plain(x)), rtol=1e-6)


def test_l2_is_on_every_kernel_and_no_bias() -> None:
    model = built(MLP((6, 5), l2=0.3, init="torch"))
    dense_layers = [layer for layer in model.layers if isinstance(layer, layers.Dense)]
    assert len(dense_layers) == 3
    assert all(layer.bias_regularizer is None for layer in dense_layers)
    expected = 0.3 * sum(float((layer.kernel.numpy() ** 2).sum()) for layer in dense_layers)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)
    assert built(MLP((6, 5))).losses == []


@pytest.mark.parametrize("constraint", ["max_norm", "non_neg", "unit_norm"])
def test_a_constraint_is_on_every_kernel_and_no_bias(constraint: Any) -> None:
    model = built(MLP((6, 5), constraint=constraint))
    expected = type(keras.constraints.get(constraint))
    dense_layers = [layer for layer in model.layers if isinstance(layer, layers.Dense)]
    assert len(dense_layers) == 3
    for layer in dense_layers:
        assert isinstance(layer.kernel.constraint, expected)
        assert layer.bias.constraint is None
    assert all(v.constraint is None for v in built(MLP((6, 5))).trainable_variables)


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"l2": -0.1}, "l2"),
        ({"l2": float("nan")}, "l2"),
        ({"constraint": "min_max_norm"}, "constraint"),
        ({"init": "he"}, "init"),
        ({"output_activation": "softmax"}, "output_activation"),
    ],
)
def test_an_mlps_bad_settings_are_refused(given: dict[str, Any], key: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse({**BASE, "model": {"name": "mlp", **given}})
    assert caught.value.key == f"model.{key}"


def test_a_gru_reads_the_sequence_both_ways_and_all_its_states_count() -> None:
    model = built(GRU(6), (12,), 3)
    assert model.output_shape == (None, 3)
    assert model.get_layer("output").kernel.shape == (12 * 2 * 6, 3)
    both = model.get_layer("both_ways")
    assert both.forward_layer.go_backwards != both.backward_layer.go_backwards
    with pytest.raises(Invalid) as caught:
        GRU(0)
    assert caught.value.key == "units"


# -- optimizers ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_setting_of_an_optimizer_is_keras_own_with_its_default(name: str) -> None:
    kind = OPTIMIZERS[name]
    expected = inspect.signature(getattr(keras.optimizers, kind.keras_class)).parameters
    fields = {f.name: f.default for f in dataclasses.fields(kind) if f.name != "schedule"}
    assert fields == {n: expected[n].default for n in fields if n in expected}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_builds_its_keras_class_with_its_settings(name: str) -> None:
    kind = OPTIMIZERS[name]
    optimizer = kind(learning_rate=0.125, clipnorm=0.5, use_ema=True, ema_overwrite_frequency=3)
    keras_optimizer = optimizer.build()
    assert isinstance(keras_optimizer, getattr(keras.optimizers, kind.keras_class))
    assert type(keras_optimizer).__name__ == kind.keras_class
    assert float(keras_optimizer.learning_rate.numpy()) == 0.125
    config = keras_optimizer.get_config()
    for field in dataclasses.fields(kind):
        if field.name != "schedule":
            assert config[field.name] == getattr(optimizer, field.name), field.name
    assert optimizer.build() is not keras_optimizer


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_takes_a_step(name: str) -> None:
    variable = keras.Variable(inputs(4, 3))
    before = variable.numpy()
    optimizer = OPTIMIZERS[name](learning_rate=0.125).build()
    optimizer.apply([keras.ops.convert_to_tensor(inputs(4, 3))], [variable])
    assert np.isfinite(variable.numpy()).all()
    assert (variable.numpy() != before).all()


# -- data ------------------------------------------------------------------------------------


def test_mnist1d_shuffled_is_one_permutation_of_the_inputs_for_all_samples() -> None:
    (x, y), (x_test, y_test) = MNIST1D().samples()
    (shuffled, labels), (shuffled_test, labels_test) = MNIST1D(shuffled=True).samples()
    np.testing.assert_array_equal(labels, y)
    np.testing.assert_array_equal(labels_test, y_test)
    columns = {x[:, i].tobytes(): i for i in range(40)}
    assert len(columns) == 40
    order = [columns[shuffled[:, i].tobytes()] for i in range(40)]
    assert sorted(order) == list(range(40))
    assert sum(a == b for a, b in enumerate(order)) < 10
    np.testing.assert_array_equal(shuffled_test, x_test[:, order])
    assert (shuffled.dtype, shuffled.shape, shuffled_test.shape) == (
        "float32",
        (4000, 40),
        (1000, 40),
    )
    # published results depend on this permutation
    assert order[:8] == [0, 7, 4, 17, 21, 11, 29, 5]


@pytest.mark.parametrize("count", [1, 8, 500])
def test_sums_are_sums_but_for_a_little_noise(count: int) -> None:
    data = Sums(count=count).load()
    x, y = (a.astype(np.float64) for a in data.train)
    assert (x.shape, y.shape) == ((count, 3), (count, 2))
    assert (x >= 0).all()
    assert (x <= np.float32(1 / 3)).all()
    noise = y - np.stack([x.sum(1), (x**2).sum(1)], 1)
    assert np.abs(noise).max() <= 0.01 + 1e-6
    assert (noise != 0).all()
    assert (data.task, data.outputs, data.shape) == ("regression", 2, (3,))
    assert data.validation is None
    for train, test in zip(data.train, data.test, strict=True):
        np.testing.assert_array_equal(train, test)


def test_sums_fill_their_range_and_their_noise_has_no_side() -> None:
    x, y = (a.astype(np.float64) for a in Sums(count=2000).load().train)
    assert x.min(0) == pytest.approx([0, 0, 0], abs=0.002)
    assert x.max(0) == pytest.approx([1 / 3] * 3, abs=0.002)
    noise = y - np.stack([x.sum(1), (x**2).sum(1)], 1)
    assert noise.min(0) == pytest.approx([-0.01] * 2, abs=1e-4)
    assert noise.max(0) == pytest.approx([0.01] * 2, abs=1e-4)
    assert np.abs(np.corrcoef(np.hstack([x, noise]).T) - np.eye(5)).max() < 0.1


def test_fewer_sums_are_the_first_of_many() -> None:
    np.testing.assert_array_equal(Sums(count=8).load().train[0], Sums(count=20).load().train[0][:8])


def test_data_that_is_written_out_is_as_written() -> None:
    x, y = ((1.0, 2.0), (3.0, 400.0), (5.0, 6.0)), ((0.25,), (-1000.0,), (0.1,))
    data = Explicit(x=x, y=y).load()
    for split in (data.train, data.test):
        np.testing.assert_array_equal(split[0], np.array(x, np.float32))
        np.testing.assert_array_equal(split[1], np.array(y, np.float32))
        assert [a.dtype for a in split] == ["float32", "float32"]
    assert data.validation is None
    assert (data.task, data.outputs, data.shape, data.name) == ("regression", 1, (2,), "explicit")


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"x": [], "y": []}, "x"),
        ({"x": [[]], "y": [[1]]}, "x"),
        ({"x": [[1, 2], [3]], "y": [[1], [2]]}, "x"),
        ({"x": [[1]], "y": [[]]}, "y"),
        ({"x": [[1], [2]], "y": [[1], [2, 3]]}, "y"),
        ({"x": [[1], [2]], "y": [[1]]}, "y"),
    ],
    ids=str,
)
def test_data_that_does_not_fit_is_refused(given: dict[str, Any], key: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse({**BASE, "data": {"name": "explicit", **given}, "objective": "test/loss"})
    assert caught.value.key == f"data.{key}"


def test_no_sums_are_refused() -> None:
    with pytest.raises(Invalid) as caught:
        parse({**BASE, "data": {"name": "sums", "count": 0}, "objective": "test/loss"})
    assert caught.value.key == "data.count"
