"""Reads the variables of a SavedModel folder or a TensorFlow checkpoint. Loads no graph."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from masksweep.strategies.core.npz import MAX_ARRAY_BYTES
from masksweep.strategies.core.weights import unique_names
from masksweep.strategies.errors import Invalid
from masksweep.strategies.plan import Array
from masksweep.sweeps.audit.stored import (
    MODEL_FORMATS,
    StoredModel,
    StoredWeight,
    is_number,
    sliced,
)

OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
NOT_WEIGHTS = ("optimizer/", "keras_api/", "save_counter/", "_all_variables/")
"""Prefixes of keys that are not weights. Keras 3 exports each variable a second time, under
`_all_variables`."""
SLOT_MARKER = "/.OPTIMIZER_SLOT/"
"""Part of the key of a variable of the optimizer."""


def check(path: str) -> None:
    """Raises `Invalid` (key `path`) if a file is missing or outside the folder.

    TensorFlow is not loaded.
    """
    _prefix(path)


def _prefix(path: str) -> tuple[Path, int]:
    """Returns the prefix of the checkpoint's files, and the size of its data in bytes."""
    folder, name = Path(path, "variables"), "variables"
    if not Path(path).is_dir():
        folder, name = Path(path).parent, Path(path).stem
    index, data = folder / f"{name}.index", sorted(folder.glob(f"{name}.data-*-of-*"))
    if not index.is_file() or not data:
        raise Invalid(
            "path", path, f"must be {MODEL_FORMATS}; it has no {name}.index with its data"
        )
    inside = (Path(path) if Path(path).is_dir() else folder).resolve()
    for file in (index, *data):
        if not file.is_file() or not file.resolve().is_relative_to(inside):
            raise Invalid("path", path, f"{file.name} is a link out of the folder; copy the file")
    return folder / name, sum(file.stat().st_size for file in data)


@contextmanager
def open_variables(path: str) -> Iterator[StoredModel]:
    """Opens a checkpoint. Its variables can be read inside the `with` block.

    The variables have the names that Keras gave them (`variable.path`).

    Args:
        path: Path of a SavedModel folder, or of the `.index` file of a checkpoint.

    Raises:
        Invalid: (key `path`) The path is neither, or the files are damaged or declare larger arrays
            than they have data for.
    """
    prefix, size = _prefix(path)
    with _silence_stderr():
        from masksweep.sweeps.training.process import prepare_process

        prepare_process(threads=1)
    try:
        weights = _weights(path, str(prefix), size)
    except Invalid:
        raise
    except Exception as error:  # TensorFlow raises about ten kinds
        raise Invalid("path", path, "not a readable SavedModel or checkpoint") from error
    if not weights:
        raise Invalid("path", path, "holds no weights of a Keras model")
    yield StoredModel(path, tuple(weights))


def _weights(path: str, prefix: str, size: int) -> list[StoredWeight]:
    import tensorflow as tf

    reader = tf.train.load_checkpoint(prefix)
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    names = _names(reader) if OBJECT_GRAPH_KEY in shapes else {key: key for key in sorted(shapes)}
    name_by_key: dict[str, str] = {}
    for key, name in names.items():
        if key in shapes and not key.startswith(NOT_WEIGHTS) and SLOT_MARKER not in key:
            name_by_key[key] = name
    weights = []
    for key, name in zip(name_by_key, unique_names(name_by_key.values()), strict=True):
        dtype, shape = np.dtype(dtypes[key].as_numpy_dtype), tuple(shapes[key])
        if not is_number(dtype):
            continue
        declared = math.prod(shape) * dtype.itemsize
        if declared > size:  # the data is never compressed, so an array needs all of its bytes
            raise Invalid(
                "path", path, f"{name} declares {declared:,} bytes; its data has {size:,}"
            )

        def blocks(
            entries: int, key: str = key, name: str = name, size: int = declared
        ) -> Iterator[Array]:
            if size > MAX_ARRAY_BYTES:  # TensorFlow reads a whole variable even for a slice
                problem = f"its {size:,} bytes must be read as a whole"
                allowed = f"{problem}, and {MAX_ARRAY_BYTES:,} are allowed"
                raise Invalid("path", path, f"{name}: {allowed}; save the model as .keras")
            try:
                array = np.asarray(reader.get_tensor(key))
            except Exception as error:
                raise Invalid("path", path, f"{key} cannot be read") from error
            yield from sliced(array)(entries)

        weights.append(StoredWeight(name, shape, dtype, blocks))
    return weights


def _names(reader: Any) -> dict[str, str]:
    """Returns the name of each variable by its key in the checkpoint."""
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    graph.ParseFromString(reader.get_tensor(OBJECT_GRAPH_KEY))
    return {
        value.checkpoint_key: value.full_name or value.checkpoint_key
        for node in graph.nodes
        for value in node.attributes
        if value.name == "VARIABLE_VALUE"
    }


@contextmanager
def _silence_stderr() -> Iterator[None]:
    """Closes stderr, where TensorFlow prints messages when it is loaded, whatever the settings."""
    stderr_copy, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(stderr_copy, 2)
        os.close(stderr_copy)
        os.close(null)
