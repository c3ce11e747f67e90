"""The speed table in the documentation of `tf.sparse.sparse_dense_matmul`, measured anew here.

The table (six cores of 2012's Ivy Bridge) times a product of A `[m, k]`, of which a part is not
zero, with B `[k, n]`: "sparse" is `sparse_tensor_dense_matmul(A, B)`, "dense" is
`matmul(A, B, a_is_sparse=True)`. Its CPU rows are in `matmul.csv`. Few who have a dense A write
`a_is_sparse` today, so sparse is compared with `matmul(A, B)` too.

TensorFlow's benchmark with the table's sizes (`sparse_tensor_dense_matmul_op_test.py`) takes the
mean over a thousand iterations of a while loop in one call, what the loop itself costs included.
So does this: no figure is the time of one call from Python. It is elapsed time, as theirs: on a
busy machine it says nothing. TensorFlow calls the kernel behind `a_is_sparse` deprecated.
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

from masksweep.sweeps.training.timing import in_turn

Dense = Literal["flagged", "plain"]
Product = Literal["sparse", "flagged", "plain", "loop"]
"""`loop` has no product: what it takes is in the time of every other."""
PRODUCTS: tuple[Product, ...] = ("sparse", "flagged", "plain", "loop")
DENSE: dict[Dense, str] = {"flagged": "matmul(a_is_sparse=True)", "plain": "matmul"}
"""What sparse is compared with: as the published table does, and as one would today."""
ROUNDS = 7
SIDE = 1000
"""Rows and columns of A where crossovers are searched: the table's largest."""
COLUMNS = (1, 10, 25, 128)
"""Columns of B there: the table's, and a batch of training."""
LOW, HIGH = 0.001, 0.99
"""Densities between which a crossover is searched."""
HALVINGS = 5
"""Of that interval, before the rest is interpolated."""


@dataclass(frozen=True)
class Cell:
    """A `[m, k]`, of whose entries the share `density` is not zero, times B `[k, n]`."""

    density: float
    n: int
    m: int
    k: int


Ratios = Mapping[Cell, float]
"""The time of sparse as a ratio to a dense one's."""


@dataclass(frozen=True)
class Published:
    """A row of TensorFlow's table, in seconds. Its dense is our `flagged`."""

    cell: Cell
    dense_s: float
    sparse_s: float
    ratio: float


@dataclass(frozen=True)
class Result:
    """What was measured here."""

    times: Mapping[Cell, Mapping[Product, float]]
    """Seconds of one iteration."""
    crossings: Mapping[Dense, Mapping[int, float]]
    """By what is compared with and the columns of B, as `crossover` gives them."""
    threads: int
    """Of one operation, as the process has set them; 0 leaves it to TensorFlow."""

    def ratios(self, dense: Dense) -> dict[Cell, float]:
        return {cell: times["sparse"] / times[dense] for cell, times in self.times.items()}


def published() -> list[Published]:
    """The CPU rows of TensorFlow's table, in its order."""
    text = resources.files("masksweep.sweeps.bench").joinpath("sparse_matmul.csv").read_text()
    return [
        Published(Cell(float(d), int(n), int(m), int(k)), float(dense), float(sparse), float(ratio))
        for d, n, m, k, dense, sparse, ratio in list(csv.reader(text.splitlines()))[1:]
    ]


def run() -> Result:
    """Measure the published cells and search the crossovers: two minutes on one core."""
    import tensorflow as tf

    def ratio(density: float, n: int, dense: Dense) -> float:
        times = measure(Cell(density, n, SIDE, SIDE), ("sparse", dense))
        return times["sparse"] / times[dense]

    times = {row.cell: measure(row.cell) for row in published()}
    crossings = {
        dense: {n: crossover(partial(ratio, n=n, dense=dense)) for n in COLUMNS} for dense in DENSE
    }
    return Result(times, crossings, tf.config.threading.get_intra_op_parallelism_threads())


def measure(cell: Cell, products: Sequence[Product] = PRODUCTS) -> dict[Product, float]:
    """Seconds of one iteration with each product, in turn: medians over the rounds.

    On the device and with the threads of this process.
    """
    dense, sparse, b = operands(cell)

    def run(product: Product, times: int) -> None:
        given = sparse if product == "sparse" else dense
        float(iterated(product)(given, b, 0.0, times)[0, 0])

    found = in_turn([partial(run, product) for product in products], ROUNDS)
    return dict(zip(products, map(median, zip(*found, strict=True)), strict=True))


def operands(cell: Cell) -> tuple[Any, Any, Any]:
    """A as a tensor and as a `SparseTensor`, and B: always the same ones."""
    import numpy as np
    import tensorflow as tf

    rng = np.random.default_rng(0)
    # as in TensorFlow's benchmark: uniform in [0, 1), and zero below a threshold
    a = rng.random((cell.m, cell.k), np.float32)
    a[a < 1 - cell.density] = 0
    b = rng.standard_normal((cell.k, cell.n), np.float32)
    return tf.constant(a), tf.sparse.from_dense(a), tf.constant(b)


@cache
def iterated(product: Product) -> Any:
    """A compiled `(A, B, nudge, times) -> B` that takes the product so many times.

    Each time `nudge` times the product's first entry is added to B: no product can be folded,
    shared or moved out of the loop, since each needs the one before, whatever the shapes.
    """
    import tensorflow as tf

    calls: dict[Product, Callable[[Any, Any], Any]] = {
        "sparse": tf.sparse.sparse_dense_matmul,
        "flagged": lambda a, b: tf.matmul(a, b, a_is_sparse=True),
        "plain": tf.matmul,
        "loop": lambda a, b: b,
    }
    matrix = tf.TensorSpec([None, None])
    given = tf.SparseTensorSpec([None, None]) if product == "sparse" else matrix
    signature = [given, matrix, tf.TensorSpec([]), tf.TensorSpec([], tf.int32)]

    def loop(a: Any, b: Any, nudge: Any, times: Any) -> Any:
        return tf.while_loop(
            lambda i, b: i < times,
            lambda i, b: (i + 1, b + nudge * calls[product](a, b)[0, 0]),
            (0, b),
            parallel_iterations=1,
        )[1]

    return tf.function(loop, input_signature=signature, autograph=False, jit_compile=False)


def crossover(ratio: Callable[[float], float]) -> float:
    """The density at which sparse takes as long as dense, by bisection of its logarithm.

    0 if sparse is slower at `LOW` already, infinity if it is faster at `HIGH` still. A ratio that
    crosses one more than once gives one of the densities.
    """
    low, high = LOW, HIGH
    at_low, at_high = log(ratio(low)), log(ratio(high))
    if at_low >= 0 or at_high < 0:
        return 0.0 if at_low >= 0 else inf
    for _ in range(HALVINGS):
        middle = sqrt(low * high)
        found = log(ratio(middle))
        if found < 0:
            low, at_low = middle, found
        else:
            high, at_high = middle, found
    return exp(log(low) + log(high / low) * at_low / (at_low - at_high))
