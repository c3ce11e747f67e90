"""The metrics of Keras that a config can name, and the task that each fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from masksweep.sweeps.components.datasets.arrays import Task


@dataclass(frozen=True)
class KerasMetric:
    """A metric of `keras.metrics`."""

    keras_class: str
    """Name of the class in `keras.metrics`."""
    tasks: tuple[Task, ...]
    """The tasks that it fits."""
    higher_is_better: bool = False
    classes_as_integers: bool = False
    """Whether it takes the class of a sample as an integer; else one number for each class, 1 for
    the class of the sample and 0 for the others."""
    probabilities: bool = False
    """Whether it gets the softmax of the outputs, or for several labels their sigmoid."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings that are not Keras' defaults."""
    label_settings: Mapping[str, Any] = field(default_factory=dict)
    """More settings for a task of several labels."""

    def for_task(self, task: Task | None) -> KerasMetric:
        """Returns the metric with the settings that it has for a task."""
        if task != "multi_label":
            return self
        return replace(self, settings={**self.settings, **self.label_settings})

    def build(self) -> Any:
        """Returns a new `keras.metrics.Metric`."""
        import keras

        return getattr(keras.metrics, self.keras_class)(**self.settings)


def _of_classes(keras_class: str, **others: Any) -> KerasMetric:
    return KerasMetric(keras_class, ("classification",), **others)


def _of_labels(keras_class: str, **others: Any) -> KerasMetric:
    return KerasMetric(keras_class, ("classification", "multi_label"), **others)


def _of_values(keras_class: str, **others: Any) -> KerasMetric:
    return KerasMetric(keras_class, ("regression",), **others)


KERAS_METRICS: Mapping[str, KerasMetric] = {
    "auc": _of_labels("AUC", higher_is_better=True, probabilities=True),
    "binary_crossentropy": _of_labels("BinaryCrossentropy", settings={"from_logits": True}),
    "categorical_accuracy": _of_classes("CategoricalAccuracy", higher_is_better=True),
    "categorical_crossentropy": _of_classes(
        "CategoricalCrossentropy", settings={"from_logits": True}
    ),
    "categorical_hinge": _of_classes("CategoricalHinge"),
    "cosine_similarity": _of_values("CosineSimilarity", higher_is_better=True),
    # by default it is one value for each class
    "f1_score": _of_labels(
        "F1Score",
        higher_is_better=True,
        probabilities=True,
        settings={"average": "macro"},
        label_settings={"threshold": 0.5},  # by default only the most probable one is predicted
    ),
    "hinge": _of_labels("Hinge"),
    "kl_divergence": _of_classes("KLDivergence", probabilities=True),
    "logcosh": _of_values("LogCoshError"),
    "mean_absolute_error": _of_values("MeanAbsoluteError"),
    "mean_absolute_percentage_error": _of_values("MeanAbsolutePercentageError"),
    "mean_squared_error": _of_values("MeanSquaredError"),
    "mean_squared_logarithmic_error": _of_values("MeanSquaredLogarithmicError"),
    "poisson": _of_values("Poisson"),
    "precision": _of_labels("Precision", higher_is_better=True, probabilities=True),
    "r2_score": _of_values("R2Score", higher_is_better=True),
    "recall": _of_labels("Recall", higher_is_better=True, probabilities=True),
    "root_mean_squared_error": _of_values("RootMeanSquaredError"),
    "sparse_categorical_accuracy": _of_classes(
        "SparseCategoricalAccuracy", higher_is_better=True, classes_as_integers=True
    ),
    "sparse_categorical_crossentropy": _of_classes(
        "SparseCategoricalCrossentropy",
        classes_as_integers=True,
        settings={"from_logits": True},
    ),
    "sparse_top_k_categorical_accuracy": _of_classes(
        "SparseTopKCategoricalAccuracy", higher_is_better=True, classes_as_integers=True
    ),
    "squared_hinge": _of_labels("SquaredHinge"),
    "top_k_categorical_accuracy": _of_classes("TopKCategoricalAccuracy", higher_is_better=True),
}
"""The metrics by the names that Keras gives them."""
