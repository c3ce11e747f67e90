"""Outputs of a model with several: by name, and side by side in one tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from masksweep.strategies.core import keras_internals
from masksweep.strategies.plan import Array
from masksweep.sweeps.components.datasets.arrays import Head
from masksweep.sweeps.components.datasets.named import Named


def by_name(model: Any, outputs: Any) -> dict[str, Any]:
    """Returns the outputs of a model with several by name, in the order of the model.

    Args:
        model: A Keras model. One without names for its outputs returns a dict.
        outputs: What the model returned: a dict, a list or a tuple.
    """
    if isinstance(outputs, Mapping):
        return {str(name): output for name, output in outputs.items()}
    names = keras_internals.functional(model).output_names
    return dict(zip(names, keras.tree.flatten(outputs), strict=True))


def side_by_side(model: Any, heads: Named[Head] | None, outputs: Any) -> Any:
    """Returns the outputs in one float32 tensor `[batch, outputs]`, in the order of the heads.

    Args:
        model: The Keras model.
        heads: The outputs of a model with several; None for one output.
        outputs: What the model returned.
    """
    if heads is None:
        return tf.cast(outputs, tf.float32)
    named = by_name(model, outputs)
    return tf.concat([tf.cast(named[name], tf.float32) for name in heads], -1)


def split(heads: Named[Head] | None, outputs: Array) -> dict[str, Array]:
    """Returns the arrays that `side_by_side` joined, by name; the name of an only one is empty.

    Args:
        heads: The outputs of a model with several; None for one output.
        outputs: Outputs, `[..., outputs]`.

    Example:
        >>> heads = Named(a=Head("regression", 1), b=Head("classification", 2))
        >>> {name: array.tolist() for name, array in split(heads, np.array([[1, 2, 3]])).items()}
        {'a': [[1]], 'b': [[2, 3]]}
    """
    if heads is None:
        return {"": outputs}
    ends = np.cumsum([head.outputs for head in heads.values()])
    return dict(zip(heads, np.split(outputs, ends[:-1], axis=-1), strict=True))
