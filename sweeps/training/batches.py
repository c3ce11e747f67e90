"""The steps of a training, and the samples of each batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from masksweep.strategies.base import Array, Invalid
from masksweep.sweeps.common.seeding import permutation
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
    import tensorflow as tf

    x, y = start.data.train
    rows = order(start.trial, len(x), 0)[0]
    return tf.constant(x[rows]), tf.constant(y[rows])


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
