"""The table: every strategy, what it documents to leak, and what it must refuse."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from typing import Any, Literal

import keras

from masksweep.strategies import Plan, Strategy
from masksweep.strategies.base import one_value
from masksweep.strategies.core.weights import describe, make_plan, values
from masksweep.strategies.dense import Dense
from masksweep.strategies.gradient_mask import GradientMask
from masksweep.strategies.hard_mask import HardMask
from masksweep.strategies.held import Held
from masksweep.strategies.held.constant import Constant
from masksweep.strategies.held.init import Init
from masksweep.strategies.held.zero import Zero
from masksweep.strategies.init_only import InitOnly
from masksweep.strategies.loss_mask import LossMask
from masksweep.strategies.patterns import Pattern
from masksweep.strategies.patterns.columns import Columns
from masksweep.strategies.patterns.random import Random
from masksweep.strategies.patterns.rows import Rows
from masksweep.strategies.projection import Projection
from masksweep.strategies.row_lookup import RowLookup
from masksweep.strategies.sparse_tensor import SparseTensor
from masksweep.strategies.sparse_values import SparseValues
from masksweep.strategies.var_list import VarList
from masksweep.strategies.weight_mask import WeightMask

from .situations import network
from .trial import Trial

OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "sgd": lambda: keras.optimizers.SGD(0.1),
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
}
HELD: dict[str, Held] = {"zero": Zero(), "constant": Constant(0.5), "init": Init()}

Leak = Literal["bits", "values"]
"""How a documented leak shows: in the sign of a zero only, or as a drift."""

SCATTERED = Random(0.5)


@dataclass(frozen=True, eq=False)
class Case:
    """One strategy under contract."""

    strategy: Strategy
    pattern: Pattern = SCATTERED
    targets: Sequence[str] = ("masked/kernel",)
    leaks: Mapping[tuple[str, str], Leak] = field(default_factory=dict)
    """(optimizer, held) where it is documented not to hold."""
    refuses: Mapping[str, str] = field(default_factory=dict)
    """Held values and situations that it must refuse: some words of the reason."""

    def plan(
        self,
        model: Any,
        held: str = "zero",
        *,
        seed: int = 0,
        targets: Sequence[str] | None = None,
        pattern: Pattern | None = None,
    ) -> Plan:
        return make_plan(
            describe(model),
            values(model),
            masks=(pattern or self.pattern).masks,
            held=HELD[held].values,
            targets=targets or self.targets,
            seed=seed,
        )


EVERYWHERE = list(product(OPTIMIZERS, HELD))
DECAYED = [("adamw", "constant"), ("adamw", "init")]
OTHER_KERNELS = ["conv1d", "conv2d", "depthwise", "einsum", "embedding"]
TIED = ["tied to a layer", "tied to a variable"]
HIDDEN = [*OTHER_KERNELS, *TIED, "sequence", "hidden", "bias", "nested", "shared"]
NO_SPARSE_MATRIX = {
    **dict.fromkeys([*OTHER_KERNELS, "bias"], "Dense kernel"),
    **dict.fromkeys(TIED, "another layer uses this kernel"),
    "nested": "inside other layers",
    "regularized": "regularizer",
    "constrained": "constraint",
    "constant": "zero only",
    "init": "zero only",
}

CASES: dict[str, Case] = {
    "dense": Case(Dense(), leaks=dict.fromkeys(EVERYWHERE, "values")),
    "init_only": Case(InitOnly(), leaks=dict.fromkeys(EVERYWHERE, "values")),
    "weight_mask": Case(WeightMask()),
    "weight_mask product": Case(
        WeightMask(form="product"),
        leaks={(optimizer, "zero"): "bits" for optimizer in OPTIMIZERS},
        refuses={"constant": "zero only", "init": "zero only"},
    ),
    "gradient_mask": Case(GradientMask(), leaks=dict.fromkeys(DECAYED, "values")),
    "projection": Case(Projection()),
    "hard_mask": Case(HardMask()),
    "sparse_values": Case(SparseValues(), refuses={"constrained": "constraint"}),
    "sparse_tensor": Case(SparseTensor(), refuses=NO_SPARSE_MATRIX),
    "sparse_tensor lookup": Case(SparseTensor(format="lookup"), refuses=NO_SPARSE_MATRIX),
    "row_lookup": Case(
        RowLookup(),
        pattern=Rows(0.5),
        leaks=dict.fromkeys(DECAYED, "values"),
        refuses={
            **dict.fromkeys(["conv1d", "conv2d", "depthwise", "bias"], "rows of a matrix"),
            "scattered": "whole rows",
        },
    ),
    "var_list": Case(
        VarList(),
        pattern=Columns(0.5),
        refuses={"scattered": "whole outputs", "constrained": "constraint"},
    ),
    "loss_mask": Case(
        LossMask(),
        pattern=Columns(0.5),
        targets=["output/*"],
        leaks=dict.fromkeys(DECAYED, "values"),
        refuses={
            **dict.fromkeys([*HIDDEN, "softmax"], "output layer"),
            "scattered": "whole outputs",
        },
    ),
}
HOLDING = [name for name, case in CASES.items() if ("sgd", "zero") not in case.leaks]
"""The cases that hold zero bit for bit."""


@cache
def _trial(name: str, optimizer: str, held: str, jit: bool) -> Trial:
    case, model = CASES[name], network()
    return Trial(case.strategy, model, case.plan(model, held), OPTIMIZERS[optimizer](), jit=jit)


def begin(
    name: str, optimizer: str, held: str = "zero", *, seed: int = 0, jit: bool = False
) -> Trial:
    """The case on the plain network, at its start; compiled for all tests at most twice."""
    alone = held == "init" and CASES[name].strategy.bind().keep is one_value
    trial = _trial(name, optimizer, held if alone else "zero", jit)
    return trial.begin(CASES[name].plan(network(), held, seed=seed))
