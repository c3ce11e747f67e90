"""Tests of the arrays of checkpoints and of weights that several trials need."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from masksweep.strategies.core.audit import same_bits
from masksweep.sweeps.common.storage import Folder
from masksweep.sweeps.training import saved_weights
from masksweep.sweeps.training.array_file import from_bytes, to_bytes

ARRAYS = {
    "hidden/kernel": np.array([[1.0, -0.0], [np.nan, 3.0]], ml_dtypes.bfloat16),
    "scalar": np.array(2.5, ml_dtypes.bfloat16),
    "empty": np.zeros((0, 3), ml_dtypes.bfloat16),
    "steps": np.array([7], np.int64),
    "mask": np.array([True, False]),
}


def assert_same(arrays: object) -> None:
    assert isinstance(arrays, dict)
    assert list(arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape)
        assert same_bits(arrays[name], array)


def test_each_dtype_comes_back() -> None:
    assert_same(from_bytes(to_bytes(ARRAYS)))


def test_saved_weights_come_back_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved_weights.save("key", ARRAYS, Folder(str(tmp_path)))
    monkeypatch.setattr(saved_weights, "_kept", type(saved_weights._kept)())
    assert_same(saved_weights.load("key", Folder(str(tmp_path))))
