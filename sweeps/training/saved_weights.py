"""Saves weights that several trials need, such as those after a pruning round, by a key."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress

import keras
import tensorflow as tf

from masksweep.strategies.plan import Array
from masksweep.sweeps.common.provenance import code_version
from masksweep.sweeps.common.storage import Folder
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.training.array_file import from_bytes, to_bytes

MAX_KEPT = 2
"""Number of the newest entries that the process keeps: a pruning round, and its dense start."""

_kept: OrderedDict[str, Mapping[str, Array]] = OrderedDict()
"""Arrays by name, by their key."""


def key_of(trial: Trial) -> str:
    """SHA-256 of all that determines the weights after a trial: config and code versions."""
    parts = [trial.canonical(), code_version(), tf.__version__, keras.__version__]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def save(key: str, arrays: Mapping[str, Array], folder: Folder | None) -> None:
    """Keeps arrays in this process, and saves them in the folder if there is one."""
    _kept.pop(key, None)
    _kept[key] = arrays
    while len(_kept) > MAX_KEPT:
        _kept.popitem(last=False)
    if folder is not None:
        content = to_bytes(arrays)
        digest = hashlib.sha256(content).hexdigest()
        # each file system has its own errors; without the file, the weights are trained again
        with suppress(Exception):
            folder.write(_file(key), digest.encode() + content)


def load(key: str, folder: Folder | None) -> Mapping[str, Array] | None:
    """Returns arrays that were saved under the key, or None if there are none.

    Args:
        key: The key.
        folder: The folder that `save` was given; None to look only at what this process keeps.
    """
    if key in _kept:
        return _kept[key]
    if folder is None:
        return None
    try:
        content = folder.read(_file(key))
        if hashlib.sha256(content[64:]).hexdigest().encode() != content[:64]:
            return None
        return from_bytes(content[64:])
    except Exception:  # missing or damaged: the weights are trained again
        return None


def remove(key: str, folder: Folder | None) -> None:
    """Removes a file of the folder. One that is left over does no harm, so errors are ignored."""
    if folder is not None:
        with suppress(Exception):
            folder.remove(_file(key))


def _file(key: str) -> str:
    return f"{key}.npz"
