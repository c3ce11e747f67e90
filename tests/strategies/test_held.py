"""Tests of held values: their shapes, dtypes and values, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from masksweep.strategies import Invalid
from masksweep.strategies.held import HELD, Held
from masksweep.strategies.held.constant import Constant
from masksweep.strategies.held.file import File
from masksweep.strategies.held.init import Init
from masksweep.strategies.held.zero import Zero
from masksweep.strategies.plan import collapse_constant
from masksweep.strategies.testing import check_held

NAME = "hidden/kernel"


@pytest.fixture(params=["float16", "float32", "float64"])
def initial(request: pytest.FixtureRequest) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    return {
        name: generator.normal(size=shape).astype(request.param)
        for name, shape in ((NAME, (3, 2)), ("hidden/bias", (2,)))
    }


def file(tmp_path: Path, **arrays: Any) -> File:
    np.savez(tmp_path / "held.npz", **arrays)
    return File(str(tmp_path / "held.npz"))


def test_kinds() -> None:
    assert {"zero": Zero, "constant": Constant, "init": Init, "file": File} == HELD


def test_shapes_and_dtypes_are_those_of_the_weights(
    initial: dict[str, Any], tmp_path: Path
) -> None:
    from_file = file(tmp_path, **{name: np.ones(a.shape, "int8") for name, a in initial.items()})
    for held in (Zero(), Constant(0.1), Init(), from_file):
        held_values = held.values(initial)
        assert list(held_values) == list(initial)
        for name, array in held_values.items():
            assert (array.shape, array.dtype) == (initial[name].shape, initial[name].dtype)


@pytest.mark.parametrize("held", [Zero(), Constant(0.1), Init()], ids=lambda h: h.name)
def test_held_values_pass_the_published_check(held: Held) -> None:
    check_held(held)


def test_broken_held_values_fail() -> None:
    class Broken(Init):
        def values(self, initial: Any) -> dict[str, Any]:
            return {name: array.astype("float64") for name, array in initial.items()}

    with pytest.raises(AssertionError, match="are float64"):
        check_held(Broken())


def test_one_value_for_all_is_told_from_others(initial: dict[str, Any]) -> None:
    for held, value in ((Zero(), 0), (Constant(0.5), 0.5)):
        for array in held.values(initial).values():
            scalar = collapse_constant(array)
            assert (scalar.shape, scalar.dtype, scalar) == ((), array.dtype, value)
    zeros = {name: np.zeros_like(a) for name, a in initial.items()}
    for array in Init().values(zeros).values():  # equal by chance, not by definition
        assert collapse_constant(array) is array


def test_zero_is_plus_zero(initial: dict[str, Any]) -> None:
    for array in Zero().values(initial).values():
        assert not array.any()
        assert not np.signbit(array).any()


def test_constant_is_rounded_to_the_dtype(initial: dict[str, Any]) -> None:
    for array in Constant(0.1).values(initial).values():
        assert (array == array.dtype.type(0.1)).all()


def test_init_is_a_copy(initial: dict[str, Any]) -> None:
    held_values = Init().values(initial)
    for name, array in held_values.items():
        np.testing.assert_array_equal(array, initial[name])
        assert not np.shares_memory(array, initial[name])


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "bool"])
def test_file_is_cast(tmp_path: Path, initial: dict[str, Any], dtype: str) -> None:
    stored = np.array([[0, 1], [1, 1], [0, 0]], dtype)
    values = file(tmp_path, **{NAME: stored, "other": np.ones(1)}).values({NAME: initial[NAME]})
    assert list(values) == [NAME]
    np.testing.assert_array_equal(values[NAME], stored.astype(initial[NAME].dtype))


@pytest.mark.parametrize(
    ("given", "key", "words"),
    [
        ({"other": np.ones((3, 2))}, "path", "other"),
        ({NAME: np.ones((2, 3))}, NAME, r"\(3, 2\)"),
        ({NAME: np.ones(())}, NAME, r"\(3, 2\)"),
        ({NAME: np.full((3, 2), "1")}, NAME, "numbers"),
        ({NAME: np.ones((3, 2), complex)}, NAME, "numbers"),
        ({NAME: np.full((3, 2), 1e300)}, NAME, "float32"),
    ],
)
def test_file_refuses(tmp_path: Path, given: dict[str, Any], key: str, words: str) -> None:
    held = file(tmp_path, **given)
    with pytest.raises(Invalid, match=words) as caught:
        held.values({NAME: np.zeros((3, 2), "float32")})
    assert caught.value.key == key


@pytest.mark.parametrize("path", ["", "missing.npz"])
def test_file_must_exist(path: str) -> None:
    with pytest.raises(Invalid) as caught:
        File(path)
    assert caught.value.key == "path"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_constant_is_finite(value: float) -> None:
    with pytest.raises(Invalid, match="value="):
        Constant(value)


def test_constant_fits_the_dtype() -> None:
    with pytest.raises(Invalid, match="value="):
        Constant(1e300).values({NAME: np.zeros((3, 2), "float32")})
