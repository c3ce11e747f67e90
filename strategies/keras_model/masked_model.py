"""A Keras model that holds masked weights under `fit`, `save` and `load_model`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from masksweep.strategies.base import Strategy
from masksweep.strategies.core import keras_internals
from masksweep.strategies.core.weight_name import stable
from masksweep.strategies.core.weights import all_weights, describe
from masksweep.strategies.errors import Invalid
from masksweep.strategies.keras_model import stored_masks
from masksweep.strategies.keras_model.holding import NOT_IN_CHECKPOINT, Holding
from masksweep.strategies.keras_model.moving_masks import MovingMasks
from masksweep.strategies.keras_model.plain_model import copy_of, require_supported
from masksweep.strategies.keras_model.schedule_callback import callbacks_with_schedule
from masksweep.strategies.keras_model.schedule_choice import ScheduleChoice
from masksweep.strategies.keras_model.wrapper import ModelWrapper
from masksweep.strategies.mask_changes.record import ChangeRecord
from masksweep.strategies.plan import Array, Plan, Weight
from masksweep.strategies.registry import STRATEGIES
from masksweep.strategies.schedules.base import Course


@keras.saving.register_keras_serializable(package="masksweep")
class MaskedModel(ModelWrapper):
    """A Keras model whose masked weights are held while the others train; made by `apply`.

    It trains by Keras' own `train_step`. In the forward pass, masked weights are replaced by what
    their strategies compute. The optimizer that `compile` gets masks gradients and sets weights
    back. It computes what the sweeps of this project compute, bit for bit. Files of `save` and of
    Keras' callbacks have the masks, and so have those of `tf.train.Checkpoint`. The latter do not
    have the weights before the training, from which an audit counts what has moved, and are refused
    with a schedule or a strategy that stores kept values only.

    Args:
        model: A built Keras model. It trains in place: its variables are used.
        strategies: The strategy of each masked weight, by the weight's name.
        plan: The masks and held values. None if they are to be loaded, as `load_model` does.
        name: Name of the masked model; by default the name of `model`.
        schedule: How the masks move while the model trains; None if they do not.

    Raises:
        Invalid: A strategy refuses, or the model overrides a method that a masked model does not
            call, such as `train_step`.

    Example:
        >>> from masksweep import strategies
        >>> layers = [keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(1)]
        >>> masked = strategies.apply(keras.Sequential(layers), strategies.Random(0.5))
        >>> isinstance(masked, strategies.MaskedModel), masked.plan.sparsity
        (True, 0.5)
        >>> masked.compile("sgd", "mse")
        >>> history = masked.fit(np.ones((8, 4)), np.ones(8), verbose=0)
        >>> kernel = masked.export_plain().layers[0].kernel.numpy()
        >>> float((kernel == 0).mean())
        0.5
    """

    def __init__(
        self,
        model: Any,
        strategies: Mapping[str, Strategy],
        plan: Plan | None = None,
        name: str | None = None,
        schedule: ScheduleChoice | None = None,
    ) -> None:
        require_supported(model)
        with model.distribute_strategy.scope():
            super().__init__(model, name or model.name)
        self.holding = Holding(model, strategies)
        """The masked weights, and how they are held."""
        self.moving = None if schedule is None else MovingMasks(model, self.holding, schedule)
        """How the masks move; None if they do not."""
        self._takes_training = "training" in inspect.signature(model.call).parameters
        keras_internals.set_takes_training(self, self._takes_training)
        self.supports_jit = all(strategy.xla for strategy in strategies.values())
        self.built = True
        if plan is not None:
            self._hold(plan if self.moving is None else self.moving.first_plan(plan))

    # -- holding -----------------------------------------------------------------------------

    def _hold(self, plan: Plan, places: Mapping[str, int] | None = None) -> None:
        with self.distribute_strategy.scope():
            self.holding.hold(plan, places or {})
        # what a strategy has chosen for the masks may compile with XLA where the strategy does not
        self.supports_jit = all(s.xla for s in self.holding.strategies.values())

    def hold_with(self, optimizer: Any) -> Any:
        """Makes an optimizer hold the masked weights; for training loops of one's own.

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

    @property
    def plan(self) -> Plan:
        """The masks and held values."""
        return Plan(tuple(held.masked() for held in self.holding.weights))

    def dense_weights(self) -> dict[str, Array]:
        """Returns the weights as the model uses them now, by name, in the model's order."""
        variables = all_weights(self.model)
        held = {id(w.variable): w for w in self.holding.weights}
        return {
            w.name: np.asarray(held[id(v)].effective() if id(v) in held else v.numpy())
            for w, v in zip(describe(self.model, variables), variables, strict=True)
        }

    def export_plain(self) -> Any:
        """Returns a plain Keras model with the weights as they are now.

        Held weights are ordinary weights of it. It has nothing of this project, and is not
        compiled.

        Raises:
            Invalid: Keras cannot copy the model, for example because it has no `get_config`.
        """
        with self.holding.dense_variables():
            plain = copy_of(self.model)
        held = {id(w.variable): w for w in self.holding.weights}
        for variable, copy in zip(self.model.variables, plain.variables, strict=True):
            masked = held.get(id(variable))
            copy.assign(masked.effective() if masked else variable)
        return plain

    # -- what Keras calls --------------------------------------------------------------------

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

    def export(self, *args: Any, **kwargs: Any) -> None:
        """Exports the plain model for serving, as `keras.Model.export` does."""
        self.export_plain().export(*args, **kwargs)

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Saves the model as `keras.Model.save` does, in a `.keras` file."""
        if str(filepath).endswith((".h5", ".hdf5")):
            allowed = "must end in .keras: the old format cannot load a masked model"
            raise Invalid("filepath", filepath, allowed)
        self._require_registered()  # before Keras begins to write the file
        super().save(filepath, *args, **kwargs)

    @property
    def mask_changes(self) -> list[ChangeRecord]:
        """The start and the changes of the masks so far, in order; empty without a schedule."""
        return list(self.moving.records) if self.moving is not None else []

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Trains the model as `keras.Model.fit` does. The masks move if there is a schedule."""
        if self.moving is None:
            return super().fit(*args, **kwargs)
        bound = inspect.signature(super().fit).bind(*args, **kwargs)
        given = bound.arguments.get("callbacks")
        bound.arguments["callbacks"] = callbacks_with_schedule(given, self.moving)
        return super().fit(*bound.args, **bound.kwargs)

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
        """Changes the masks if that is due; for training loops of one's own.

        Args:
            steps: Number of training steps that were done since `apply`. With gradient
                accumulation, this is the number of updates of the weights.

        Raises:
            Invalid: The schedule has not begun, or it needs gradients, as RigL does: train with
                `train_on_batch` then.
        """
        if self.moving is not None:
            self.moving.after_steps(steps)

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Trains on a batch as `keras.Model.train_on_batch` does, and follows the schedule."""
        if self.moving is not None:
            self.moving.require_begun()
        logs = super().train_on_batch(*args, **kwargs)
        if self.moving is not None:
            self.change_masks(self.moving.steps_done(self.optimizer))
        return logs

    def train_step(self, data: Any) -> Any:
        """Trains on a batch as `keras.Model.train_step` does."""
        logs = super().train_step(data)
        if self.moving is not None:
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
            arguments = {"training": True} if self._takes_training else {}

            def loss(outputs: Any) -> Any:
                weights = {"sample_weight": sample_weight, "training": True}
                return self._compute_loss(x, y, outputs, **weights)

            steps = self.moving.earlier_steps + self.optimizer.iterations
            self.moving.store_gradients(steps, lambda: self.model(x, **arguments), loss)
        return logs

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

    def make_train_function(self, force: bool = False) -> Any:
        """Makes the function that `fit` calls. It trains only with an optimizer that holds."""
        if self.optimizer is not None and not self.holding.holds_with(self.optimizer):
            raise Invalid("optimizer", self.optimizer.name, "must be set by compile or hold_with")
        return super().make_train_function(force)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles the model as `load_model` does. The optimizer is built when masks are loaded."""
        self.compile(**keras.saving.deserialize_keras_object(config))

    # -- saving and loading ------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """Returns the model and the strategies. Masks are stored with the weights.

        Raises:
            Invalid: A strategy is not registered, so it could not be loaded.
        """
        self._require_registered()
        return {
            "name": self.name,
            "model": keras.saving.serialize_keras_object(self.model),
            "strategies": {
                stable(name): stored_masks.settings(strategy)
                for name, strategy in self.holding.strategies.items()
            },
            **({"schedule": self.moving.choice.to_config()} if self.moving is not None else {}),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> MaskedModel:
        """Makes a masked model that has no masks yet, from `get_config`."""
        model = keras.saving.deserialize_keras_object(config["model"], custom_objects)
        # layers without a name of their own may have other names than in the model that was saved
        names = {stable(w.name): w.name for w in describe(model, all_weights(model))}
        strategies = {
            names.get(name, name): STRATEGIES[settings["name"]](
                **{key: value for key, value in settings.items() if key != "name"}
            )
            for name, settings in config["strategies"].items()
        }
        moves = config.get("schedule")
        schedule = None if moves is None else ScheduleChoice.from_config(moves)
        return cls(model, strategies, name=config["name"], schedule=schedule)

    def save_own_variables(self, store: Any) -> None:
        """Stores what is not in the layers: masks, held values, the start, states of seeds."""
        holding = self.holding
        stored_masks.save(store, holding.weights, holding.strategies, holding.start, self._seeds())
        if self.moving is not None:
            self.moving.save(store)

    def load_own_variables(self, store: Any) -> None:
        """Loads what `save_own_variables` stored."""
        masked_weights, strategies = self._masked_weights(), self.holding.strategies
        plan, start, places = stored_masks.load(store, masked_weights, strategies)
        if not self.holding.weights:
            self._hold(plan, places)
            if self.compiled and self.optimizer is not None:
                self.optimizer.build(self.trainable_variables)
        else:
            pairs = list(zip(self.holding.weights, plan.weights, strict=True))
            # all are checked before one is set
            arrays = [held.arrays(masked, places.get(masked.weight.name)) for held, masked in pairs]
            for (held, _), constants in zip(pairs, arrays, strict=True):
                held.assign(constants)
        for held in self.holding.weights:
            values = start[held.weight.name]
            if held.kept_only and values.shape == held.weight.shape:  # as files had it before
                start[held.weight.name] = np.asarray(held.initial(tf.constant(values)))
        self.holding.start = start
        if self.moving is not None:
            self.moving.load(store, plan)
        stored_masks.load_values(store, self.holding.weights, self._seeds())

    def _trackable_children(self, save_type: str = "checkpoint", **kwargs: Any) -> Any:
        """Returns what `tf.train.Checkpoint` saves: also the masks, and all values that train.

        Raises:
            Invalid: The model has what such a checkpoint cannot have.
        """
        children = super()._trackable_children(save_type, **kwargs)
        if save_type != "checkpoint":
            return children
        if self.moving is not None:
            raise Invalid("schedule", self.moving.choice.schedule.name, NOT_IN_CHECKPOINT)
        return children | self.holding.checkpointed()

    def load_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Loads weights of this model, or of a plain model, whose masked entries are held then."""
        saved = stored_masks.description_in(filepath)
        if saved is not None:
            # before Keras sets the variables of the layers
            stored_masks.require_same(saved, self._masked_weights(), self.holding.strategies)
            super().load_weights(filepath, *args, **kwargs)
            return
        self.model.load_weights(filepath, *args, **kwargs)
        for held in self.holding.weights:
            held.value.assign(held.initial(held.variable.value))
            held.release()
        self.holding.note_start()

    def _require_registered(self) -> None:
        for strategy in self.holding.strategies.values():
            if STRATEGIES.get(strategy.name) is not type(strategy):
                allowed = "must be registered to be saved, with masksweep.strategies.register"
                raise Invalid("strategy", strategy.name, allowed)

    def _masked_weights(self) -> list[Weight]:
        described = describe(self.model, all_weights(self.model))
        return [w for w in described if w.name in self.holding.strategies]

    def _seeds(self) -> list[Any]:
        """Returns the states of the random seeds, which Keras does not save."""
        weights = {id(v) for v in self.model.weights}
        return [v for v in self.model.non_trainable_variables if id(v) not in weights]


def require_masked(model: object) -> None:
    """Checks that a model is a masked model.

    Raises:
        Invalid: It is not.
    """
    if not isinstance(model, MaskedModel):
        raise Invalid("model", type(model).__name__, "must be a masked model, made by apply")
