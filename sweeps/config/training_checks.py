"""Checks of the settings of a training that depend on the data: loss, metrics, class weights."""

from __future__ import annotations

from masksweep.strategies.base import Invalid
from masksweep.sweeps.components.datasets import DataSet
from masksweep.sweeps.components.losses import losses_for
from masksweep.sweeps.components.metrics import metrics_for
from masksweep.sweeps.config.sections import Train


def check(train: Train, data: DataSet) -> None:
    """Checks that the settings of a training fit the task of the data.

    Raises:
        Invalid: A loss or metric is unknown or does not fit the task, a metric is given twice, or
            a regression has weights of classes.
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
