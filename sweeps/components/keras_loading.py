"""Loads `.keras` files that may come from anyone, in Keras' safe mode."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from masksweep.strategies.errors import Invalid, require
from masksweep.strategies.plan import Array
from masksweep.sweeps.common import keras_archive
from masksweep.sweeps.components import keras_config

FileState = tuple[int, int]
"""The state of a file, as `keras_archive.file_state` returns it."""


def checked_state(path: str) -> FileState:
    """Returns the state of a `.keras` file, after a check of its config. Does not load Keras.

    Raises:
        Invalid: (key `path`) There is no such file, it is not a `.keras` file, or it names
            something that brings code or reads files, such as a Lambda layer.
    """
    require(path.endswith(".keras"), "path", path, "a .keras file")
    state = keras_archive.file_state(path)
    read_config(path, state)
    return state


@lru_cache(maxsize=8)
def read_config(path: str, state: FileState) -> dict[str, Any]:
    """Returns the checked config of a model. Cached, because each trial of a sweep asks for it.

    Args:
        path: Path of the file.
        state: Its state, so that a changed file is read again.

    Raises:
        Invalid: (key `path`) The file has no config of a model, or one that is not allowed.
    """
    with keras_archive.open_archive(path) as archive:
        config: dict[str, Any] = keras_config.without_compilation(
            keras_archive.read_config(path, archive)
        )
    keras_config.check_allowed(path, config)
    return config


def build(path: str, config: Mapping[str, Any]) -> Any:
    """Builds the model of a file's config, with values drawn by its initializers.

    Raises:
        Invalid: (key `path`) As for `load`.
    """
    import keras

    return _guarded(path, config, lambda: keras.models.model_from_json(json.dumps(config)))


def load(path: str, config: Mapping[str, Any]) -> Any:
    """Loads the model of a file with its values, but without its optimizer, loss and metrics.

    Args:
        path: Path of the file.
        config: Its config, as `read_config` returns it.

    Raises:
        Invalid: (key `path`) Keras cannot load the file, or no installed component registers a
            class that it names.
    """
    return _guarded(path, config, lambda: _load(path, config))


@lru_cache(maxsize=4)
def read_weights(path: str, state: FileState) -> Mapping[str, Array]:
    """Returns all weights and moving statistics of a file, by their names `layer/variable`.

    Cached, because each trial of a sweep asks for it. Do not change the arrays.

    Args:
        path: Path of the file.
        state: Its state, so that a changed file is read again.

    Raises:
        Invalid: (key `path`) As for `load`.
    """
    from masksweep.strategies.core.weights import owners

    model = load(path, read_config(path, state))
    named = owners(model)
    return {named[id(v)][0]: np.asarray(v.numpy()) for v in model.weights if id(v) in named}


def _guarded(path: str, config: Mapping[str, Any], make: Callable[[], Any]) -> Any:
    keras_config.check_registered(path, config)
    try:
        return make()
    except Invalid:
        raise
    except Exception as error:  # Keras and h5py raise errors of many types
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Invalid("path", path, f"cannot be loaded: {reason}") from error


def _load(path: str, config: Mapping[str, Any]) -> Any:
    import keras

    # a copy of the two files that were checked: Keras would also unpack other files, without
    # a limit, and would compile models that are part of the model
    with tempfile.TemporaryDirectory() as folder:
        weights, copy = Path(folder, keras_archive.WEIGHTS_FILE), Path(folder, "copy.keras")
        with keras_archive.open_archive(path) as archive:
            keras_archive.unpack_weights(path, archive, weights)
        with zipfile.ZipFile(copy, "w") as archive:
            archive.writestr(keras_archive.CONFIG_FILE, json.dumps(config))
            archive.write(weights, weights.name)
        return keras.models.load_model(copy, compile=False, safe_mode=True)
