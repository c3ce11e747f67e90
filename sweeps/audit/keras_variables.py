"""Names of the variables of Keras' own layers, in the order in which a layer saves them.

A Keras 3 file stores the variables of a layer as 0, 1, 2, ... and does not name them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any

RECURRENT_VARIABLES = "kernel recurrent_kernel bias:use_bias"
"""Variables of a recurrent cell, in the form of `VARIABLES_BY_CLASS`."""
VARIABLES_BY_CLASS = {
    **dict.fromkeys(
        ("Dense", "EinsumDense", "DepthwiseConv1D", "DepthwiseConv2D", "Conv1D", "Conv2D", "Conv3D",
         "Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"),
        "kernel bias:use_bias",
    ),
    **dict.fromkeys(
        ("SeparableConv1D", "SeparableConv2D"), "depthwise_kernel pointwise_kernel bias:use_bias"
    ),
    **dict.fromkeys(("SimpleRNNCell", "GRUCell", "LSTMCell", "ConvLSTMCell"), RECURRENT_VARIABLES),
    **dict.fromkeys(("LayerNormalization", "GroupNormalization"), "gamma:scale beta:center"),
    "BatchNormalization": "gamma:scale beta:center moving_mean moving_variance"
    " moving_stddev:renorm renorm_mean:renorm renorm_stddev:renorm",
    "RMSNormalization": "scale",
    "SpectralNormalization": "kernel vector_u",
    "Normalization": "mean variance count",
    "Embedding": "embeddings",
    "ReversibleEmbedding": "embeddings reverse_embeddings:untied",
    "Attention": "scale:use_scale concat_score_weight:concat",
    "AdditiveAttention": "scale:use_scale",
    "PReLU": "alpha",
}  # fmt: skip
"""Variables by class of the layer, separated by blanks. After a colon stands the key of the layer's
config that says whether the layer has the variable."""
INNER_LAYER_CLASSES = {
    "multi_head_attention": "einsum_dense",
    "grouped_query_attention": "einsum_dense",
}
"""Class of the layers that a layer creates inside itself, by the class of the outer layer."""
CELL_CLASSES = {"gru": "gru_cell", "lstm": "lstm_cell", "simple_rnn": "simple_rnn_cell"}
CELL_CLASSES |= {f"conv_lstm{n}d": "conv_lstm_cell" for n in (1, 2, 3)}
"""Class of the cell of each recurrent layer, by the class of the layer."""


def snake_case(name: str) -> str:
    """Returns the name of a class as Keras writes it in files.

    Example:
        >>> snake_case("Conv1DTranspose")
        'conv1d_transpose'
    """
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


VARIABLES_BY_SNAKE_CASE = {
    snake_case(name): [part.partition(":")[::2] for part in parts.split()]
    for name, parts in VARIABLES_BY_CLASS.items()
}
"""(variable, key of the config or empty) of each variable, by the layer's class in snake case."""


def known_class(name: str) -> str | None:
    """Returns the class of a layer with an automatic name, in snake case; None if it is not known.

    Example:
        >>> known_class("dense_3")
        'dense'
    """
    plain = re.sub(r"_\d+$", "", name)
    has_variables = (
        plain in VARIABLES_BY_SNAKE_CASE or plain in INNER_LAYER_CLASSES or plain in CELL_CLASSES
    )
    return plain if has_variables else None


def variable_names(layer: str | None, count: int, config: Mapping[str, Any]) -> list[str] | None:
    """Returns the names of the variables of a layer.

    Args:
        layer: The class of the layer in snake case, or None if it is not known.
        count: Number of variables that are stored.
        config: The layer's config; empty if it is not known.

    Returns:
        The names in the order of the file, or None if more than one choice of names is possible, or
        none.

    Example:
        >>> variable_names("dense", 1, {})
        ['kernel']
        >>> variable_names("batch_normalization", 3, {})
        >>> variable_names("batch_normalization", 3, {"scale": False, "center": True})
        ['beta', 'moving_mean', 'moving_variance']
    """
    parts = VARIABLES_BY_SNAKE_CASE.get(layer or "", [])
    by_config = [name for name, flag in parts if not flag or config.get(flag)]
    if config and len(by_config) == count:
        return by_config
    flags = dict.fromkeys(flag for _, flag in parts if flag)
    subsets = (set(c) for n in range(len(flags) + 1) for c in itertools.combinations(flags, n))
    choices = [[name for name, flag in parts if not flag or flag in on] for on in subsets]
    fitting = [names for names in choices if len(names) == count]
    return fitting[0] if len(fitting) == 1 else None
