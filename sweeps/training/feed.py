"""Gives the compiled loop the samples of its next steps: from memory, or read ahead of it.

Samples that are not in memory are read in windows: the batches of some steps. A thread reads the
next window while the loop trains on this one. The loop is the same in both cases, and so are the
bits of its results.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from masksweep.sweeps.components.datasets.base import Split
from masksweep.sweeps.training import batches
from masksweep.sweeps.training.setup import TrialStart

WINDOW_BYTES = 2**26
"""Approximate size of the inputs of a window. There are up to three at once: the one that is
trained on, the next one, and its copy in TensorFlow's memory."""


class Samples(NamedTuple):
    """What `StepLoop.run` takes."""

    x: Any
    """Inputs, `[samples, ...]`."""
    y: Any
    """Targets, `[samples, ...]`."""
    order: Any
    """Indices of the samples in the batches, `[runs, steps, batch]` int32. Step `s` trains on the
    batch in row `s % steps`."""


class MemoryFeed:
    """Training samples in memory; `order` has the steps of an epoch.

    Args:
        starts: The starts of the trials that train side by side.
        arrays: Their training samples.
    """

    def __init__(self, starts: Sequence[TrialStart], arrays: Split) -> None:
        self._trials = [start.trial for start in starts]
        self._x, self._y = (tf.constant(array) for array in arrays)
        self._samples = len(arrays[0])
        self._steps, _ = batches.schedule(self._trials[0], self._samples)
        self._epoch, self._order = -1, None

    def at(self, step: int) -> tuple[Samples, int]:
        """The samples of a step, and the number of steps from it on that they are enough for."""
        epoch, row = divmod(step, self._steps)
        if epoch != self._epoch:
            orders = [batches.order(trial, self._samples, epoch) for trial in self._trials]
            self._epoch, self._order = epoch, tf.constant(np.stack(orders))
        return Samples(self._x, self._y, self._order), self._steps - row


class _Window(NamedTuple):
    first: int
    """Number of its first step."""
    steps: int
    samples: Samples


class WindowFeed:
    """Training samples that are read while the loop trains; `order` has the steps of a window.

    Args:
        starts: The starts of the trials that train side by side, on the same data.
    """

    def __init__(self, starts: Sequence[TrialStart]) -> None:
        self._starts, trial, data = list(starts), starts[0].trial, starts[0].data
        self._steps, self._total = batches.schedule(trial, data.samples)
        self._batch = trial.train.batch_size
        step_bytes = 4 * prod(data.shape) * self._batch * len(starts)
        self._size = min(self._steps, max(1, WINDOW_BYTES // step_bytes))
        self._pool = ThreadPoolExecutor(1, "samples")
        self._window: _Window | None = None
        self._next: tuple[int, Future[_Window]] | None = None
        self._readers: tuple[int, list[Iterator[Any]]] = -1, []

    def at(self, step: int) -> tuple[Samples, int]:
        """The samples of a step, and the number of steps from it on that they are enough for."""
        window = self._window
        if window is None or not window.first <= step < window.first + window.steps:
            if self._next is None or self._next[0] != step:
                self._read(step)
            assert self._next is not None
            window = self._window = self._next[1].result()
            self._read(step + window.steps)
        return window.samples, window.first + window.steps - step

    def _read(self, first: int) -> None:
        """Starts to read the window that begins at a step, if the training has that step."""
        self._next = None
        if first >= self._total:
            return
        epoch, row = divmod(first, self._steps)
        if self._readers[0] != first or not row:
            # here and not in the thread, because it sets TensorFlow's global seed
            self._readers = (
                first,
                [batches.arrays_of_epoch(start, epoch, row) for start in self._starts],
            )
        steps = min(self._size, self._steps - row)
        readers, self._readers = self._readers[1], (first + steps, self._readers[1])
        self._next = first, self._pool.submit(self._window_of, readers, first, steps)

    def _window_of(self, readers: Sequence[Iterator[Any]], first: int, steps: int) -> _Window:
        run_samples = self._size * self._batch
        x: Any = None
        y: Any = None
        for run, reader in enumerate(readers):
            for step in range(steps):
                inputs, targets = next(reader)
                if x is None:
                    x, y = (
                        # all windows have one shape, so that nothing is compiled again
                        np.zeros((len(readers) * run_samples, *part.shape[1:]), part.dtype)
                        for part in (inputs, targets)
                    )
                begin = run * run_samples + step * self._batch
                x[begin : begin + self._batch] = inputs
                y[begin : begin + self._batch] = targets
        batch_of_row = (np.arange(self._size) - first) % self._size % steps
        order = (
            np.arange(len(readers))[:, None, None] * run_samples
            + batch_of_row[:, None] * self._batch
            + np.arange(self._batch)
        )
        samples = Samples(tf.constant(x), tf.constant(y), tf.constant(order, tf.int32))
        return _Window(first, steps, samples)


def feed_for(starts: Sequence[TrialStart]) -> MemoryFeed | WindowFeed:
    """The feed for trials that train side by side, on the same data."""
    arrays = starts[0].data.in_memory
    return MemoryFeed(starts, arrays) if arrays else WindowFeed(starts)
