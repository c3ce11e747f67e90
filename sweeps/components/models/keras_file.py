"""A network of your own, from a `.keras` file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from masksweep.strategies.core import keras_internals
from masksweep.strategies.errors import Invalid
from masksweep.strategies.registry import register
from masksweep.sweeps.components import keras_config, keras_loading, plugins
from masksweep.sweeps.components.models import ends
from masksweep.sweeps.components.models.base import Model

Weights = Literal["file", "drawn"]


@register
@dataclass(frozen=True, eq=False)
class KerasFile(Model):
    """A network of your own, from a `.keras` file that `model.save` has written.

    It ends in logits for a classification. Several inputs and outputs have the names that the data
    have. The file is loaded in Keras' safe mode, and without the optimizer, loss and metrics that
    are in it. Layers of your own must be registered (`keras.saving.register_keras_serializable`) by
    a file that `--plugin` loads, or by an installed package whose components Masksweep loads. The
    file's content is part of a trial's identity.

    Raises:
        Invalid: There is no such file, it is not a `.keras` file, or it names something that brings
            code or reads files, such as a Lambda layer.

    Reference:
        https://keras.io/api/models/model_saving_apis/model_saving_and_loading
    """

    name: ClassVar[str] = "keras_file"
    takes_several: ClassVar[bool] = True
    takes_policy: ClassVar[bool] = False
    _state: ClassVar[tuple[int, int]]
    path: str = ""
    """Path of the file."""
    weights: Weights = "file"
    """Whether the initial values are those of the file, or are drawn again from the trial's seed by
    the initializers of the layers. One that has a seed of its own draws the same for all trials."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_state", keras_loading.checked_state(self.path))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KerasFile) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[Any, ...]:
        """Distinguishes models in caches, also those of one path whose file has changed."""
        return self.path, self.weights, self._state

    @property
    def drawn(self) -> bool:
        return self.weights == "drawn"

    @property
    def layers_origin(self) -> str:
        return plugins.keras_origins(keras_config.registered_names(self._config()))

    @property
    def has_statistics(self) -> bool:
        names = keras_config.class_names(self._config())
        return not names.isdisjoint(keras_config.WITH_STATISTICS)

    @property
    def gains_by_xla(self) -> bool:  # type: ignore[override]
        """XLA makes convolutions slower on a CPU."""
        return not any("Conv" in name for name in keras_config.class_names(self._config()))

    def network(self, inputs: Any, outputs: Any) -> Any:
        make = keras_loading.build if self.drawn else keras_loading.load
        model = make(self.path, self._config())
        self._check(model, inputs, outputs)
        return model

    def _config(self) -> dict[str, Any]:
        """Returns the model's config, which names only what may be part of a network."""
        return keras_loading.read_config(self.path, self._state)

    def _check(self, model: Any, inputs: Any, outputs: Any) -> None:
        """Checks that a sweep can train the model on its data."""
        import keras

        def fail(reason: str) -> None:
            raise Invalid("path", self.path, reason)

        tensors = getattr(model, "inputs", None), getattr(model, "outputs", None)
        if not isinstance(model, keras.Model) or not all(tensors):
            fail("must be a Functional model, or a Sequential model with an Input")
        for kind, of_data, of_model in zip(
            ("input", "output"), (inputs, outputs), tensors, strict=True
        ):
            if len(of_model or ()) > 1 and not isinstance(of_data, Mapping):
                fail(f"must have one {kind}, as the data have")
        if fault := ends.input_fault(model, inputs):
            fail(fault)
        for layer in keras_internals.all_layers(model) if self.drawn else ():
            for variable in keras_internals.own_variables(layer):
                if hasattr(layer, "adapt"):
                    name = f"{layer.name}/{variable.name}"
                    allowed = f"not for this file: {name} was computed by adapt, and is not drawn"
                    raise Invalid("weights", self.weights, allowed)
