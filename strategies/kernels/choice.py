"""Which format `format: auto` takes for a weight.

The limits are from the times of one layer, forward and both gradients, on one thread of a CPU.
`python -m masksweep.sweeps.bench.formats` measures them, and `sweeps/bench/formats.csv` has its
output. In short, of 64 x 64 to 1024 x 1024 kernels at sparsities .5 to .99, in batches of 1 and
128:

- `dense` is the fastest for kernels of up to `MAX_DENSE` entries: calling compiled code takes more
  time than its products there. For the largest of them at sparsity .5, `compiled` takes up
  to a quarter less in batches of 1, and `block` up to two fifths less;
- it is so for larger ones, of up to `MAX_DENSE_OF_MANY`, if they keep `MANY` of their entries. XLA
  then compiles the whole step, which times of one layer do not show. In the network S of
  `masksweep bench`, a step at sparsity .5 takes 1.04 of a dense one, and 1.34 with `compiled`; at
  .8 it takes .99 and .85;
- `compact` is the fastest where a mask has whole rows or columns, but for 1 % of 1024 units in
  batches of 128, where `compiled` takes .6 to .9 of its time;
- `block` is faster than `compiled` for blocks of 32 x 32, and as fast, up to a fifth, for those of
  `MIN_SIDE` inputs and outputs;
- `compiled` is faster than `coo` and `lookup` from `MIN_KEPT` kept entries on. Below, most of the
  time is that of calling compiled code.

The batch size moves the last limit, by a factor of about four, and no other. It is not known when
the format is chosen, because the layout of the values depends on the format.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple

from masksweep.strategies.kernels.binding import misfit
from masksweep.strategies.kernels.block import block_shape
from masksweep.strategies.plan import MaskedWeight

MIN_SIDE = 16
"""Number of inputs and outputs of the smallest block for which `block` is taken."""
MIN_KEPT = 1024
"""Number of kept entries from which on compiled code is taken."""
MAX_DENSE = 2**16
"""Largest number of entries, masked ones included, of a kernel that is written out."""
MAX_DENSE_OF_MANY = 2**18
"""The same for a kernel that keeps many of its entries."""
MANY = 0.3
"""Density from which on these are many."""


class Choice(NamedTuple):
    """The format of one weight."""

    format: str
    reason: str = ""
    """Why it is not a faster one; empty if there is none."""


def choose(masked: MaskedWeight, on_gpu: bool | None = None) -> Choice:
    """Returns the format that is expected to be the fastest for a weight.

    It depends on the mask, the kind of the layer, and the device, and on nothing else.

    Args:
        masked: The weight with its mask.
        on_gpu: Whether it trains on a GPU. None: if TensorFlow sees one in this process.

    Example:
        >>> import numpy as np
        >>> from masksweep.strategies.plan import Weight
        >>> mask = np.kron(np.eye(32), np.ones((16, 16))).astype(bool)
        >>> weight = Weight("hidden/kernel", mask.shape, "float32", "Dense")
        >>> choose(MaskedWeight(weight, mask, np.zeros(mask.shape, "float32")), on_gpu=False).format
        'block'
    """
    if not misfit("compact", masked):
        return Choice("compact")
    size, kept = masked.mask.size, int(masked.mask.sum())
    if size <= MAX_DENSE or (size <= MAX_DENSE_OF_MANY and kept >= MANY * size):
        return Choice("dense")
    scattered = choose_for_moving_masks(on_gpu)
    if scattered.format == "coo":
        return scattered
    if kept < MIN_KEPT:
        return Choice("coo")
    height, width = block_shape(masked.with_outputs_last().mask)
    return Choice("block" if height >= MIN_SIDE and width % MIN_SIDE == 0 else "compiled")


def choose_for_moving_masks(on_gpu: bool | None = None) -> Choice:
    """Returns the format for masks whose entries move one by one.

    Args:
        on_gpu: As for `choose`.
    """
    if _sees_gpu() if on_gpu is None else on_gpu:
        return Choice("coo", "compiled code runs on a CPU only")
    if find_spec("numba") is None:
        return Choice("coo", "numba is not installed")
    return Choice("compiled")


def _sees_gpu() -> bool:
    import tensorflow as tf

    return bool(tf.config.get_visible_devices("GPU"))
