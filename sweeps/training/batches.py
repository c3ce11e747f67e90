"""The steps of a training, and the samples of each batch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from masksweep.strategies.errors import Invalid
from masksweep.strategies.plan import Array
from masksweep.sweeps.common.seeding import derive_seed, permutation
from masksweep.sweeps.components.datasets import named
from masksweep.sweeps.components.datasets.arrays import Split
from masksweep.sweeps.components.datasets.pipeline import Pipeline
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.training.setup import TrialStart


def schedule(trial: Trial, samples: int) -> tuple[int, int]:
    """Number of steps of an epoch, and of the whole training.

    The last samples of an epoch are left out if they do not fill a batch.

    Args:
        trial: The trial.
        samples: Number of training samples.

    Raises:
        Invalid: There are fewer samples than one batch needs, or an event of the trial is not
            before the last step.
    """
    batch = trial.train.batch_size
    if not samples:
        raise Invalid("data.validation", trial.data.validation, "leaves no training sample")
    if batch > samples:
        raise Invalid("train.batch_size", batch, f"must be at most {samples}, the training samples")
    epoch = samples // batch
    total = trial.train.steps or trial.train.epochs * epoch
    for key in ("switch_at", "resume_at"):
        event_step = getattr(trial.train, key)
        if event_step and event_step >= total:
            raise Invalid(f"train.{key}", event_step, f"must be below {total}, the training steps")
    return epoch, total


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
    steps, batch = schedule(trial, samples)[0], trial.train.batch_size
    rows = (
        permutation(samples, trial.seed, f"order/{number}")
        if trial.train.shuffle
        else np.arange(samples, dtype=np.int32)
    )
    return rows[: steps * batch].reshape(steps, batch)
