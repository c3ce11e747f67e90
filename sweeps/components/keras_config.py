"""Checks what the config of a saved Keras model names, before Keras builds the model.

Building a model calls what its config names. Keras' safe mode was bypassed several times
(CVE-2025-1550, -8747, -9906, -49655, CVE-2026-1462). So only those objects are allowed here that a
network consists of, and that take neither code nor files from the config.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from masksweep.strategies.errors import Invalid

KERAS_PARTS = (
    "", "activations", "constraints", "dtype_policies", "initializers", "layers", "models", "ops",
    "quantizers", "random", "regularizers",
)  # fmt: skip
"""Modules of Keras that have parts of a network; the empty name is `keras` itself."""
CODE_OR_FILES = (
    "__lambda__", "__typespec__", "FlaxLayer", "FeatureSpace", "IntegerLookup", "JaxLayer",
    "Lambda", "StringLookup", "TFSMLayer", "TextVectorization", "TorchModuleWrapper",
)  # fmt: skip
"""Classes whose config has code, pickled objects or paths of files."""
MASKED_MODEL = "masksweep>MaskedModel"
"""The name under which Keras saves a model that `strategies.apply` returned."""
WITH_STATISTICS = ("BatchNormalization", "Normalization", "SpectralNormalization")
"""Layers of Keras that have non-trainable weights."""


def class_names(config: Any) -> set[str]:
    """Returns the names of all classes and functions in the config of a model."""
    return {str(name) for module, name, _ in _objects(config)}


def registered_names(config: Any) -> set[str]:
    """Returns the names under which Keras looks up the classes and functions in a config."""
    return {registered or name for _, name, registered in _objects(config)}


def without_compilation(config: Any) -> Any:
    """Returns a copy of the config without optimizers, losses and metrics, at every level.

    A sweep uses its own, and those of the file may be of classes that are not installed.
    """
    if isinstance(config, list):
        return [without_compilation(value) for value in config]
    if not isinstance(config, dict):
        return config
    dropped = ("compile_config",) if "class_name" in config else ()
    return {k: without_compilation(v) for k, v in config.items() if k not in dropped}


def check_allowed(path: str, config: Mapping[str, Any]) -> None:
    """Checks that a config names only objects that may be part of a network.

    Args:
        path: Path of the model's file, for messages.
        config: The config, as `without_compilation` returns it.

    Raises:
        Invalid: (key `path`) The config names a class that takes code or files from it, an object
            of Keras that is no part of a network, or a model of `strategies.apply`.
    """
    for module, name, registered in _objects(config):
        if registered == MASKED_MODEL:
            allowed = "is a masked model of strategies.apply; save what its export_plain() returns"
            raise Invalid("path", path, allowed)
        if name in CODE_OR_FILES:
            allowed = f"has a {name}, which may bring code or read files; a sweep loads none"
            raise Invalid("path", path, allowed)
        if _is_keras(module) and _part(module) not in KERAS_PARTS:
            raise Invalid("path", path, f"names {module}.{name}, which is no part of a network")


def check_registered(path: str, config: Mapping[str, Any]) -> None:
    """Checks that each class or function that is not of Keras is registered in this process.

    Args:
        path: Path of the model's file, for messages.
        config: The config, as `without_compilation` returns it.

    Raises:
        Invalid: (key `path`) One is not. The message has its name.
    """
    import keras

    for module, name, registered in _objects(config):
        key = registered or name
        if keras.saving.get_registered_object(key) is None and not _is_known(module, name):
            found = f"has {key}" if module == "builtins" else f"has {key} of {module}"
            allowed = "load the file that registers it with --plugin FILE.py"
            raise Invalid("path", path, f"{found}, which is not registered with Keras; {allowed}")


def _is_known(module: str, name: str) -> bool:
    """Whether Keras finds a class or function among its own."""
    import keras

    if module != "builtins" or re.fullmatch(r"__\w+__", name):  # as __keras_tensor__: no class
        return _is_keras(module)
    parts = [keras] + [getattr(keras, part) for part in KERAS_PARTS if part]
    return any(hasattr(part, name) for part in parts)


def _objects(config: Any) -> Iterator[tuple[str, str, str | None]]:
    """Yields (module, name, registered name) of each class and function in a config.

    No recursion: the lists of a file may be nested deeper than Python's stack.
    """
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
            if isinstance(value.get("class_name"), str) and "config" in value:
                yield _object(value)


def _object(value: Mapping[str, Any]) -> tuple[str, str, str | None]:
    module, name = value.get("module") or "builtins", value["class_name"]
    registered = value.get("registered_name")
    if name == "function":  # its name is in `config`
        name = registered = value["config"]
    return str(module), str(name), registered if isinstance(registered, str) else None


def _is_keras(module: str) -> bool:
    # Keras looks names without a module up among its own objects, and imports nothing for them
    return module == "builtins" or module.partition(".")[0] == "keras"


def _part(module: str) -> str:
    """Returns the second part of a module's name, as `layers`; empty for `keras`."""
    parts = [p for p in module.split(".")[1:] if p != "src"]
    return parts[0] if parts else ""
