"""A Keras model from a stranger's file: `.keras` only, and nothing in it runs.

Keras' own safe mode refuses pickled functions, but what else a config could call was found again
and again (CVE-2025-1550, -8747, -9906, -49655, CVE-2026-1462), and the Keras installed here may be
an old one. So the config is read first, as data: it may name no more than what a model is made of.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from strategies.base import Invalid

MADE_OF = re.compile(
    r"keras(\.src)?(\.(layers|models|ops|initializers|regularizers|constraints|activations"
    r"|random|dtype_policies|quantizers|optimizers|losses|metrics)(\.\w+)*)?"
)
"""Modules whose classes a config may name."""
FUNCTIONS = re.compile(r"builtins|keras(\.src)?\.(activations|ops|losses|metrics)(\.\w+)*")
"""Modules whose functions it may name; Keras says `builtins` of its own by their bare name."""
CODE = {"Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper", "FlaxLayer", "JaxLayer"}
"""Classes that bring code of their own."""


def check(path: str) -> None:
    """Raise `Invalid` (key `path`) unless it is a `.keras` file that names nothing foreign.

    Loads no TensorFlow.
    """
    if not Path(path).exists():
        raise Invalid("path", path, "no such file")
    if Path(path).suffix != ".keras" or Path(path).is_dir() or not zipfile.is_zipfile(path):
        raise Invalid(
            "path", path, "must be a .keras file; other formats can run code as they load"
        )
    try:
        with zipfile.ZipFile(path) as file:
            config = json.loads(file.read("config.json"))
        config.pop("compile_config", None)  # how it was trained, which is not loaded
        foreign = next(_foreign(config), "")
    except Exception as error:  # zipfile, zlib, JSON and the stack each have errors of their own
        raise Invalid("path", path, "not a readable .keras file") from error
    if foreign:
        allowed = f"holds {foreign}; only Keras' own layers that bring no code are read"
        raise Invalid("path", path, allowed)


def load(path: str) -> Any:
    """The model, all of its layers trainable: one that was frozen has weights to audit too.

    Raises `Invalid` (key `path`) for what is no model, cannot be loaded, or could run code.
    """
    check(path)
    import keras

    try:
        # as a Path: a string such as hf://model.keras is an address to Keras
        model = keras.models.load_model(Path(path), compile=False, safe_mode=True)
    except Exception as error:  # Keras, HDF5 and TensorFlow each have errors of their own
        said = " ".join(str(error).rpartition("Exception encountered: ")[2].split())
        reason = said.split(". ")[0][:200]
        raise Invalid("path", path, f"cannot be loaded: {reason}") from error
    if not isinstance(model, keras.Model):
        raise Invalid("path", path, "holds no model")
    for layer in model._flatten_layers():  # set on the model alone, it stops where it is true
        layer.trainable = True
    return model


def _foreign(part: Any) -> Iterator[str]:
    """What a config names that is no part of Keras, or brings code."""
    if isinstance(part, list):
        for inner in part:
            yield from _foreign(inner)
    if not isinstance(part, dict):
        return
    name, module = part.get("class_name"), part.get("module", "keras")
    # a class that was registered under a name of its own has the module null
    if name == "function" and not FUNCTIONS.fullmatch(str(module)):
        yield f"the function {part.get('config')} of {module}"
    elif name is not None and name != "function" and not _is_made_of(str(name), str(module)):
        yield str(name) if module in (None, "keras.layers") else f"{name} of {module}"
    for inner in part.values():
        yield from _foreign(inner)


def _is_made_of(name: str, module: str) -> bool:
    # by a name in small letters Keras would find functions too, such as its own load_model
    return name not in CODE and not name[:1].islower() and MADE_OF.fullmatch(module) is not None
