"""A Keras model around another one, of which it has the layers, the inputs and the outputs."""

from __future__ import annotations

from typing import Any

import keras

from masksweep.strategies.core import keras_internals


class ModelWrapper(keras.Model):  # type: ignore[misc]
    """A Keras model that answers what callers ask of the model in it, such as its output names.

    Keras asks a Functional model for the names of its outputs, for the losses by name.

    Args:
        model: The model inside, which is built.
        name: Name of the new model.
    """

    def __init__(self, model: Any, name: str) -> None:
        super().__init__(name=name, dtype=model.dtype_policy, autocast=False)
        self.model = model
        """The model that was given to `apply`. Its masked variables may have other values than the
        weights that the masked model uses, or none at all: see `MaskedModel.dense_weights`."""

    @property
    def metrics(self) -> list[Any]:
        """The metrics of `compile`, of the layers, and of the model itself."""
        return [*super().metrics, *keras_internals.own_metrics(self.model)]

    @property
    def inputs(self) -> Any:
        """The symbolic inputs of the model, if it is Functional or Sequential."""
        return self.model.inputs

    @property
    def outputs(self) -> Any:
        """The symbolic outputs of the model, if it is Functional or Sequential."""
        return self.model.outputs

    @property
    def output_names(self) -> list[str]:
        """The names of the outputs, if the model is Functional or Sequential."""
        return list(self.model.output_names)

    @property
    def input_shape(self) -> Any:
        """The shape of the inputs, if the model is Functional or Sequential."""
        return self.model.input_shape

    @property
    def output_shape(self) -> Any:
        """The shape of the outputs, if the model is Functional or Sequential."""
        return self.model.output_shape

    def get_layer(self, name: str | None = None, index: int | None = None) -> Any:
        """Returns a layer of the model."""
        return self.model.get_layer(name, index)

    def summary(self, *args: Any, **kwargs: Any) -> None:
        """Prints the layers of the model. `strategies.summary` shows what is masked."""
        self.model.summary(*args, **kwargs)
