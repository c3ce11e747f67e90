"""Strategies: ways to hold masked weights while the rest trains. It uses no Hydra, Ray or MLflow.

`apply` makes a Keras model that holds its masks; `audit` and `summary` show what it holds.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from masksweep.strategies.base import Strategy
from masksweep.strategies.binding import Binding, Slot
from masksweep.strategies.errors import Invalid, require
from masksweep.strategies.patterns import PATTERNS, Pattern
from masksweep.strategies.patterns.autoregressive import Autoregressive
from masksweep.strategies.patterns.axis import Axis
from masksweep.strategies.patterns.band import Band
from masksweep.strategies.patterns.block import Block
from masksweep.strategies.patterns.by_weight import ByWeight
from masksweep.strategies.patterns.causal import Causal
from masksweep.strategies.patterns.columns import Columns
from masksweep.strategies.patterns.complement import Complement
from masksweep.strategies.patterns.edges import Edges
from masksweep.strategies.patterns.fan_in import FanIn
from masksweep.strategies.patterns.grasp import GraSP
from masksweep.strategies.patterns.heads import Heads
from masksweep.strategies.patterns.intersection import Intersection
from masksweep.strategies.patterns.magnitude import Magnitude
from masksweep.strategies.patterns.n_m import NM
from masksweep.strategies.patterns.random import Random
from masksweep.strategies.patterns.rows import Rows
from masksweep.strategies.patterns.smallest import Smallest
from masksweep.strategies.patterns.snip import SNIP
from masksweep.strategies.patterns.synflow import SynFlow
from masksweep.strategies.patterns.union import Union
from masksweep.strategies.patterns.window import Window
from masksweep.strategies.patterns.zeros import Zeros
from masksweep.strategies.plan import Array, Mask, MaskedWeight, Plan, Weight
from masksweep.strategies.registry import STRATEGIES, register
from masksweep.strategies.schedules import SCHEDULES, MaskSchedule
from masksweep.strategies.schedules.dense_sparse_dense import DenseSparseDense
from masksweep.strategies.schedules.given import Given
from masksweep.strategies.schedules.gradual import Gradual
from masksweep.strategies.schedules.iterative import Iterative
from masksweep.strategies.schedules.one_shot import OneShot
from masksweep.strategies.schedules.rigl import RigL
from masksweep.strategies.schedules.set import SET
from masksweep.strategies.schedules.swap import Swap

if TYPE_CHECKING:
    from masksweep.strategies.keras_model.apply import apply
    from masksweep.strategies.keras_model.deferred import deferred_weights
    from masksweep.strategies.keras_model.masked_model import MaskedModel
    from masksweep.strategies.keras_model.report import audit
    from masksweep.strategies.keras_model.sparse_dense import SparseDense
    from masksweep.strategies.keras_model.summary import summary

__all__ = [
    "NM",
    "PATTERNS",
    "SCHEDULES",
    "SET",
    "SNIP",
    "STRATEGIES",
    "Array",
    "Autoregressive",
    "Axis",
    "Band",
    "Binding",
    "Block",
    "ByWeight",
    "Causal",
    "Columns",
    "Complement",
    "DenseSparseDense",
    "Edges",
    "FanIn",
    "Given",
    "GraSP",
    "Gradual",
    "Heads",
    "Intersection",
    "Invalid",
    "Iterative",
    "Magnitude",
    "Mask",
    "MaskSchedule",
    "MaskedModel",
    "MaskedWeight",
    "OneShot",
    "Pattern",
    "Plan",
    "Random",
    "RigL",
    "Rows",
    "Slot",
    "Smallest",
    "SparseDense",
    "Strategy",
    "Swap",
    "SynFlow",
    "Union",
    "Weight",
    "Window",
    "Zeros",
    "apply",
    "audit",
    "deferred_weights",
    "register",
    "require",
    "summary",
]

_NEEDS_TENSORFLOW = {
    "MaskedModel": "masked_model",
    "SparseDense": "sparse_dense",
    "apply": "apply",
    "audit": "report",
    "deferred_weights": "deferred",
    "summary": "summary",
}
"""Names that are imported when they are first used, with their modules in `keras_model`."""


def __getattr__(name: str) -> Any:
    if name not in _NEEDS_TENSORFLOW:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.keras_model.{_NEEDS_TENSORFLOW[name]}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if "keras" in sys.modules:  # TensorFlow is loaded then: let `load_model` find the classes of files
    for _module in ("masked_model", "sparse_dense"):
        importlib.import_module(f"{__name__}.keras_model.{_module}")
