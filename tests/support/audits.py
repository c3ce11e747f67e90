"""Small models, a mask, and what `masksweep audit` says of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from masksweep.strategies.base import Array
from masksweep.strategies.core.weights import describe
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
    """Save it with these weights; the others stay."""
    for weight, variable in zip(describe(model), model.trainable_variables, strict=True):
        if weight.name in weights:
            variable.assign(weights[weight.name])
    model.save(path)


def save_masks(path: str = "masks.npz", **masks: Any) -> None:
    np.savez(path, **(masks or {NAME: MASK}))


def kernel(masked: Any, dtype: str = "float32") -> Array:
    """Kept entries at 9, the masked ones at a value, or each at one of its own."""
    made = np.full(SHAPE, 9, dtype)
    made[MASK == 0] = masked
    return made


def audited(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """(exit code, stdout) of an audit that was made."""
    code = main(["audit", *arguments])
    said = capsys.readouterr()
    assert "masksweep: " not in said.err, said.err
    return code, said.out


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code, said = audited(capsys, *arguments, "--json")
    found: dict[str, Any] = json.loads(said)
    assert code == (not found["holds"])
    return found


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said of bad input."""
    assert main(["audit", *arguments]) == 2
    said = capsys.readouterr()
    assert not said.out
    *others, last = said.err.splitlines()
    assert all(line.endswith("...") for line in others)
    assert last.startswith("masksweep: ")
    return last.removeprefix("masksweep: ")
