"""Initial values that are drawn at chosen places are those of the dense weight, bit for bit."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from masksweep.strategies.core import drawing
from masksweep.strategies.core.audit import same_bits
from masksweep.strategies.core.drawing import draw_entries

INITIALIZERS: dict[str, Any] = {
    "glorot_uniform": keras.initializers.GlorotUniform,
    "he_uniform": keras.initializers.HeUniform,
    "lecun_uniform": keras.initializers.LecunUniform,
    "fan_out": lambda seed: keras.initializers.VarianceScaling(2.0, "fan_out", "uniform", seed),
    "uniform": lambda seed: keras.initializers.RandomUniform(-0.1, 0.3, seed),
    # these are drawn dense
    "he_normal": keras.initializers.HeNormal,
    "normal": lambda seed: keras.initializers.RandomNormal(0.0, 0.1, seed),
    "of given axes": lambda seed: keras.initializers.VarianceScaling(
        1.0, "fan_in", "uniform", seed, input_axes=[1], output_axes=[0]
    ),
    "ones": lambda seed: keras.initializers.Ones(),
    "function": lambda seed: lambda shape, dtype: keras.ops.full(shape, seed % 7, dtype),
}
FEW = ["glorot_uniform", "uniform", "he_normal"]


def draw(name: str, seed: int, shape: tuple[int, ...], dtype: str = "float32") -> Any:
    """Returns entries in random order, and those of the dense weight."""
    places = np.random.default_rng(seed).permutation(int(np.prod(shape)))[:100]
    dense = np.asarray(INITIALIZERS[name](seed)(shape, dtype=dtype)).ravel()
    return draw_entries(INITIALIZERS[name](seed), shape, dtype, places), dense[places]


@pytest.mark.parametrize("name", INITIALIZERS)
def test_each_initializer(name: str) -> None:
    for seed in (0, 7, 2**31 - 1, 2**31 + 5, 2**40):
        for shape in ((37, 53), (1, 5), (3, 4, 5)):
            assert same_bits(*draw(name, seed, shape)), (seed, shape)
    assert same_bits(*draw(name, 3, (30, 40), "float64"))


@given(st.sampled_from(FEW), st.integers(0, 2**31), st.integers(1, 60), st.integers(1, 60))
def test_each_shape(name: str, seed: int, inputs: int, outputs: int) -> None:
    assert same_bits(*draw(name, seed, (inputs, outputs)))


def test_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "PART", 7)
    assert same_bits(*draw("glorot_uniform", 0, (37, 53)))


def test_the_counter_of_the_generator_is_carried() -> None:
    """The counter has 128 bits, of which the lower half may overflow within a weight."""
    places, key = np.arange(64), np.array([5], np.uint64)
    last = np.uint64(2**64 - 1)
    across = drawing._uniform(places, key, np.array([last, 3], np.uint64))
    after = drawing._uniform(places[:60], key, np.array([0, 4], np.uint64))
    assert same_bits(across[4:], after)


def test_a_generator_of_seeds_moves_on() -> None:
    initializer = keras.initializers.GlorotUniform(keras.random.SeedGenerator(0))
    first, second = (draw_entries(initializer, (9, 9), "float32", np.arange(9)) for _ in range(2))
    assert not same_bits(first, second)
