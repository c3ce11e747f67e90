"""The losses of Keras that a config can name, and the tasks that each fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.components.datasets.arrays import Task

ALLOWED: Mapping[str, tuple[Callable[[float], bool], str]] = {
    "alpha": (lambda value: value >= 0, "a number of 0 or more"),
    "apply_class_balancing": (lambda value: True, "true or false"),
    "delta": (lambda value: value > 0, "a number above 0"),
    "gamma": (lambda value: value >= 0, "a number of 0 or more"),
    "ignore_class": (lambda value: isinstance(value, int), "a whole number"),
    "label_smoothing": (lambda value: 0 <= value < 1, "a number in [0, 1)"),
}
"""The values of settings: which are allowed, and words for them."""


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
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """The settings that a config can give, with Keras' defaults."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The settings that are not Keras' defaults."""

    def check(self, key: str, value: float) -> None:
        """Checks a setting.

        Raises:
            Invalid: (key: the setting) It is unknown, or the value is not allowed.
        """
        if key not in self.defaults:
            names = ", ".join(self.defaults) or "no settings"
            allowed = f"unknown setting; keras.losses.{self.keras_class} has {names}"
            raise Invalid(key, value, allowed)
        is_allowed, allowed = ALLOWED[key]
        if isinstance(value, bool) != isinstance(self.defaults[key], bool) or not is_allowed(value):
            raise Invalid(key, value, f"must be {allowed}")

    def typed(self, key: str, value: float) -> float:
        """Returns a value that `check` has accepted, with the type of Keras' default."""
        return float(value) if isinstance(self.defaults[key], float) else value

    def build(self) -> Any:
        """Returns the `keras.losses.Loss`."""
        import keras

        settings = {**({"from_logits": True} if self.from_logits else {}), **self.settings}
        return getattr(keras.losses, self.keras_class)(**settings)


CLASSES: tuple[Task, ...] = ("classification",)
LABELS: tuple[Task, ...] = ("multi_label",)
VALUES: tuple[Task, ...] = ("regression",)
SMOOTHING: Mapping[str, Any] = {"label_smoothing": 0.0}
FOCAL: Mapping[str, Any] = {"alpha": 0.25, "gamma": 2.0, **SMOOTHING}
KERAS_LOSSES: Mapping[str, KerasLoss] = {
    "binary_crossentropy": KerasLoss(
        "BinaryCrossentropy", CLASSES + LABELS, from_logits=True, defaults=SMOOTHING
    ),
    "binary_focal_crossentropy": KerasLoss(
        "BinaryFocalCrossentropy",
        CLASSES + LABELS,
        from_logits=True,
        defaults={"apply_class_balancing": False, **FOCAL},
    ),
    "categorical_crossentropy": KerasLoss(
        "CategoricalCrossentropy", CLASSES, from_logits=True, defaults=SMOOTHING
    ),
    "categorical_focal_crossentropy": KerasLoss(
        "CategoricalFocalCrossentropy", CLASSES, from_logits=True, defaults=FOCAL
    ),
    "categorical_hinge": KerasLoss("CategoricalHinge", CLASSES),
    "cosine_similarity": KerasLoss("CosineSimilarity", VALUES),
    "hinge": KerasLoss("Hinge", CLASSES + LABELS),
    "huber": KerasLoss("Huber", CLASSES + VALUES, defaults={"delta": 1.0}),
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
        defaults={"ignore_class": None},
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
