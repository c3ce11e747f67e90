"""The numbers of steps of a training."""

from __future__ import annotations

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.config.trial import Trial


def step_counts(trial: Trial, samples: int) -> tuple[int, int]:
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
