"""The base class of losses that are not Keras' own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from masksweep.sweeps.components.datasets.arrays import Task


@dataclass(frozen=True)
class Loss:
    """The base class of losses of your own.

    A subclass is a frozen dataclass with a `name` and without settings, registered by
    `masksweep.strategies.register`. Then `train.loss` can have its name.
    """

    name: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]] = ("classification", "regression")
    """The tasks that it fits."""
    classes_as_integers: ClassVar[bool] = False
    """Whether it takes the class of a sample as an integer; else one number for each class, 1 for
    the class of the sample and 0 for the others."""

    def build(self) -> Any:
        """Returns the `keras.losses.Loss`. The outputs of a classification are logits."""
        raise NotImplementedError
