"""The base class of metrics that are not Keras' own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from masksweep.sweeps.components.datasets.arrays import Task


@dataclass(frozen=True)
class Metric:
    """The base class of metrics of your own.

    A subclass is a frozen dataclass with a `name` and without settings, registered by
    `masksweep.strategies.register`. Then `train.metrics` can have its name.
    """

    name: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]] = ("classification", "regression")
    """The tasks that it fits."""
    higher_is_better: ClassVar[bool] = False
    classes_as_integers: ClassVar[bool] = False
    """Whether it takes the class of a sample as an integer; else one number for each class, 1 for
    the class of the sample and 0 for the others."""
    probabilities: ClassVar[bool] = False
    """Whether it gets the softmax of the outputs, or for several labels their sigmoid."""

    def build(self) -> Any:
        """Returns a new `keras.metrics.Metric`, whose result is a scalar."""
        raise NotImplementedError
