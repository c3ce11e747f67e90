"""Times the formats of `sparse_tensor` on one layer, for the table of `format: auto`.

`python -m masksweep.sweeps.bench.formats` prints the times, from which
`masksweep.strategies.kernels.choice` has its limits. One step is the forward product and both
gradients, on one thread of a CPU. The formats take turns, and the times are those of the process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from masksweep.strategies.kernels.binding import misfit
from masksweep.strategies.patterns import Pattern
from masksweep.strategies.patterns.block import Block
from masksweep.strategies.patterns.columns import Columns
from masksweep.strategies.patterns.random import Random
from masksweep.strategies.patterns.rows import Rows
from masksweep.strategies.plan import Mask, MaskedWeight, Weight
from masksweep.strategies.sparse_tensor import FORMATS, SparseTensor

WIDTHS = (64, 256, 1024)
SPARSITIES = (0.5, 0.9, 0.99)
BATCH_SIZES = (1, 128)
PATTERNS: dict[str, Callable[[float], Pattern]] = {
    "random": Random,
    "rows": Rows,
    "columns": Columns,
    **{
        f"block {height}x{width}": partial(Block, block=(height, width))
        for height, width in ((4, 4), (16, 16), (32, 32))
    },
}
TIMED = [format for format in FORMATS if format != "auto"]
ROUNDS = 5
ROUND_SECONDS = 0.005
MAX_PRODUCTS = 2**26
"""`coo` and `lookup` are not timed with more products of entries and samples: they take long."""


def measure() -> Iterator[tuple[str, int, float, int, dict[str, float]]]:
    """Yields (pattern, width, sparsity, batch size, microseconds of a step by format)."""
    for name, pattern in PATTERNS.items():
        for width in WIDTHS:
            for sparsity in SPARSITIES:
                mask = pattern(sparsity).masks({"layer/kernel": (width, width)}, 0)["layer/kernel"]
                for batch_size in BATCH_SIZES:
                    yield name, width, sparsity, batch_size, _time(mask, batch_size)


def _time(mask: Mask, batch_size: int) -> dict[str, float]:
    weight = Weight("layer/kernel", mask.shape, "float32", "Dense")
    masked = MaskedWeight(weight, mask, np.zeros(mask.shape, np.float32))
    steps = {
        format: _step(format, mask, batch_size)
        for format in TIMED
        if not misfit(format, masked)
        and (format not in ("coo", "lookup") or mask.sum() * batch_size <= MAX_PRODUCTS)
    }
    counts = {}
    for format, step in steps.items():
        step()
        counts[format] = max(1, int(ROUND_SECONDS / max(_seconds(step, 1), 1e-6)))
    rounds = [{f: _seconds(step, counts[f]) for f, step in steps.items()} for _ in range(ROUNDS)]
    return {format: 1e6 * median(times[format] for times in rounds) for format in steps}


def _step(format: Any, mask: Mask, batch_size: int) -> Callable[[], object]:
    import tensorflow as tf

    binding = SparseTensor(format).bind()
    m, h = tf.constant(binding.layout(mask)), tf.zeros(mask.shape)
    matmul = binding.matmul or (lambda x, v, m, h: x @ binding.substitute(v, m, h))
    generator = np.random.default_rng(0)
    x = tf.constant(generator.normal(size=(batch_size, mask.shape[0])), tf.float32)
    v = binding.init(tf.constant(generator.normal(size=mask.shape), tf.float32), m, h)
    upstream = tf.ones((batch_size, mask.shape[1]))

    def step() -> Any:
        with tf.GradientTape() as tape:
            tape.watch([x, v])
            y = matmul(x, v, m, h)
        return tape.gradient(y, [x, v], output_gradients=upstream)

    compiled: Callable[[], object] = tf.function(step)
    return compiled


def _seconds(step: Callable[[], object], count: int) -> float:
    began = time.process_time()
    for _ in range(count):
        step()
    return (time.process_time() - began) / count


def main() -> None:
    """Prints the table."""
    from masksweep.sweeps.training.process import prepare_process

    prepare_process(threads=1)
    print(",".join(["pattern", "width", "sparsity", "batch", *TIMED]), flush=True)
    for *case, times in measure():
        cells = [f"{times[f]:.0f}" if f in times else "" for f in TIMED]
        print(",".join([*map(str, case), *cells]), flush=True)


if __name__ == "__main__":
    main()
