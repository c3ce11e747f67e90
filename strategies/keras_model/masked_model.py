"""A Keras model that holds masked weights under `fit`, `save` and `load_model`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from masksweep.strategies.base import Strategy
from masksweep.strategies.core.weight_name import stable
from masksweep.strategies.core.weights import all_weights, describe
from masksweep.strategies.errors import Invalid
from masksweep.strategies.keras_model import stored_masks
from masksweep.strategies.keras_model.holding import NOT_IN_CHECKPOINT
from masksweep.strategies.keras_model.holding_model import HoldingModel
from masksweep.strategies.keras_model.plain_model import copy_of
from masksweep.strategies.keras_model.schedule_choice import ScheduleChoice
from masksweep.strategies.plan import Array, Plan, Weight
from masksweep.strategies.registry import STRATEGIES


@keras.saving.register_keras_serializable(package="masksweep")
class MaskedModel(HoldingModel):
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
        super().__init__(model, strategies, name or model.name, schedule)
        if plan is not None:
            self._hold(plan if self.moving is None else self.moving.first_plan(plan))

    def _hold(self, plan: Plan, places: Mapping[str, int] | None = None) -> None:
        with self.distribute_strategy.scope():
            self.holding.hold(plan, places or {})
        # what a strategy has chosen for the masks may compile with XLA where the strategy does not
        self.supports_jit = all(s.xla for s in self.holding.strategies.values())

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
            Invalid: Keras cannot copy the model, for example because it has no `get_config`; or a
                masked layer got LoRA or was quantized.
        """
        self.holding.require_masked_kernels()
        with self.holding.dense_variables():
            plain = copy_of(self.model)
        held = {id(w.variable): w for w in self.holding.weights}
        for variable, copy in zip(self.model.variables, plain.variables, strict=True):
            masked = held.get(id(variable))
            copy.assign(masked.effective() if masked else variable)
        return plain

    # -- saving and loading ------------------------------------------------------------------

    def export(self, *args: Any, **kwargs: Any) -> None:
        """Exports the plain model for serving, as `keras.Model.export` does."""
        self.export_plain().export(*args, **kwargs)

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """Raises `Invalid`: quantize the model that `export_plain` returns."""
        raise Invalid("model", self.name, "cannot be quantized; quantize what export_plain returns")

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Saves the model as `keras.Model.save` does, in a `.keras` file."""
        if str(filepath).endswith((".h5", ".hdf5")):
            allowed = "must end in .keras: the old format cannot load a masked model"
            raise Invalid("filepath", filepath, allowed)
        self.holding.require_masked_kernels()
        self._require_registered()  # before Keras begins to write the file
        super().save(filepath, *args, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles the model as `load_model` does. The optimizer is built when masks are loaded."""
        self.compile(**keras.saving.deserialize_keras_object(config))

    def get_config(self) -> dict[str, Any]:
        """Returns the model and the strategies. Masks are stored with the weights.

        Raises:
            Invalid: A strategy is not registered, so it could not be loaded.
        """
        self._require_registered()
        names = {w.name: stable(w.name) for w in describe(self.model, all_weights(self.model))}
        return {
            "name": self.name,
            "model": keras.saving.serialize_keras_object(self.model),
            "strategies": {
                names[name]: stored_masks.settings(strategy)
                for name, strategy in self.holding.strategies.items()
            },
            "stable_names": True,
            **({"schedule": self.moving.choice.to_config()} if self.moving is not None else {}),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> MaskedModel:
        """Makes a masked model that has no masks yet, from `get_config`."""
        model = keras.saving.deserialize_keras_object(config["model"], custom_objects)
        # layers without a name of their own may have other names than in the model that was saved
        names = {stable(w.name): w.name for w in describe(model, all_weights(model))}
        names = names if config.get("stable_names") else {}  # as earlier versions wrote it
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
            if self.moving is not None and self.optimizer is not None:
                self.moving.count_with(self.optimizer)
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
