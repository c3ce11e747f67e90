"""The speed table in the documentation of `tf.sparse.sparse_dense_matmul`, measured again here.

The table was measured on six cores of an Ivy Bridge processor of 2012. It times the product of
A `[m, k]`, of whose entries a given share is not zero, with B `[k, n]`: "sparse" is
`sparse_tensor_dense_matmul(A, B)`, "dense" is `matmul(A, B, a_is_sparse=True)`. The table's CPU
rows are in `sparse_matmul.csv`. Today few users pass `a_is_sparse` for a dense A, so this module
compares sparse with the plain `matmul(A, B)` too.

TensorFlow's benchmark with the table's sizes (`sparse_tensor_dense_matmul_op_test.py`) takes the
mean over a thousand iterations of a while loop in one call, and includes the cost of the loop.
This module does the same, so no figure is the time of one call from Python. Like TensorFlow's, the
figures are elapsed time, and mean nothing on a busy machine. TensorFlow calls the kernel behind
`a_is_sparse` deprecated.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from math import exp, inf, log, sqrt
from statistics import median
from typing import Any, Literal

from masksweep.sweeps.training.timing import time_in_turn

Dense = Literal["flagged", "plain"]
Product = Literal["sparse", "flagged", "plain", "loop"]
"""`loop` computes no product: its time is the cost of the loop, which all other times include."""
PRODUCTS: tuple[Product, ...] = ("sparse", "flagged", "plain", "loop")
DENSE: dict[Dense, str] = {"flagged": "matmul(a_is_sparse=True)", "plain": "matmul"}
"""The dense products that sparse is compared with: the published table's, and today's usual one."""
ROUNDS = 7
MATRIX_SIDE = 1000
"""Rows and columns of the A for which crossovers are searched: the largest of the table."""
COLUMN_COUNTS = (1, 10, 25, 128)
"""Columns of B for which crossovers are searched: the table's values, and a training batch."""
MIN_DENSITY, MAX_DENSITY = 0.001, 0.99
"""Densities between which a crossover is searched."""
BISECTIONS = 5
"""Number of bisections of that interval. The crossover is then interpolated in what is left."""


@dataclass(frozen=True)
class Cell:
    """A product A `[m, k]` times B `[k, n]`; `density` is the share of A's non-zero entries."""

    density: float
    n: int
    m: int
    k: int


Ratios = Mapping[Cell, float]
"""Time of the sparse product divided by the time of a dense one, by cell."""


@dataclass(frozen=True)
class PublishedRow:
    """A row of TensorFlow's table; times in seconds. Its "dense" is `flagged` in this module."""

    cell: Cell
    dense_s: float
    sparse_s: float
    ratio: float


@dataclass(frozen=True)
class Result:
    """The measurements on this machine."""

    times: Mapping[Cell, Mapping[Product, float]]
    """Seconds of one iteration."""
    crossings: Mapping[Dense, Mapping[int, float]]
    """Crossover density by dense product and columns of B, as `crossover` returns it."""
    threads: int
    """Threads of one operation in this process; 0 means that TensorFlow chooses."""

    def ratios(self, dense: Dense) -> dict[Cell, float]:
        return {cell: times["sparse"] / times[dense] for cell, times in self.times.items()}


def published() -> list[PublishedRow]:
    """Returns the CPU rows of TensorFlow's table, in the order of the table."""
    text = resources.files("masksweep.sweeps.bench").joinpath("sparse_matmul.csv").read_text()
    return [
        PublishedRow(
            Cell(float(d), int(n), int(m), int(k)), float(dense), float(sparse), float(ratio)
        )
        for d, n, m, k, dense, sparse, ratio in list(csv.reader(text.splitlines()))[1:]
    ]


def run() -> Result:
    """Measures the published cells and searches the crossovers. Takes two minutes on one core."""
    import tensorflow as tf

    def ratio(density: float, n: int, dense: Dense) -> float:
        times = measure(Cell(density, n, MATRIX_SIDE, MATRIX_SIDE), ("sparse", dense))
        return times["sparse"] / times[dense]

    times = {row.cell: measure(row.cell) for row in published()}
    crossings = {
        dense: {n: crossover(partial(ratio, n=n, dense=dense)) for n in COLUMN_COUNTS}
        for dense in DENSE
    }
    return Result(times, crossings, tf.config.threading.get_intra_op_parallelism_threads())


def measure(cell: Cell, products: Sequence[Product] = PRODUCTS) -> dict[Product, float]:
    """Times each product in turn, on the default device and with the threads of this process.

    Returns:
        Seconds of one iteration by product: the median over the rounds.
    """
    dense, sparse, b = operands(cell)

    def run(product: Product, times: int) -> None:
        a_operand = sparse if product == "sparse" else dense
        float(repeated_product(product)(a_operand, b, 0.0, times)[0, 0])

    round_times = time_in_turn([partial(run, product) for product in products], ROUNDS)
    return dict(zip(products, map(median, zip(*round_times, strict=True)), strict=True))


def operands(cell: Cell) -> tuple[Any, Any, Any]:
    """Returns (A as a tensor, A as a `SparseTensor`, B), drawn with a fixed seed."""
    import numpy as np
    import tensorflow as tf

    rng = np.random.default_rng(0)
    # as in TensorFlow's benchmark: uniform in [0, 1), and zero below a threshold
    a = rng.random((cell.m, cell.k), np.float32)
    a[a < 1 - cell.density] = 0
    b = rng.standard_normal((cell.k, cell.n), np.float32)
    return tf.constant(a), tf.sparse.from_dense(a), tf.constant(b)


@cache
def repeated_product(product: Product) -> Any:
    """Returns a compiled function `(A, B, nudge, times) -> B` that computes the product repeatedly.

    Each iteration adds `nudge` times the first entry of the product to B. So each product needs the
    one before, and TensorFlow cannot fold it, share it or move it out of the loop. It works for
    all shapes.
    """
    import tensorflow as tf

    calls: dict[Product, Callable[[Any, Any], Any]] = {
        "sparse": tf.sparse.sparse_dense_matmul,
        "flagged": lambda a, b: tf.matmul(a, b, a_is_sparse=True),
        "plain": tf.matmul,
        "loop": lambda a, b: b,
    }
    matrix = tf.TensorSpec([None, None])
    a_spec = tf.SparseTensorSpec([None, None]) if product == "sparse" else matrix
    signature = [a_spec, matrix, tf.TensorSpec([]), tf.TensorSpec([], tf.int32)]

    def loop(a: Any, b: Any, nudge: Any, times: Any) -> Any:
        return tf.while_loop(
            lambda i, b: i < times,
            lambda i, b: (i + 1, b + nudge * calls[product](a, b)[0, 0]),
            (0, b),
            parallel_iterations=1,
        )[1]

    return tf.function(loop, input_signature=signature, autograph=False, jit_compile=False)


def crossover(ratio: Callable[[float], float]) -> float:
    """Returns the density at which sparse takes as long as dense, by bisection of its logarithm.

    If the ratio crosses 1 more than once, one of the crossings is returned.

    Args:
        ratio: Time of sparse divided by time of dense, as a function of the density.

    Returns:
        A density in [`MIN_DENSITY`, `MAX_DENSITY`]; 0 if sparse is already slower at `MIN_DENSITY`;
        infinity if it is still faster at `MAX_DENSITY`.
    """
    low, high = MIN_DENSITY, MAX_DENSITY
    at_low, at_high = log(ratio(low)), log(ratio(high))
    if at_low >= 0 or at_high < 0:
        return 0.0 if at_low >= 0 else inf
    for _ in range(BISECTIONS):
        middle = sqrt(low * high)
        at_middle = log(ratio(middle))
        if at_middle < 0:
            low, at_low = middle, at_middle
        else:
            high, at_high = middle, at_middle
    return exp(log(low) + log(high / low) * at_low / (at_low - at_high))
