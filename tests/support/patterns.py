"""Patterns that tests use: all that use a seed, and a wrong one. Does not load TensorFlow."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.patterns import Pattern
from masksweep.strategies.patterns.axis import Axis
from masksweep.strategies.patterns.base import Shapes
from masksweep.strategies.patterns.block import Block
from masksweep.strategies.patterns.columns import Columns
from masksweep.strategies.patterns.fan_in import FanIn
from masksweep.strategies.patterns.heads import Heads
from masksweep.strategies.patterns.n_m import NM
from masksweep.strategies.patterns.random import Random
from masksweep.strategies.patterns.rows import Rows
from masksweep.strategies.plan import Mask

SEEDED: dict[str, Pattern] = {
    "random": Random(0.5),
    "random er": Random(0.5, "er"),
    "random erk": Random(0.5, "erk"),
    "random global": Random(0.5, "global"),
    "n_m": NM(2, 4),
    "n_m axis": NM(2, 5, axis=0, remainder="shorter"),
    "block": Block(0.5, (2, 3)),
    "rows": Rows(0.5),
    "columns": Columns(0.5),
    "axis": Axis(0, 0.5),
    "fan_in": FanIn(3),
    "heads": Heads(0.5),
}
ATTENTION: Shapes = {
    f"{layer}/{part}": shape
    for layer in ("first/attention", "second/attention")
    for part, shape in {
        "query/kernel": (12, 8, 3),
        "query/bias": (8, 3),
        "key/kernel": (12, 4, 3),  # each for two heads, as in GroupQueryAttention
        "attention_output/kernel": (8, 3, 12),
        "attention_output/bias": (12,),
    }.items()
}
"""Shapes of the weights of two attention layers."""


def digest(masks: Mapping[str, Mask]) -> str:
    sha = hashlib.sha256()
    for name, mask in masks.items():
        sha.update(f"{name} {mask.shape}".encode() + np.packbits(mask).tobytes())
    return sha.hexdigest()[:16]


def digests() -> dict[str, str]:
    shapes = {"conv/kernel": (3, 4, 24), "hidden/kernel": (24, 36), "hidden/bias": (36,)}
    wide = {name: shape for name, shape in shapes.items() if len(shape) > 1}
    others = {"n_m": wide, "heads": ATTENTION}
    return {
        name: digest(pattern.masks(others.get(name, shapes), 7)) for name, pattern in SEEDED.items()
    }


@dataclass(frozen=True)
class Broken(Pattern):
    """Makes masks that are wrong in one way."""

    name: ClassVar[str] = "broken"
    way: str

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        made = Random(0.5).masks(shapes, 0 if self.way == "seed" else seed)
        if self.way == "hash":
            made = Random(0.5).masks(shapes, hash("a word"))
        if self.way == "global":
            made = {name: np.random.rand(*shape) < 0.5 for name, shape in shapes.items()}  # noqa: NPY002
        if self.way == "dtype":
            made = {name: mask.astype("int8") for name, mask in made.items()}  # type: ignore[misc]
        return made
