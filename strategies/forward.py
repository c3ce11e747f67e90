"""One forward pass of a model, on other values than its variables hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


class Forward(keras.StatelessScope):  # type: ignore[misc]
    """A forward pass, which writes to no variable.

    As under `fit`, what is read of a weight after a layer wrote to it in the same pass has a
    gradient of its own, and the write itself has none.
    """

    def __init__(
        self, values: Sequence[tuple[Any, Any]], weights: Sequence[Any], tape: Any
    ) -> None:
        """`values` are the variables with what they are in this pass. `tape` may be None."""
        super().__init__(values, collect_losses=True)
        self._known = set(self.state_mapping)
        self._tape, self._weights = tape, {id(v): v for v in weights}
        self._writes: dict[int, list[Any]] = {}
        self.unlisted: list[Any] = []
        """Variables that a layer wrote to and the model does not list."""

    def add_update(self, update: tuple[Any, Any]) -> None:
        variable, value = update
        if id(variable) not in self._known:
            self.unlisted.append(variable)
        if id(variable) in self._weights:
            value = tf.stop_gradient(value)
            if self._tape is not None:
                self._tape.watch(value)
            self._writes.setdefault(id(variable), []).append(value)
        super().add_update((variable, value))

    def writes(self, variable: Any) -> list[Any]:
        """What was written to a weight, in order."""
        return self._writes.get(id(variable), [])

    def written(self) -> list[tuple[Any, Any]]:
        """(weight, its new value) of each weight that was written to."""
        return [(self._weights[key], values[-1]) for key, values in self._writes.items()]
