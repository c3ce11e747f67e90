"""Checks of settings of a training that depend on each other: data, loss, metrics, schedule."""

from __future__ import annotations

from collections.abc import Mapping

from masksweep.strategies.base import Invalid
from masksweep.strategies.patterns import Pattern, Scored
from masksweep.strategies.schedules import MaskSchedule
from masksweep.sweeps.components.datasets import DataSet
from masksweep.sweeps.components.losses import losses_for
from masksweep.sweeps.components.metrics import metrics_for
from masksweep.sweeps.components.optimizers import Optimizer
from masksweep.sweeps.config.sections import EarlyStopping, Train


def check(train: Train, data: DataSet, optimizer: Optimizer, compares: bool) -> None:
    """Checks that the settings of a training fit the data and each other.

    Args:
        train: The settings of the training.
        data: The data set.
        optimizer: The optimizer.
        compares: Whether the trial is compared with a second strategy.

    Raises:
        Invalid: A loss or metric is unknown or does not fit the task, a metric is given twice, a
            regression has weights of classes, or early stopping cannot work.
    """
    task = f"{data.name} is {data.task}"
    losses, metrics = losses_for(data.task), metrics_for(data.task)
    if train.loss is not None and train.loss not in losses:
        allowed = f"must be null or one of {', '.join(losses)}; {task}"
        raise Invalid("train.loss", train.loss, allowed)
    for name in train.metrics:
        if name not in metrics:
            raise Invalid("train.metrics", name, f"must be of {', '.join(metrics)}; {task}")
    if len({*train.metrics}) < len(train.metrics):
        raise Invalid("train.metrics", train.metrics, "must have each name once")
    if train.class_weight is not None and data.task != "classification":
        raise Invalid("train.class_weight", train.class_weight, f"must be null; {task}")
    if train.early_stopping is not None:
        _check_early_stopping(train, train.early_stopping, data, optimizer, compares)


def _check_early_stopping(
    train: Train, stopping: EarlyStopping, data: DataSet, optimizer: Optimizer, compares: bool
) -> None:
    score = "mse" if data.task == "regression" else "accuracy"
    names = [f"validation/{name}" for name in ("loss", score, *train.metrics)]
    key, settings = "train.early_stopping", stopping.model_dump()
    if stopping.monitor not in names:
        raise Invalid(f"{key}.monitor", stopping.monitor, f"must be one of {', '.join(names)}")
    if data.validation == 0:
        raise Invalid(key, settings, "must be null; data.validation is 0")
    for other, is_given in {
        "compare": compares,
        "train.switch_at": train.switch_at,
        "train.resume_at": train.resume_at,
        "optimizer.use_ema": optimizer.use_ema,  # the averages would replace the best weights
    }.items():
        if is_given:
            raise Invalid(key, settings, f"must be null with {other}")


def check_schedule(schedule: MaskSchedule, pattern: Pattern, others: Mapping[str, object]) -> None:
    """Checks that masks can move beside the other settings of a trial.

    Args:
        schedule: A schedule that moves masks.
        pattern: The pattern.
        others: Values of settings by name, which must not be set beside it.

    Raises:
        Invalid: One of them is set, or the pattern cannot be drawn during a training.
    """
    for key, value in others.items():
        if value:
            raise Invalid("schedule", schedule.name, f"must be static with {key}")
    if isinstance(pattern, Scored) or (pattern.needs_model and schedule.redraws):
        raise Invalid("schedule", schedule.name, f"must be static with pattern={pattern.name}")
