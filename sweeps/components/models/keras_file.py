"""A network of one's own, from a `.keras` file."""

from __future__ import annotations

import json
import tempfile
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from masksweep.strategies.base import Invalid, require
from masksweep.strategies.core import keras_internals
from masksweep.strategies.registry import register
from masksweep.sweeps.common import keras_archive
from masksweep.sweeps.components import keras_config
from masksweep.sweeps.components.models.base import Model

Weights = Literal["file", "drawn"]


@register
@dataclass(frozen=True, eq=False)
class KerasFile(Model):
    """A network of your own, from a `.keras` file that `model.save` has written.

    It has one input and one output, and ends in logits for a classification. The file is loaded in
    Keras' safe mode, and without the optimizer, loss and metrics that are in it. Layers of your own
    must be registered (`keras.saving.register_keras_serializable`) by an installed package whose
    components Masksweep loads. The file's content is part of a trial's identity.

    Raises:
        Invalid: There is no such file, it is not a `.keras` file, or it names something that brings
            code or reads files, such as a Lambda layer.

    Reference:
        https://keras.io/api/models/model_saving_apis/model_saving_and_loading
    """

    name: ClassVar[str] = "keras_file"
    takes_policy: ClassVar[bool] = False
    _state: ClassVar[tuple[int, int]]
    path: str = ""
    """Path of the file."""
    weights: Weights = "file"
    """Whether the initial values are those of the file, or are drawn anew from the trial's seed by
    the initializers of the layers. One that has a seed of its own draws the same for all trials."""

    def __post_init__(self) -> None:
        require(self.path.endswith(".keras"), "path", self.path, "a .keras file")
        object.__setattr__(self, "_state", keras_archive.file_state(self.path))
        self._config()

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
    def has_statistics(self) -> bool:
        names = keras_config.class_names(self._config())
        return not names.isdisjoint(keras_config.WITH_STATISTICS)

    @property
    def gains_by_xla(self) -> bool:  # type: ignore[override]
        """XLA makes convolutions slower on a CPU."""
        return not any("Conv" in name for name in keras_config.class_names(self._config()))

    def network(self, inputs: tuple[int, ...], outputs: int) -> Any:
        keras_config.check_registered(self.path, self._config())
        try:
            model = self._new() if self.drawn else self._load()
        except Invalid:
            raise
        except Exception as error:  # Keras and h5py raise errors of many types
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise Invalid("path", self.path, f"cannot be loaded: {reason}") from error
        self._check(model, inputs, outputs)
        return model

    def _config(self) -> dict[str, Any]:
        """Returns the model's config, which names only what may be part of a network."""
        return _read(self.path, self._state)

    def _new(self) -> Any:
        """Builds the model of the file's config, with values drawn by its initializers."""
        import keras

        return keras.models.model_from_json(json.dumps(self._config()))

    def _load(self) -> Any:
        """Loads the model with its values."""
        import keras

        # a copy of the two files that were checked: Keras would also unpack other files, without
        # a limit, and would compile models that are part of the model
        with tempfile.TemporaryDirectory() as folder:
            weights, copy = Path(folder, keras_archive.WEIGHTS_FILE), Path(folder, "copy.keras")
            with keras_archive.open_archive(self.path) as archive:
                keras_archive.unpack_weights(self.path, archive, weights)
            with zipfile.ZipFile(copy, "w") as archive:
                archive.writestr(keras_archive.CONFIG_FILE, json.dumps(self._config()))
                archive.write(weights, weights.name)
            return keras.models.load_model(copy, compile=False, safe_mode=True)

    def _check(self, model: Any, inputs: tuple[int, ...], outputs: int) -> None:
        """Checks that a sweep can train the model on its data."""
        import keras

        def fail(reason: str) -> None:
            raise Invalid("path", self.path, reason)

        tensors = getattr(model, "inputs", None), getattr(model, "outputs", None)
        if not isinstance(model, keras.Model) or not all(tensors):
            fail("must be a Functional model, or a Sequential model with an Input")
        if [len(ends) for ends in tensors if ends] != [1, 1]:
            fail("must have one input and one output")
        expected, found = (None, *inputs), tuple(model.inputs[0].shape)
        fits = len(found) == len(expected) and all(
            size in (None, wanted) for size, wanted in zip(found, expected, strict=True)
        )
        if not fits:
            fail(f"has inputs of shape {found}, and the data has {expected}")
        if (found := tuple(model.outputs[0].shape)) != (None, outputs):
            fail(f"has outputs of shape {found}, and the data needs {(None, outputs)}")
        if _ends_in_softmax(model):
            fail("ends in a softmax; save it without, because the loss takes logits")
        for layer in keras_internals.all_layers(model) if self.drawn else ():
            for variable in keras_internals.own_variables(layer):
                if hasattr(layer, "adapt"):
                    name = f"{layer.name}/{variable.name}"
                    allowed = f"not for this file: {name} was computed by adapt, and is not drawn"
                    raise Invalid("weights", self.weights, allowed)


@lru_cache(maxsize=8)
def _read(path: str, state: tuple[int, int]) -> dict[str, Any]:
    """Returns the checked config of a model. Cached, because each trial of a sweep asks for it.

    Args:
        path: Path of the file.
        state: Its `file_state`, so that a changed file is read again.
    """
    with keras_archive.open_archive(path) as archive:
        config: dict[str, Any] = keras_config.without_compilation(
            keras_archive.read_config(path, archive)
        )
    keras_config.check_allowed(path, config)
    return config


def _ends_in_softmax(model: Any) -> bool:
    import keras

    last = keras_internals.source(model.outputs[0])
    if getattr(last, "outputs", None):  # a model within the model
        return _ends_in_softmax(last)
    activation = getattr(last, "activation", None)
    return isinstance(last, keras.layers.Softmax) or activation is keras.activations.softmax
