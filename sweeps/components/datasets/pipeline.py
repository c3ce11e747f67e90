"""Samples that come from a `tf.data.Dataset`, so that an epoch need not fit in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.components.datasets import named

if TYPE_CHECKING:
    from masksweep.sweeps.components.datasets.base import DataSet, Split

SHUFFLED_BYTES = 2**28
"""Largest size of the samples that are shuffled at once, as float32. Larger data are shuffled in a
buffer of this size, as `tf.data.Dataset.shuffle` does."""
DIGEST_SAMPLES = 256
"""Number of samples whose content identifies a pipeline in the record of a trial."""


@dataclass(frozen=True, eq=False)
class Pipeline:
    """One part of a data set, whose samples come from a `tf.data.Dataset`.

    Use `of` to make one, which checks the data set.
    """

    dataset: Any
    """A `tf.data.Dataset` of pairs: one input and its target, not batches."""
    shape: tuple[int, ...]
    """Number of samples, and the shape of one input."""
    classify: bool

    @classmethod
    def of(cls, data: DataSet, part: str, dataset: Any) -> Pipeline:
        """Returns the pipeline of one part of a data set.

        Args:
            data: The data set.
            part: Name of the part, for messages.
            dataset: What `data` returned for this part.

        Raises:
            Invalid: (key `name`) The number of samples is not known, or samples have other shapes
                or types than the task needs.
        """
        import tensorflow as tf

        def refuse(reason: str) -> Invalid:
            return Invalid("name", data.name, f"its {part} part {reason}")

        if not isinstance(dataset, tf.data.Dataset):
            raise refuse("must be a pair of arrays or a tf.data.Dataset, as the other parts")
        if (count := int(dataset.cardinality())) < 1:
            raise refuse(
                "must have a known number of samples; see tf.data.experimental.assert_cardinality"
            )
        spec = dataset.element_spec
        is_pair = isinstance(spec, tuple) and len(spec) == 2
        if is_pair and any(isinstance(part, dict) for part in spec):
            raise refuse("has several inputs or targets, which must be arrays in memory")
        if not is_pair or not all(isinstance(s, tf.TensorSpec) for s in spec):
            raise refuse("must give pairs of an input and a target")
        x, y = spec
        if not x.shape.is_fully_defined() or not x.shape.rank:
            raise refuse(
                f"has inputs of the shape {x.shape}; single samples of one shape are needed"
            )
        classify = data.task == "classification"
        if classify and (y.shape.rank != 0 or not y.dtype.is_integer):
            raise refuse(f"has targets {y.shape} {y.dtype.name}; a class is one whole number")
        if not classify and (not y.shape.is_fully_defined() or y.shape.rank != 1):
            raise refuse(f"has targets of the shape {y.shape}; [outputs] is needed")
        return cls(dataset, (count, *x.shape), classify)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def target_shape(self) -> tuple[int, ...]:
        """The shape of one target."""
        return tuple(self.dataset.element_spec[1].shape)

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
            sample_bytes = 4 * prod(self.shape[1:])
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
        """SHA-256 of the shape and of the first samples."""
        sha256 = hashlib.sha256(str(self.shape).encode())
        for array in self.first(DIGEST_SAMPLES):
            sha256.update(np.ascontiguousarray(array).tobytes())
        return sha256.hexdigest()

    def _as_arrays(self, pair: tuple[NDArray[Any], NDArray[Any]]) -> Split:
        x, y = pair
        dtype = np.int32 if self.classify else np.float32
        return x.astype(np.float32, copy=False), y.astype(dtype, copy=False)


def first_samples(part: Split | Pipeline, count: int) -> Split:
    """Returns the first samples of a part of a data set, as arrays."""
    if isinstance(part, Pipeline):
        return part.first(count)
    x, y = part
    return named.take(x, slice(count)), named.take(y, slice(count))
