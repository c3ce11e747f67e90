"""The documented behaviour of each strategy: where it leaks, and what it must refuse.

The contract suite and `masksweep selftest` check it.
"""

from __future__ import annotations

from itertools import product

from masksweep.strategies.dense import Dense
from masksweep.strategies.gradient_mask import GradientMask
from masksweep.strategies.hard_mask import HardMask
from masksweep.strategies.init_only import InitOnly
from masksweep.strategies.loss_mask import LossMask
from masksweep.strategies.patterns.block import Block
from masksweep.strategies.patterns.columns import Columns
from masksweep.strategies.patterns.rows import Rows
from masksweep.strategies.projection import Projection
from masksweep.strategies.row_lookup import RowLookup
from masksweep.strategies.sparse_tensor import SparseTensor
from masksweep.strategies.sparse_values import SparseValues
from masksweep.strategies.testing.case import HELD, OPTIMIZERS, Case
from masksweep.strategies.var_list import VarList
from masksweep.strategies.weight_mask import WeightMask

EVERYWHERE = list(product(OPTIMIZERS, HELD))
DECAYED = [("adamw", "constant"), ("adamw", "init")]
OTHER_KERNELS = ["conv1d", "conv2d", "depthwise", "einsum", "embedding"]
TIED = ["tied to a layer", "tied to a variable"]
HIDDEN = [*OTHER_KERNELS, *TIED, "sequence", "hidden", "bias", "nested", "shared"]
NO_SPARSE_MATRIX = {
    **dict.fromkeys(["depthwise", "embedding", "bias"], "only kernels of Dense"),
    **dict.fromkeys(TIED, "another layer uses this kernel"),
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
    "gradient_mask": Case(
        GradientMask(), leaks=dict.fromkeys(DECAYED, "values"), averages_leak=True
    ),
    "projection": Case(Projection()),
    "hard_mask": Case(HardMask()),
    "sparse_values": Case(SparseValues(), refuses={"constrained": "constraint"}),
    "sparse_tensor": Case(SparseTensor(format="coo"), refuses=NO_SPARSE_MATRIX),
    "sparse_tensor auto": Case(SparseTensor(), refuses=NO_SPARSE_MATRIX),
    "sparse_tensor dense": Case(SparseTensor(format="dense"), refuses=NO_SPARSE_MATRIX),
    "sparse_tensor lookup": Case(SparseTensor(format="lookup"), refuses=NO_SPARSE_MATRIX),
    "sparse_tensor compiled": Case(SparseTensor(format="compiled"), refuses=NO_SPARSE_MATRIX),
    "sparse_tensor block": Case(
        SparseTensor(format="block"),
        pattern=Block(0.5, (2, 2)),
        refuses={**NO_SPARSE_MATRIX, "scattered": "masks of whole blocks"},
    ),
    "sparse_tensor compact": Case(
        SparseTensor(format="compact"),
        pattern=Columns(0.5),
        refuses={**NO_SPARSE_MATRIX, "scattered": "masks of whole rows and columns"},
    ),
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
        averages_leak=True,
        refuses={
            **dict.fromkeys([*HIDDEN, "softmax"], "output layer"),
            "scattered": "whole outputs",
        },
    ),
}
