"""The metrics that a config can name: Keras' and your own. Loads no TensorFlow."""

from masksweep.strategies.errors import Invalid
from masksweep.strategies.registry import Registry
from masksweep.sweeps.components.datasets.arrays import Task
from masksweep.sweeps.components.metrics.base import Metric
from masksweep.sweeps.components.metrics.keras_metrics import KERAS_METRICS, KerasMetric

ALWAYS_RECORDED = ("loss", "accuracy", "mse")
"""Names of metrics that need not be asked for."""
OWN_METRICS = Registry("metrics", Metric, __name__)
"""The registry of metrics that are not Keras' own."""

__all__ = [
    "ALWAYS_RECORDED",
    "KERAS_METRICS",
    "OWN_METRICS",
    "Metric",
    "is_higher_better",
    "is_metric",
    "metric_named",
    "metrics_for",
]


def metrics_for(task: Task) -> list[str]:
    """Returns the names of the metrics that fit a task.

    Raises:
        Invalid: A metric of your own has the name of one of Keras, or of one that is always
            recorded.

    Example:
        >>> metrics_for("regression")[:2]
        ['cosine_similarity', 'logcosh']
    """
    for name in OWN_METRICS:
        if name in KERAS_METRICS or name in ALWAYS_RECORDED:
            allowed = "the name of a metric that exists; choose another"
            raise Invalid("masksweep.metrics", name, allowed)
    own = [name for name, metric in OWN_METRICS.items() if task in metric.tasks]
    return [name for name, metric in KERAS_METRICS.items() if task in metric.tasks] + own


def is_metric(name: str) -> bool:
    """Whether there is a metric of this name, beside those that are always recorded."""
    return name in KERAS_METRICS or name in OWN_METRICS


def metric_named(name: str, task: Task | None = None) -> KerasMetric | Metric:
    """Returns the metric of this name.

    Args:
        name: A name that `metrics_for` returns.
        task: The task that the metric is computed for. Settings of Keras' metrics can depend on it.

    Example:
        >>> dict(metric_named("f1_score", "multi_label").settings)
        {'average': 'macro', 'threshold': 0.5}
    """
    if name in KERAS_METRICS:
        return KERAS_METRICS[name].for_task(task)
    return OWN_METRICS[name]()


def is_higher_better(key: str) -> bool:
    """Returns whether a larger value of a metric is better.

    Args:
        key: Name of the metric, such as `validation/auc`. The name of an output may stand
            before that of the metric, as in `validation/kind_auc`.
    """
    words = key.partition("/")[2].split("_")
    names = ["_".join(words[i:]) for i in range(len(words))]
    name = next((n for n in names if n in ALWAYS_RECORDED or is_metric(n)), names[0])
    return name == "accuracy" or (
        name not in ALWAYS_RECORDED and metric_named(name).higher_is_better
    )
