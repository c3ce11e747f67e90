"""Checks of settings of a training that depend on each other: data, loss, metrics, schedule."""

from __future__ import annotations

from collections.abc import Mapping

from masksweep.strategies.errors import Invalid
from masksweep.strategies.patterns import Pattern, Scored
from masksweep.strategies.schedules import MaskSchedule
from masksweep.sweeps.components.datasets import DataSet
from masksweep.sweeps.components.datasets.arrays import score_name
from masksweep.sweeps.components.losses import KERAS_LOSSES, losses_for, split_loss
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
    _check_output_names(train, data)
    for output, of_output in data.all_tasks.items():
        loss, fitting = train.loss_of(output, ""), losses_for(of_output)
        name, settings = split_loss(loss)
        if loss and name not in fitting:
            what = f"{output} of {data.name} is {of_output}" if output else task
            allowed = f"must be null or one of {', '.join(fitting)}; {what}"
            raise Invalid("train.loss", loss, allowed)
        if settings and name not in KERAS_LOSSES:
            raise Invalid("train.loss", loss, f"must be {name}, which has no settings")
    for output, names in train.metrics_by_output(next(iter(data.all_tasks))).items():
        of_output = data.all_tasks[output]
        fitting = metrics_for(of_output)
        for name in names:
            if name not in fitting:
                what = f"{output} of {data.name} is {of_output}" if output else task
                raise Invalid("train.metrics", name, f"must be of {', '.join(fitting)}; {what}")
        if len({*names}) < len(names):
            raise Invalid("train.metrics", names, "must have each name once")
    if train.class_weight is not None and data.task != "classification":
        raise Invalid("train.class_weight", train.class_weight, f"must be null; {task}")
    if train.class_weight is not None and data.tasks:
        allowed = f"must be null, as in Keras, with several outputs, as {data.name} has"
        raise Invalid("train.class_weight", train.class_weight, allowed)
    if train.early_stopping is not None:
        _check_early_stopping(train, train.early_stopping, data, optimizer, compares)


def _check_output_names(train: Train, data: DataSet) -> None:
    """Checks the names of outputs in settings that are given by output."""
    for key in ("loss", "loss_weights", "metrics"):
        by_output = getattr(train, key)
        for output in by_output if isinstance(by_output, dict) else ():
            if output not in data.tasks:
                allowed = f"must be an output, of {', '.join(data.tasks)}"
                if not data.tasks:
                    allowed = f"must not be given by output: {data.name} has one output"
                raise Invalid(f"train.{key}", output, allowed)


def _check_early_stopping(
    train: Train, stopping: EarlyStopping, data: DataSet, optimizer: Optimizer, compares: bool
) -> None:
    names = recorded_metrics(train, data, "validation/")
    key, settings = "train.early_stopping", stopping.model_dump()
    if stopping.monitor not in names:
        raise Invalid(f"{key}.monitor", stopping.monitor, f"must be one of {', '.join(names)}")
    if not data.has_validation:
        raise Invalid(key, settings, "must be null; data.validation is 0")
    for other, is_given in {
        "compare": compares,
        "train.switch_at": train.switch_at,
        "train.resume_at": train.resume_at,
        "optimizer.use_ema": optimizer.use_ema,  # the averages would replace the best weights
    }.items():
        if is_given:
            raise Invalid(key, settings, f"must be null with {other}")


def recorded_metrics(train: Train, data: DataSet, part: str) -> list[str]:
    """Returns the names under which loss, score and metrics of a part of the data are recorded.

    They are those of `keras.Model.fit`. Those of several outputs begin with the output's name. Of
    the training part only the whole loss and the trial's score are recorded, because they are means
    over the training steps.

    Args:
        train: The settings of the training.
        data: The data set.
        part: How the names begin: `test/`, `validation/` or `train/`.

    Example:
        >>> from masksweep.sweeps.components.datasets import DATASETS
        >>> recorded_metrics(Train(metrics=["auc"]), DATASETS["digits"](), "test/")
        ['test/loss', 'test/accuracy', 'test/auc']
        >>> recorded_metrics(Train(metrics=["auc"]), DATASETS["digits"](), "train/")
        ['train/loss', 'train/accuracy']
    """
    names = ["loss", score_name(data.task)]
    if part != "train/":
        for output, task in data.tasks.items():
            names += [f"{output}_loss", f"{output}_{score_name(task)}"]
        for output, metrics in train.metrics_by_output(next(iter(data.all_tasks))).items():
            names += [f"{output}_{metric}" if output else metric for metric in metrics]
    return [part + name for name in names]


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
