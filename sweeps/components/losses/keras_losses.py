"""The losses of Keras that a config can name, and the tasks that each fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.components.datasets.arrays import Task


@dataclass(frozen=True)
class KerasLoss:
    """A loss of `keras.losses`."""

    keras_class: str
    """Name of the class in `keras.losses`."""
    tasks: tuple[Task, ...]
    """The tasks that it fits."""
    from_logits: bool = False
    """Whether it must be told that the outputs are logits."""
    classes_as_integers: bool = False
    """Whether it takes the class of a sample as an integer; else one number for each class, 1 for
    the class of the sample and 0 for the others."""
    known: Mapping[str, type] = field(default_factory=dict)
    """The types of its settings, by their names."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The settings that are not Keras' defaults."""

    def with_settings(self, settings: Mapping[str, Any]) -> KerasLoss:
        """Returns the loss with settings.

        Raises:
            Invalid: A setting is unknown, or its value has another type.
        """
        for key, value in settings.items():
            if key not in self.known:
                names = ", ".join(self.known) or "no settings"
                allowed = f"unknown setting; keras.losses.{self.keras_class} has {names}"
                raise Invalid(f"train.loss.{key}", value, allowed)
            wanted = self.known[key]
            if type(value) is not wanted and not (wanted is float and type(value) is int):
                words = {float: "a number", int: "a whole number", bool: "true or false"}
                raise Invalid(f"train.loss.{key}", value, f"must be {words[wanted]}")
        typed = {key: self.known[key](value) for key, value in settings.items()}
        return replace(self, settings=typed)

    def build(self) -> Any:
        """Returns the `keras.losses.Loss`.

        Raises:
            Invalid: Keras does not take the settings.
        """
        import keras

        settings = {**({"from_logits": True} if self.from_logits else {}), **self.settings}
        return getattr(keras.losses, self.keras_class)(**settings)


CLASSES: tuple[Task, ...] = ("classification",)
LABELS: tuple[Task, ...] = ("multi_label",)
VALUES: tuple[Task, ...] = ("regression",)
SMOOTHING: Mapping[str, type] = {"label_smoothing": float}
FOCAL: Mapping[str, type] = {"alpha": float, "gamma": float, **SMOOTHING}
KERAS_LOSSES: Mapping[str, KerasLoss] = {
    "binary_crossentropy": KerasLoss(
        "BinaryCrossentropy", CLASSES + LABELS, from_logits=True, known=SMOOTHING
    ),
    "binary_focal_crossentropy": KerasLoss(
        "BinaryFocalCrossentropy",
        CLASSES + LABELS,
        from_logits=True,
        known={"apply_class_balancing": bool, **FOCAL},
    ),
    "categorical_crossentropy": KerasLoss(
        "CategoricalCrossentropy", CLASSES, from_logits=True, known=SMOOTHING
    ),
    "categorical_focal_crossentropy": KerasLoss(
        "CategoricalFocalCrossentropy", CLASSES, from_logits=True, known=FOCAL
    ),
    "categorical_hinge": KerasLoss("CategoricalHinge", CLASSES),
    "cosine_similarity": KerasLoss("CosineSimilarity", VALUES),
    "hinge": KerasLoss("Hinge", CLASSES + LABELS),
    "huber": KerasLoss("Huber", CLASSES + VALUES, known={"delta": float}),
    "log_cosh": KerasLoss("LogCosh", CLASSES + VALUES),
    "mean_absolute_error": KerasLoss("MeanAbsoluteError", CLASSES + VALUES),
    "mean_absolute_percentage_error": KerasLoss("MeanAbsolutePercentageError", VALUES),
    "mean_squared_error": KerasLoss("MeanSquaredError", CLASSES + VALUES),
    "mean_squared_logarithmic_error": KerasLoss("MeanSquaredLogarithmicError", VALUES),
    "poisson": KerasLoss("Poisson", VALUES),
    "sparse_categorical_crossentropy": KerasLoss(
        "SparseCategoricalCrossentropy",
        CLASSES,
        from_logits=True,
        classes_as_integers=True,
        known={"ignore_class": int},
    ),
    "squared_hinge": KerasLoss("SquaredHinge", CLASSES + LABELS),
}
"""The losses by the names of their functions in `keras.losses`."""
DEFAULT_LOSS: Mapping[Task, str] = {
    "classification": "sparse_categorical_crossentropy",
    "multi_label": "binary_crossentropy",
    "regression": "mean_squared_error",
}
"""The loss of a task if none is given."""
LEFT_OUT: Mapping[str, str] = {
    "categorical_generalized_cross_entropy": "takes probabilities, and models end in logits",
    "circle": "compares samples with each other, by normalized embeddings",
    "ctc": "aligns sequences, which no data set has as targets",
    "dice": "takes probabilities, and models end in logits",
    "kl_divergence": "takes probabilities, and models end in logits",
    "tversky": "takes probabilities, and models end in logits",
}
"""The other losses of Keras, and why a config cannot name them."""
