"""The check that the outputs of a network fit the data and the loss."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
from keras import layers

from masksweep.strategies import Invalid
from masksweep.sweeps.components.datasets.arrays import Arrays, Task
from masksweep.sweeps.components.models import Model
from masksweep.sweeps.components.models.ends import final_function, require_fit


@dataclass(frozen=True)
class Mine(Model):
    name: ClassVar[str] = "mine"


@dataclass(frozen=True)
class MyFile(Model):
    name: ClassVar[str] = "my_file"
    path: str = "net.keras"


def data(task: Task = "classification") -> Arrays:
    split = np.zeros((2, 8), np.float32), np.zeros(2, np.int32)
    return Arrays("images", task, 3, split, None, split)


def network(*last: Any) -> Any:
    return keras.Sequential([keras.Input((8,)), layers.Dense(5), *last])


def operation(function: Callable[[Any], Any]) -> Any:
    inputs = keras.Input((8,))
    return keras.Model(inputs, function(layers.Dense(3)(inputs)))


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
@pytest.mark.parametrize(
    "build",
    [
        lambda name: network(layers.Dense(3, name)),
        lambda name: network(layers.Dense(3), layers.Activation(name)),
        lambda name: network(keras.Sequential([keras.Input((5,)), layers.Dense(3, name)])),
        lambda name: operation(getattr(keras.ops, name)),
    ],
    ids=["dense", "activation", "nested", "operation"],
)
def test_a_classification_that_ends_in_probabilities_is_refused(
    build: Callable[[str], Any], name: str
) -> None:
    for model, key in ((Mine(), "model=mine"), (MyFile(), "model.path=net.keras")):
        with pytest.raises(Invalid) as caught:
            require_fit(model, build(name), data())
        assert str(caught.value).startswith(f"{key}: ends in a {name}; the loss takes logits")
    require_fit(Mine(), build(name), data("regression"))


def test_the_layer_softmax_is_found() -> None:
    with pytest.raises(Invalid, match="ends in a softmax"):
        require_fit(Mine(), network(layers.Dense(3), layers.Softmax()), data())


@pytest.mark.parametrize("name", [None, "linear", "log_softmax", "tanh"])
def test_other_ends_are_taken(name: str | None) -> None:
    model = network(layers.Dense(3, name))
    require_fit(Mine(), model, data())
    assert final_function(model.outputs[0]) == (name or "linear")


def test_another_number_of_outputs_is_refused() -> None:
    with pytest.raises(Invalid) as caught:
        require_fit(MyFile(), network(layers.Dense(4)), data())
    said = "has outputs of the shape (None, 4); images has 3 classes, so they must be (None, 3)"
    assert str(caught.value) == f"model.path=net.keras: {said}"
    with pytest.raises(Invalid, match="images has 3 values for each sample, so they must be"):
        require_fit(Mine(), network(layers.Reshape((5, 1))), data("regression"))


def test_one_output_for_two_classes_is_refused_with_the_task_for_it() -> None:
    of_two = replace(data(), outputs=2)
    hint = "; a model with one output takes data.task=binary, of data=npz and data=csv"
    for units, of_data, has_hint in ((1, of_two, True), (3, of_two, False), (1, data(), False)):
        with pytest.raises(Invalid) as caught:
            require_fit(Mine(), network(layers.Dense(units)), of_data)
        assert str(caught.value).endswith(hint) is has_hint
    one_label = replace(data("multi_label"), outputs=1)
    require_fit(Mine(), network(layers.Dense(1)), one_label)
    with pytest.raises(Invalid, match="images has 1 label for each sample, so they must be"):
        require_fit(Mine(), network(layers.Dense(2)), one_label)


def test_inputs_of_another_shape_than_the_samples_are_refused() -> None:
    for shape in ((9,), (8, 1)):
        wide = keras.Sequential([keras.Input(shape), layers.Flatten(), layers.Dense(3)])
        said = f"has inputs of the shape {(None, *shape)}; it must be that of the data, (None, 8)"
        with pytest.raises(Invalid, match=re.escape(f"model=mine: {said}")):
            require_fit(Mine(), wide, data())
