"""Tests that Keras' private attributes and methods work as expected, one test for each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from masksweep.strategies.core import keras_internals as internals


def nested() -> Any:
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="dense")], name="inner")
    return keras.Sequential([keras.Input((4,)), inner, layers.BatchNormalization(name="norm")])


def test_layers_within_layers() -> None:
    model = nested()
    inner, norm = model.layers
    assert {layer.name for layer in internals.inner_layers(model)} >= {"inner", "norm"}
    assert set(model.layers) | set(inner.layers) | {model} <= set(internals.all_layers(model))
    assert internals.inner_layers(norm) == []


def test_a_layers_own_variables_are_the_same_when_it_is_frozen() -> None:
    inner, norm = nested().layers
    before = internals.own_variables(norm)
    assert [v.name for v in before] == ["gamma", "beta", "moving_mean", "moving_variance"]
    assert [v.name for v in internals.own_weights(norm)] == ["gamma", "beta"]
    norm.trainable = False
    assert internals.own_variables(norm) == before
    assert internals.own_variables(inner) == []


def test_where_a_tensor_comes_from_and_how_often_a_layer_is_applied() -> None:
    start, layer = keras.Input((4,)), layers.Dense(4)
    once = layer(start)
    assert (internals.source(once), internals.applications(layer)) == (layer, 1)
    layer(once)
    assert internals.applications(layer) == 2


def test_the_functional_model_of_a_sequential_one() -> None:
    model = keras.Sequential([keras.Input((4,), name="start"), layers.Dense(3, name="end")])
    functional = internals.functional(model)
    assert functional.output_names == ["end"]
    assert [tensor.name for tensor in functional.inputs] == ["start"]
    assert internals.functional(functional) is functional


def test_a_rematerialized_layer() -> None:
    plain = layers.Dense(4)
    with keras.RematScope(mode="full"):
        again = layers.Dense(4)
    assert [internals.rematerialized(layer) for layer in (plain, again)] == [False, True]


def test_a_layer_that_is_not_trainable_for_a_while() -> None:
    norm = layers.BatchNormalization()
    norm.build((None, 4))
    with internals.not_trainable([norm]):
        assert not norm.trainable
        assert norm.gamma.trainable
        np.testing.assert_allclose(norm(np.ones((2, 4)), training=True), 0.9995, rtol=1e-6)
    assert norm.trainable


def test_a_layer_that_computes_otherwise_for_a_while() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="dense")])
    (dense,) = model.layers

    def call(inputs: Any, training: Any = None) -> Any:
        return inputs + 1

    with internals.calling({id(dense): call}, [dense]):
        np.testing.assert_array_equal(model(np.zeros((1, 4))), np.ones((1, 4)))
        np.testing.assert_array_equal(internals.own_call(dense)(np.zeros((1, 4))), np.zeros((1, 4)))
        with ThreadPoolExecutor(1) as pool:  # another thread computes as before
            other = pool.submit(lambda: np.asarray(model(np.zeros((1, 4))))).result()
        np.testing.assert_array_equal(other, np.zeros((1, 4)))
    kernel = dense.kernel.numpy()
    np.testing.assert_allclose(model(np.ones((1, 4))), kernel.sum(0, keepdims=True), rtol=1e-6)
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    np.testing.assert_array_equal(copy(np.ones((1, 4))), model(np.ones((1, 4))))


def test_whether_keras_is_in_a_call() -> None:
    inside = []
    layer = layers.Lambda(lambda x: inside.append(internals.inside_a_call()) or x)
    layer(np.ones(3))
    assert inside[-1]
    assert not internals.inside_a_call()


def test_the_mask_of_an_output_goes_to_another_tensor() -> None:
    output = layers.Embedding(3, 2, mask_zero=True)(np.array([[1, 0]]))
    kept = internals.keep_mask(tf.identity(output), output)
    loss = keras.losses.MeanSquaredError()
    targets = np.ones((1, 2, 2))
    assert float(loss(targets, kept)) == float(loss(targets, output))
    assert float(loss(targets, kept)) != float(loss(targets, tf.identity(output)))


def test_a_value_is_read_and_set_whatever_scope_is_active() -> None:
    variable = keras.Variable(np.ones(2))
    with keras.StatelessScope([(variable, tf.zeros(2))]):
        np.testing.assert_array_equal(internals.stored_value(variable), np.ones(2))
        internals.assign_directly(variable, tf.fill([2], 3.0))
    np.testing.assert_array_equal(variable.numpy(), np.full(2, 3))


def test_what_an_optimizer_was_built_for_and_the_metrics_of_a_model() -> None:
    variable = keras.Variable(np.ones(2))
    optimizer = keras.optimizers.SGD()
    optimizer.build([variable])
    assert internals.trained_by(optimizer) == [variable]
    model = keras.Sequential([layers.Dense(1)])
    model.largest = keras.metrics.Mean()
    assert internals.own_metrics(model) == [model.largest]


def test_a_variable_that_passes_for_another_is_left_out_of_weight_decay() -> None:
    original, other = (keras.Variable(np.ones(3), name=n) for n in ("original", "other"))
    internals.treat_as(other, original)
    optimizer = keras.optimizers.SGD(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_list=[original])
    optimizer.apply([tf.zeros(3)], [other])
    np.testing.assert_array_equal(other.numpy(), np.ones(3))


@pytest.mark.parametrize("method", [internals.DECAY, internals.UPDATE, internals.AVERAGE])
def test_an_optimizer_calls_the_method(method: str) -> None:
    optimizer = keras.optimizers.Adam(
        0.1, weight_decay=0.1, use_ema=True, ema_overwrite_frequency=1
    )
    argument_counts = []
    original = getattr(optimizer, method)

    def recording(*arguments: Any) -> Any:
        argument_counts.append(len(arguments))
        return original(*arguments)

    setattr(optimizer, method, recording)
    optimizer.apply([tf.ones(3)], [keras.Variable(np.ones(3))])
    assert argument_counts == [3 if method == internals.UPDATE else 1]


@pytest.mark.parametrize("form", [internals.without_replicas, internals.stateless])
def test_a_form_of_an_optimizer_updates_as_the_optimizer_does(form: Any) -> None:
    results = []
    for kind in (keras.optimizers.Adam, form(keras.optimizers.Adam)):
        variable = keras.Variable(np.ones(3))
        optimizer = kind(0.1)
        assert type(optimizer).__name__ == "Adam"
        for _ in range(3):
            optimizer.apply([tf.constant([1.0, 2.0, 3.0])], [variable])
        results.append(variable.numpy())
    np.testing.assert_array_equal(*results)


def test_a_stateless_optimizer_updates_within_a_stateless_scope() -> None:
    variable = keras.Variable(np.ones(3))
    optimizer = internals.stateless(keras.optimizers.SGD)(0.1)
    optimizer.build([variable])
    with keras.StatelessScope([(variable, tf.zeros(3))]) as scope:
        optimizer.apply([tf.ones(3)], [variable])
    np.testing.assert_allclose(scope.get_current_value(variable), [-0.1] * 3)
    np.testing.assert_array_equal(variable.numpy(), np.ones(3))


def test_a_tracked_variable_is_one_of_the_optimizers() -> None:
    optimizer, variable = keras.optimizers.SGD(), keras.Variable(1.0, trainable=False)
    internals.track(optimizer, variable)
    assert any(v is variable for v in optimizer.variables)
