"""The samples of each batch of a training."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from masksweep.strategies.plan import Array
from masksweep.sweeps.common.seeding import derive_seed, permutation
from masksweep.sweeps.components.datasets import named
from masksweep.sweeps.components.datasets.named import Split
from masksweep.sweeps.components.datasets.pipeline import Pipeline
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.training.setup import TrialStart
from masksweep.sweeps.training.step_counts import step_counts


def first_batch(start: TrialStart) -> tuple[Any, Any]:
    """The inputs and targets of the first step."""
    return next(of_epoch(start, 0))


def of_epoch(start: TrialStart, number: int, skipped: int = 0) -> Iterator[tuple[Any, Any]]:
    """Iterates over the batches of one epoch, each the inputs and targets of a step, as tensors.

    Args:
        start: The start of the trial.
        number: Number of the epoch, from 0.
        skipped: Number of steps that are left out at the beginning.
    """
    import tensorflow as tf

    train = start.data.train
    if isinstance(train, Pipeline):
        pairs = of_pipeline(start.trial, train, number, skipped)
    else:
        x, y = train
        rows_of_steps = order(start.trial, named.count(x), number)[skipped:]
        pairs = ((named.take(x, rows), named.take(y, rows)) for rows in rows_of_steps)
    as_tensors = partial(named.map_arrays, tf.constant)
    return ((as_tensors(x), as_tensors(y)) for x, y in pairs)


def of_pipeline(trial: Trial, train: Pipeline, number: int, skipped: int) -> Iterator[Split]:
    """As `of_epoch`, for samples of a pipeline, and as arrays."""
    seed = derive_seed(trial.seed, f"order/{number}") if trial.train.shuffle else None
    return train.training_batches(trial.train.batch_size, seed, skipped)


def order(trial: Trial, samples: int, number: int) -> Array:
    """Indices of the samples in each batch of one epoch, `[steps, batch]` int32.

    Args:
        trial: The trial.
        samples: Number of training samples.
        number: Number of the epoch, from 0.
    """
    steps, batch = step_counts(trial, samples)[0], trial.train.batch_size
    rows = (
        permutation(samples, trial.seed, f"order/{number}")
        if trial.train.shuffle
        else np.arange(samples, dtype=np.int32)
    )
    return rows[: steps * batch].reshape(steps, batch)
