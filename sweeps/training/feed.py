"""Gives the compiled loop the samples of its next steps: from memory, or read ahead of it.

Samples that are not in memory are read in windows: the batches of some steps. A thread reads the
next window while the loop trains on this one. The loop is the same in both cases, and so are the
bits of its results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from math import prod
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from masksweep.sweeps.components.datasets import named
from masksweep.sweeps.components.datasets.named import Split
from masksweep.sweeps.components.datasets.pipeline import Pipeline
from masksweep.sweeps.training import batches
from masksweep.sweeps.training.setup import TrialStart
from masksweep.sweeps.training.step_counts import step_counts

WINDOW_BYTES = 2**25
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
        self._x, self._y = (named.map_arrays(tf.constant, part) for part in arrays)
        self._samples = named.count(arrays[0])
        self._steps, _ = step_counts(self._trials[0], self._samples)
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


Reader = Callable[[int], Iterator[Split]]
"""Yields the next samples of a trial, as many as the given number of steps needs, in order."""


class WindowFeed:
    """Training samples that are read while the loop trains; `order` has the steps of a window.

    Args:
        starts: The starts of the trials that train side by side, on the same data.
    """

    def __init__(self, starts: Sequence[TrialStart]) -> None:
        self._starts, trial, data = list(starts), starts[0].trial, starts[0].data
        self._steps, self._total = step_counts(trial, data.samples)
        self._batch = trial.train.batch_size
        is_stored = not isinstance(data.train, Pipeline)
        numbers = sum(map(prod, named.arrays_of(data.shape)))  # of a sample
        step_bytes = (1 if is_stored else 4) * numbers * self._batch * len(starts)
        self._size = min(self._steps, max(1, WINDOW_BYTES // step_bytes))
        self._pool = ThreadPoolExecutor(1, "samples")
        self._window: _Window | None = None
        self._next: tuple[int, Future[_Window]] | None = None
        self._readers: list[Reader] = []
        self._position = -1
        """Number of the step that the readers go on from."""

    def at(self, step: int) -> tuple[Samples, int]:
        """The samples of a step, and the number of steps from it on that they are enough for."""
        window = self._window
        if window is None or not window.first <= step < window.first + window.steps:
            if self._next is None or self._next[0] != step:
                self._read(step)
            assert self._next is not None
            window = self._window = self._next[1].result()
            self._next = None
            if (following := step + window.steps) < self._total:
                self._read(following)
        return window.samples, window.first + window.steps - step

    def _read(self, first: int) -> None:
        """Starts to read the window that begins at a step."""
        epoch, row = divmod(first, self._steps)
        if first != self._position or not row:
            # not in the thread, because a pipeline sets TensorFlow's global seed
            self._readers = [_reader(start, epoch, row) for start in self._starts]
        steps = min(self._size, self._steps - row)
        self._position = first + steps
        self._next = first, self._pool.submit(self._window_of, self._readers, first, steps)

    def _window_of(self, readers: Sequence[Reader], first: int, steps: int) -> _Window:
        run_samples, filled = self._size * self._batch, 0
        arrays: list[Any] = []
        for run, read in enumerate(readers):
            filled = run * run_samples
            for x, y in read(steps):
                parts = [*named.arrays_of(x), *named.arrays_of(y)]
                # all windows have one shape, so that nothing is compiled again
                shapes = [(len(readers) * run_samples, *part.shape[1:]) for part in parts]
                arrays = arrays or [
                    np.empty(s, p.dtype) for s, p in zip(shapes, parts, strict=True)
                ]
                end = filled + len(parts[0])
                for array, part in zip(arrays, parts, strict=True):
                    array[filled:end] = part
                filled = end
        batch_of_row = (np.arange(self._size) - first) % self._size % steps
        order = (
            np.arange(len(readers))[:, None, None] * run_samples
            + batch_of_row[:, None] * self._batch
            + np.arange(self._batch)
        )
        tensors = map(tf.constant, arrays)
        x, y = (named.map_arrays(lambda _: next(tensors), part) for part in (x, y))
        return _Window(first, steps, Samples(x, y, tf.constant(order, tf.int32)))


def _reader(start: TrialStart, epoch: int, row: int) -> Reader:
    """Reads the samples of a trial from a step of an epoch on."""
    train = start.data.train
    if isinstance(train, Pipeline):
        pairs = batches.of_pipeline(start.trial, train, epoch, row)
        return lambda steps: islice(pairs, steps)
    x, y = train
    rows_of_steps = iter(batches.order(start.trial, len(x), epoch)[row:])
    return lambda steps: (
        (x.bytes(rows), named.take(y, rows)) for rows in islice(rows_of_steps, steps)
    )


def feed_for(starts: Sequence[TrialStart]) -> MemoryFeed | WindowFeed:
    """The feed for trials that train side by side, on the same data."""
    arrays = starts[0].data.in_memory
    return MemoryFeed(starts, arrays) if arrays else WindowFeed(starts)
