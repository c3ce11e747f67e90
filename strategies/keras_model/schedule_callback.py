"""Follows the mask schedule of a masked model during `fit`."""

from __future__ import annotations

from typing import Any

import keras

from masksweep.strategies.errors import Invalid
from masksweep.strategies.keras_model.moving_masks import MovingMasks
from masksweep.strategies.schedules.base import Course


class ScheduleCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Changes the masks of a masked model during `fit`, which adds it."""

    def __init__(self, moving: MovingMasks, initial_epoch: int = 0) -> None:
        super().__init__()
        self._moving, self._initial_epoch = moving, initial_epoch

    def on_train_begin(self, logs: Any = None) -> None:
        """Begins with the length of the training."""
        epochs, steps = self.params["epochs"] - self._initial_epoch, self.params["steps"]
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        accumulated = optimizer.gradient_accumulation_steps or 1
        if not steps:
            allowed = "must be given to fit with a schedule: the length of the data is not known"
            raise Invalid("steps_per_epoch", None, allowed)
        course = Course(max(1, epochs * steps // accumulated), max(1, steps // accumulated))
        self._moving.begin(course, -(-self.model.steps_per_execution // accumulated))
        self._after_steps()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Changes the masks if that is due."""
        self._after_steps()

    def _after_steps(self) -> None:
        self._moving.after_steps(self._moving.steps_done(self.model.optimizer))


def callbacks_with_schedule(given: Any, moving: MovingMasks, initial_epoch: int) -> list[Any]:
    """Returns the callbacks of a call of `fit`, with the one that changes the masks.

    Args:
        given: The argument `callbacks` of `fit`.
        moving: The moving masks of the model.
        initial_epoch: The argument of `fit`: number of epochs that it leaves out.

    Raises:
        Invalid: The callbacks are a `CallbackList`, or one of them sets the weights of an earlier
            epoch, which had other masks.
    """
    if isinstance(given, keras.callbacks.CallbackList):
        raise Invalid("callbacks", "CallbackList", "must be a list, with a schedule")
    callbacks = list(keras.tree.flatten(given)) if given else []
    for callback in callbacks:
        if getattr(callback, "restore_best_weights", False):
            allowed = (
                "must not restore the best weights with a schedule, because they had other masks; "
                "use ModelCheckpoint(save_best_only=True)"
            )
            raise Invalid("callbacks", type(callback).__name__, allowed)
    # first, so that a callback that saves the model saves the new masks
    return [ScheduleCallback(moving, initial_epoch), *callbacks]
