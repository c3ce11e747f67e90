"""A Keras model that trains while its masked weights are held."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import keras

from masksweep.strategies.base import Strategy
from masksweep.strategies.core import keras_internals
from masksweep.strategies.errors import Invalid
from masksweep.strategies.keras_model.holding import Holding
from masksweep.strategies.keras_model.moving_masks import MovingMasks
from masksweep.strategies.keras_model.plain_model import require_supported
from masksweep.strategies.keras_model.schedule_callback import callbacks_with_schedule
from masksweep.strategies.keras_model.schedule_choice import ScheduleChoice
from masksweep.strategies.keras_model.wrapper import ModelWrapper
from masksweep.strategies.mask_changes.record import ChangeRecord
from masksweep.strategies.schedules.base import Course


class HoldingModel(ModelWrapper):
    """A Keras model around another one, which it trains while masked weights are held.

    Args:
        model: A built Keras model.
        strategies: The strategy of each masked weight, by the weight's name.
        name: Name of the new model.
        schedule: How the masks move while the model trains; None if they do not.

    Raises:
        Invalid: The model overrides a method that is not called, such as `train_step`.
    """

    def __init__(
        self,
        model: Any,
        strategies: Mapping[str, Strategy],
        name: str,
        schedule: ScheduleChoice | None,
    ) -> None:
        require_supported(model)
        with model.distribute_strategy.scope():
            super().__init__(model, name)
        self.holding = Holding(model, strategies)
        """The masked weights, and how they are held."""
        self.moving = None if schedule is None else MovingMasks(model, self.holding, schedule)
        """How the masks move; None if they do not."""
        self._takes_training = "training" in inspect.signature(model.call).parameters
        keras_internals.set_takes_training(self, self._takes_training)
        self.supports_jit = all(strategy.xla for strategy in strategies.values())
        self.built = True

    # -- the forward pass -----------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if any(isinstance(a, keras.KerasTensor) for a in keras.tree.flatten((args, kwargs))):
            allowed = "cannot be a part of another model; give apply the whole model"
            raise Invalid("model", self.name, allowed)
        if kwargs.get("training") and keras_internals.inside_a_call() and not self.holding.attached:
            allowed = "trains inside of another model; compile that with hold_with(optimizer)"
            raise Invalid("model", self.name, allowed)
        return self.holding.forward(*args, **kwargs)

    def call(self, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        """Calls the model with its masked weights. Keras reads the arguments; use `masked(x)`."""
        return self(*args, training=training, **kwargs)

    @property
    def losses(self) -> list[Any]:
        """The losses that layers add, and those of regularizers, on the masked weights."""
        return self.holding.losses()

    @property
    def variables(self) -> list[Any]:
        """All variables, with those that train in the place of masked weights."""
        return self.holding.trained(super().variables)

    @property
    def weights(self) -> list[Any]:
        """All weights, with those that train in the place of masked weights."""
        return self.holding.trained(super().weights)

    # -- training -------------------------------------------------------------------------------

    def compile(self, optimizer: Any = "rmsprop", *args: Any, **kwargs: Any) -> None:
        """Configures the model for training, as `keras.Model.compile` does."""
        if optimizer is not None:
            optimizer = self.holding.wrapper_of(keras.optimizers.get(optimizer))
            self.holding.require_attachable(optimizer)
        super().compile(optimizer, *args, **kwargs)
        if self.optimizer is not None:
            self.holding.attach(self.optimizer)
            if self.moving is not None:
                self.moving.count_with(self.optimizer)

    def hold_with(self, optimizer: Any) -> Any:
        """Makes an optimizer hold the masked weights; for training loops of your own.

        `compile` does this for its optimizer.

        Args:
            optimizer: A Keras optimizer that was not built yet.

        Returns:
            The optimizer. Its steps set masked weights back, if their strategies do so.

        Raises:
            Invalid: The optimizer was already built.
        """
        self.holding.attach(optimizer)
        return optimizer

    def make_train_function(self, force: bool = False) -> Any:
        """Makes the function that `fit` calls. It trains only with an optimizer that holds."""
        if self.optimizer is not None and not self.holding.holds_with(self.optimizer):
            raise Invalid("optimizer", self.optimizer.name, "must be set by compile or hold_with")
        return super().make_train_function(force)

    def set_weights(self, weights: Any) -> None:
        """Sets the weights as `keras.Model.set_weights` does. Masked entries are held then.

        Raises:
            Invalid: The masks have moved, so that it is not known which entries the values are of.
        """
        is_other_order = any(not held.has_weight_order for held in self.holding.weights)
        if is_other_order and len(self.mask_changes) > 1:
            allowed = "cannot be set after the masks have moved; use load_weights"
            raise Invalid("weights", self.name, allowed)
        super().set_weights(weights)
        with self.distribute_strategy.scope():
            for held in self.holding.weights:
                if held.has_weight_order:
                    held.value.assign(held.initial(held.value.value))

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Trains the model as `keras.Model.fit` does. The masks move if there is a schedule."""
        if self.moving is None:
            return super().fit(*args, **kwargs)
        bound = inspect.signature(super().fit).bind(*args, **kwargs)
        given = bound.arguments.get("callbacks")
        initial_epoch = bound.arguments.get("initial_epoch", 0)
        bound.arguments["callbacks"] = callbacks_with_schedule(given, self.moving, initial_epoch)
        return super().fit(*bound.args, **bound.kwargs)

    def train_step(self, data: Any) -> Any:
        """Trains on a batch as `keras.Model.train_step` does."""
        logs = super().train_step(data)
        if self.moving is not None:
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
            arguments = {"training": True} if self._takes_training else {}

            def loss() -> Any:
                outputs = self.model(x, **arguments)
                weights = {"sample_weight": sample_weight, "training": True}
                return self._compute_loss(x, y, outputs, **weights)

            steps, dense_values = self.optimizer.iterations, self.holding.dense_values
            self.moving.gradients.store(steps, dense_values, loss)
        return logs

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Trains on a batch as `keras.Model.train_on_batch` does, and follows the schedule."""
        if self.moving is not None:
            self.moving.require_begun()
        logs = super().train_on_batch(*args, **kwargs)
        if self.moving is not None:
            self.change_masks(self.moving.steps_done(self.optimizer))
        return logs

    # -- masks that move ------------------------------------------------------------------------

    @property
    def mask_changes(self) -> list[ChangeRecord]:
        """The start and the changes of the masks so far, in order; empty without a schedule."""
        return list(self.moving.records) if self.moving is not None else []

    def begin_schedule(self, steps: int, steps_per_epoch: int | None = None) -> None:
        """Begins the schedule of the masks for a training without `fit`, or goes on with it.

        `train_on_batch` then changes the masks when that is due. A training loop of your own calls
        `change_masks` after each step.

        Args:
            steps: Number of training steps of the whole training. With gradient accumulation, this
                is the number of updates of the weights.
            steps_per_epoch: Number of training steps of an epoch; None takes all for one epoch.

        Raises:
            Invalid: There is no schedule, or it does not fit a training of this length.

        Example:
            >>> import keras, numpy as np
            >>> from masksweep import strategies
            >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="a")])
            >>> random, every_10 = strategies.Random(0.5), strategies.SET(frequency=10)
            >>> masked = strategies.apply(model, random, "hard_mask", targets=["a/kernel"],
            ...                           schedule=every_10)
            >>> masked.compile("sgd", "mse")
            >>> masked.begin_schedule(steps=30)
            >>> for _ in range(30):
            ...     loss = masked.train_on_batch(np.ones((2, 8)), np.ones((2, 4)))
            >>> [change.step for change in masked.mask_changes]
            [0, 10, 20]
        """
        if self.moving is None:
            raise Invalid("schedule", None, "must be given to apply")
        if min(steps, steps if steps_per_epoch is None else steps_per_epoch) < 1:
            raise Invalid("steps", [steps, steps_per_epoch], "must be 1 or more")
        self.moving.begin(Course(steps, steps if steps_per_epoch is None else steps_per_epoch))
        self.change_masks(self.moving.steps_done(self.optimizer))

    def change_masks(self, steps: int) -> None:
        """Changes the masks if that is due; for training loops of your own.

        Args:
            steps: Number of training steps that were done since `apply`. With gradient
                accumulation, this is the number of updates of the weights.

        Raises:
            Invalid: The schedule has not begun, or it needs gradients, as RigL does: train with
                `train_on_batch` then.
        """
        if self.moving is not None:
            self.moving.after_steps(steps)
