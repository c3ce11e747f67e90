"""Samples that come from a `tf.data.Dataset`, so that an epoch need not fit in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.components.datasets import named
from masksweep.sweeps.components.datasets.named import Split

SHUFFLED_BYTES = 2**28
"""Largest size of the samples that are shuffled at once, as float32. Larger data are shuffled in a
buffer of this size, as `tf.data.Dataset.shuffle` does."""
CHECKED_SAMPLES = 256
"""Number of samples of each part whose values are checked before anything trains. In the record of
a trial, those of the training part identify the pipeline."""


@dataclass(frozen=True, eq=False)
class Pipeline:
    """One part of a data set, whose samples come from a `tf.data.Dataset`.

    Use `of` to make one, which checks the data set.
    """

    dataset: Any
    """A `tf.data.Dataset` of pairs: one input and its target, not batches. Several inputs or
    targets are dicts by name."""
    count: int
    """Number of samples."""
    tasks: Any
    """The task of the targets, or the tasks by name."""

    @classmethod
    def of(cls, name: str, tasks: Mapping[str, str], part: str, dataset: Any) -> Pipeline:
        """Returns the pipeline of one part of a data set.

        Args:
            name: Name of the data set, for messages.
            tasks: The task of each output by its name, which is empty for one output.
            part: Name of the part, for messages.
            dataset: What the data set returned for this part.

        Raises:
            Invalid: (key `name`) The number of samples is not known, or samples have other shapes
                or types than the task needs.
        """
        import tensorflow as tf

        def refuse(reason: str) -> Invalid:
            return Invalid("name", name, f"its {part} part {reason}")

        if not isinstance(dataset, tf.data.Dataset):
            raise refuse("must be a pair of arrays or a tf.data.Dataset, as the other parts")
        if (count := int(dataset.cardinality())) < 1:
            raise refuse(
                "must have a known number of samples; see tf.data.experimental.assert_cardinality"
            )
        spec = dataset.element_spec
        if isinstance(spec, tuple) and len(spec) == 3:
            raise refuse("has sample weights, which need samples in arrays")
        is_pair = isinstance(spec, tuple) and len(spec) == 2
        specs = [s for end in spec for s in named.arrays_of(end)] if is_pair else []
        if not specs or not all(isinstance(s, tf.TensorSpec) for s in specs):
            raise refuse("must give pairs of an input and a target, or of dicts of them by name")
        x, y = spec
        for inputs in named.arrays_of(x):
            if not inputs.shape.is_fully_defined() or not inputs.shape.rank:
                raise refuse(
                    f"has inputs of the shape {inputs.shape}; single samples of one shape are"
                    " needed"
                )
        of_each = y if isinstance(y, dict) else {"": y}
        if {*of_each} != {*tasks}:
            names = ", ".join(tasks) or "one array"
            raise refuse(f"has the targets {', '.join(of_each) or 'of one array'}, not {names}")
        for output, task in tasks.items():
            if fault := _target_fault(of_each[output], task):
                raise refuse(fault)
        return cls(dataset, count, tasks[""] if "" in tasks else dict(tasks))

    def __len__(self) -> int:
        return self.count

    @property
    def sample_shape(self) -> Any:
        """The shape of one input, or the shapes of several by name."""
        return named.map_arrays(lambda spec: tuple(spec.shape), self.dataset.element_spec[0])

    @property
    def target_shape(self) -> Any:
        """The shape of one target, or the shapes of several by name."""
        return named.map_arrays(lambda spec: tuple(spec.shape), self.dataset.element_spec[1])

    def batches(self, size: int) -> Iterator[Split]:
        """Yields all samples in the order of the data; the last batch may be smaller."""
        yield from map(self._as_arrays, self.dataset.batch(size).as_numpy_iterator())

    def first(self, count: int) -> Split:
        """Returns the first samples in the order of the data."""
        return next(self.batches(min(count, len(self))))

    def epoch(self, batch: int, seed: int | None) -> Any:
        """Returns the batches of one epoch of a training, a `tf.data.Dataset`.

        `keras.Model.fit` on it trains on the same batches. A last batch that is not full is left
        out.

        Args:
            batch: Samples in a batch.
            seed: Seed of the order; None for the order of the data.
        """
        import tensorflow as tf

        dataset = self.dataset
        if seed is not None:
            sample_bytes = 4 * sum(map(prod, named.arrays_of(self.sample_shape)))
            buffer = min(len(self), max(batch, SHUFFLED_BYTES // sample_bytes))
            # TensorFlow combines the seed with its global one
            tf.random.set_seed(seed)
            dataset = dataset.shuffle(buffer, seed=seed, reshuffle_each_iteration=False)
        return dataset.batch(batch, drop_remainder=True)

    def training_batches(self, batch: int, seed: int | None, skipped: int) -> Iterator[Split]:
        """Iterates over the batches of `epoch` as arrays, without the first `skipped`."""
        import tensorflow as tf

        dataset = self.epoch(batch, seed).skip(skipped).prefetch(2)
        if not dataset.options().threading.private_threadpool_size:
            # the training step takes all of the threads that are shared
            options = tf.data.Options()
            threads = tf.config.threading.get_intra_op_parallelism_threads()
            options.threading.private_threadpool_size = max(1, threads)
            dataset = dataset.with_options(options)
        return map(self._as_arrays, dataset.as_numpy_iterator())

    @property
    def sha256(self) -> str:
        """SHA-256 of the shapes and of the first samples."""
        shape = named.map_arrays(lambda shape: (self.count, *shape), self.sample_shape)
        sha256 = hashlib.sha256(str(shape).encode())
        for array in (a for part in self.first(CHECKED_SAMPLES) for a in named.arrays_of(part)):
            sha256.update(np.ascontiguousarray(array).tobytes())
        return sha256.hexdigest()

    def _as_arrays(self, pair: Split) -> Split:
        x, y = pair
        inputs = named.map_arrays(lambda array: array.astype(np.float32, copy=False), x)
        if isinstance(self.tasks, dict):
            return inputs, {name: _targets(y[name], task) for name, task in self.tasks.items()}
        return inputs, _targets(y, self.tasks)


def _targets(array: NDArray[Any], task: str) -> NDArray[Any]:
    return array.astype(np.int32 if task == "classification" else np.float32, copy=False)


def _target_fault(spec: Any, task: str) -> str:
    """Returns why targets do not fit a task; empty if they do."""
    if task == "classification":
        fits = spec.shape.rank == 0 and spec.dtype.is_integer
        fault = f"has targets {spec.shape} {spec.dtype.name}; a class is one whole number"
    else:
        fits = spec.shape.is_fully_defined() and spec.shape.rank == 1
        fault = f"has targets of the shape {spec.shape}; [outputs] is needed"
    return "" if fits else fault


def first_samples(part: Split | Pipeline, count: int) -> Split:
    """Returns the first samples of a part of a data set, as arrays: the same in each call."""
    if isinstance(part, Pipeline):
        return _first_samples(part, count)
    x, y = part
    return named.take(x, slice(count)), named.take(y, slice(count))


# Read once, because a pipeline may give other samples in each pass, and outputs that an audit
# compares must be of the same ones. A process trains on few data sets at a time.
@lru_cache(maxsize=4)
def _first_samples(pipeline: Pipeline, count: int) -> Split:
    return pipeline.first(count)
