"""A dense trial of a sweep ends with the bits of `keras.Model.fit`, whatever its training is."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from masksweep.sweeps.training.losses import balanced

from .fit import assert_same_as_fit, dense, fitted, trained

RATE = 0.1


def sgd(rate: Any = RATE) -> Any:
    return keras.optimizers.SGD(rate, momentum=0.9)


@pytest.mark.parametrize("loss", [None, "categorical_focal_crossentropy"])
def test_a_loss_and_weights_of_classes(loss: str | None) -> None:
    spec = dense({"loss": loss, "class_weight": "balanced"})
    weights = balanced(spec.data.load().train[1], 10)
    assert_same_as_fit(spec, sgd(), class_weight=dict(enumerate(weights)))


def test_a_regression() -> None:
    spec = dense({"loss": "huber", "batch_size": 100}, data="diabetes")
    assert_same_as_fit(spec, sgd())


def test_the_comparison_can_fail() -> None:
    spec = dense({"class_weight": [2.0, *[1.0] * 9]})
    expected, ours = fitted(spec, sgd()), trained(spec)
    assert not all(np.array_equal(expected[name], ours[name]) for name in expected)
