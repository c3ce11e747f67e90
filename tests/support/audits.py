"""Small models, a mask, and helpers that run `masksweep audit` on them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from masksweep.strategies.core.weights import describe
from masksweep.strategies.plan import Array
from masksweep.sweeps.cli.main import main

NAME = "hidden/kernel"


SHAPE = (3, 4)


MASK = np.array([[1, 0, 1, 0], [0, 1, 1, 0], [1, 1, 0, 1]])
"""Five masked entries, the first at [0, 1]."""


def build(dtype: str = "float32", trainable: bool = True) -> Any:
    return keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(4, name="hidden", dtype=dtype, trainable=trainable),
            layers.BatchNormalization(name="norm"),
            layers.Dense(2, name="output"),
        ]
    )


def save(model: Any, weights: Mapping[str, Any] = {}, path: str = "model.keras") -> None:
    """Saves a model after assigning some of its weights, given by name."""
    for weight, variable in zip(describe(model), model.trainable_variables, strict=True):
        if weight.name in weights:
            variable.assign(weights[weight.name])
    model.save(path)


def save_masks(path: str = "masks.npz", **masks: Any) -> None:
    np.savez(path, **(masks or {NAME: MASK}))


def kernel(masked: Any, dtype: str = "float32") -> Array:
    """A kernel whose kept entries are 9.

    Args:
        masked: Value of the masked entries: one for all, or an array with one for each.
        dtype: The kernel's dtype.
    """
    values = np.full(SHAPE, 9, dtype)
    values[MASK == 0] = masked
    return values


def audited(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Runs an audit that is not refused, and returns (exit code, stdout)."""
    code = main(["audit", *arguments])
    output = capsys.readouterr()
    assert "masksweep: " not in output.err, output.err
    return code, output.out


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code, stdout = audited(capsys, *arguments, "--json")
    report: dict[str, Any] = json.loads(stdout)
    assert code == (not report["holds"])
    return report


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Runs an audit that must be refused, and returns the message."""
    assert main(["audit", *arguments]) == 2
    output = capsys.readouterr()
    assert not output.out
    *others, last = output.err.splitlines()
    assert all(line.endswith("...") for line in others)
    assert last.startswith("masksweep: ")
    return last.removeprefix("masksweep: ")
