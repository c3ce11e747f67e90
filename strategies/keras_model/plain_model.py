"""The plain Keras model that is masked: which models can be, and copies of one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import keras

from masksweep.strategies.core import keras_internals
from masksweep.strategies.core.weights import describe
from masksweep.strategies.errors import Invalid

REPLACED = (
    "train_step", "test_step", "predict_step", "compute_loss", "compute_metrics",
    "make_train_function",
)  # fmt: skip
"""Methods of a model that a masked model does not call."""


def require_supported(model: Any) -> None:
    """Checks that a model can be masked.

    Raises:
        Invalid: It is not a Keras model, not built, without the values of a kernel, or overrides a
            method that a masked model does not call.
    """
    name = getattr(model, "name", type(model).__name__)
    if not isinstance(model, keras.Model):
        raise Invalid("model", name, "must be a keras.Model")
    if not model.built or not model.weights:
        raise Invalid("model", name, "must be built: call it on a batch, or give it an Input")
    for weight, variable in zip(describe(model), model.trainable_variables, strict=True):
        if keras_internals.is_released(variable):
            allowed = (
                f"must be built again: an earlier apply on it has freed {weight.name}, because "
                "its strategy stores kept values only"
            )
            raise Invalid("model", name, allowed)
    for method in REPLACED:
        if getattr(type(model), method, None) is not getattr(keras.Model, method):
            allowed = (
                f"overrides {method}, which a masked model does not call; give apply the network "
                "without it, and train it in a loop of your own with hold_with(optimizer)"
            )
            raise Invalid("model", type(model).__name__, allowed)


def copy_of(model: Any) -> Any:
    """Returns a copy of a model, through a file: this keeps vocabularies and statistics too."""
    classes = {type(layer).__name__: type(layer) for layer in keras_internals.all_layers(model)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        try:
            model.save(path)
            # the file is of this process, so it may have the code of a Lambda
            return keras.models.load_model(path, classes, compile=False, safe_mode=False)
        except (NotImplementedError, TypeError, ValueError) as error:
            allowed = f"Keras cannot copy it; does it have get_config? ({error})"
            raise Invalid("model", model.name, " ".join(allowed.split())) from error
