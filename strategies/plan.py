"""Weights, masked weights, and the plan: which entries of a model are masked, and at which values.

This module imports NumPy only, so that a plan can be made and refused before TensorFlow is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masksweep.strategies.errors import require

Array = NDArray[Any]
Mask = NDArray[np.bool_]
"""A boolean array of a weight's shape: True = kept (trains), False = masked (held)."""
MATRIX_LAYERS = ("Dense", "EinsumDense", "Conv1D", "Conv2D", "Conv3D")
"""Classes of the layers that can multiply their inputs by their kernel as by a matrix. See
`Weight.not_a_matrix`."""


def shapes_and_dtypes(weights: Mapping[str, Array]) -> Mapping[str, Array]:
    """Returns arrays of the shapes and dtypes of weights, whose values may be others.

    Use it where no value is looked at: values that were not read yet stay unread.

    Args:
        weights: Arrays by name.
    """
    views: Callable[[], Mapping[str, Array]] | None = getattr(weights, "views", None)
    return weights if views is None else views()


def variable_of(name: str) -> str:
    """Returns the variable's part of a weight's name: `kernel` for `layer/kernel#1`."""
    return name.rsplit("/", 1)[-1].partition("#")[0]


def collapse_constant(held: Array, m: Any = None) -> Array:
    """Returns the held value as a scalar array if all entries share it, else `held` itself.

    `held` has a single value if it is a view of one value, made by `numpy.broadcast_to`. A step
    reads a scalar faster from memory than an array with the same value in each entry.

    Args:
        held: Held values, in the shape of the weight.
        m: Ignored; `Binding.keep` is called with the layout as its second argument.

    Returns:
        An array of shape `()`, or `held`.
    """
    is_single = held.size > 0 and not any(held.strides)
    return held[(slice(1),) * held.ndim].reshape(()) if is_single else held


@dataclass(frozen=True)
class Weight:
    """Describes one trainable weight of a model, without its values.

    Example:
        >>> weight = Weight("conv/kernel", (3, 3, 2, 8), "float32", "Conv2D")
        >>> weight.matrix_shape, weight.is_kernel
        ((18, 8), True)
    """

    name: str
    """`layer/variable`, such as `hidden/kernel`. Where layers are nested, the names of the outer
    layers come first. If two weights would have the same name, the second is `layer/variable#1`."""
    shape: tuple[int, ...]
    dtype: str
    """Name of the dtype, such as `float32`."""
    layer: str
    """The class of its layer, such as `Dense`."""
    output: bool = False
    """Whether entry `c` of the last axis acts on the model's output `c` and on no other output."""
    mixed: str = ""
    """For a weight of the output layer: the reason why `output` is False."""
    regularized: bool = False
    """Whether the variable has a Keras regularizer."""
    constrained: bool = False
    """Whether the variable has a Keras constraint."""
    shared: bool = False
    """Whether another layer also uses the variable (tied weights)."""
    makes_output: bool = False
    """Whether its layer makes one of several outputs of the model."""
    not_a_matrix: str = ""
    """For a weight of a layer in `MATRIX_LAYERS`: the reason why the layer does not multiply its
    inputs, or windows of them, by its kernel as by a matrix `[inputs, outputs]`. Empty if it
    does."""
    input_axes: int | None = None
    """Number of axes of the shape, from the first, that are inputs of the layer, if it multiplies
    by the weight as by a matrix. The others are outputs. None: all axes but the last are inputs."""

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Numbers of inputs and outputs of the kernel as a matrix."""
        axes = len(self.shape) - 1 if self.input_axes is None else self.input_axes
        return math.prod(self.shape[:axes]), math.prod(self.shape[axes:])

    @property
    def is_kernel(self) -> bool:
        """Whether the variable is a kernel, such as `kernel` or `recurrent_kernel`."""
        return variable_of(self.name).endswith("kernel")


@dataclass(frozen=True)
class MaskedWeight:
    """A weight with its mask and its held values.

    Raises:
        Invalid: The mask or the held values do not have the weight's shape, the mask is not
            boolean, or the held values do not have the weight's dtype.

    Example:
        >>> weight = Weight("hidden/kernel", (2, 2), "float32", "Dense")
        >>> mask = np.array([[True, False], [True, False]])
        >>> masked = MaskedWeight(weight, mask, held=np.zeros((2, 2), "float32"))
        >>> masked.columns.tolist()
        [True, False]
        >>> Plan((masked,)).sparsity
        0.5
    """

    weight: Weight
    mask: Mask
    """Has the shape of the weight; True = kept (trains), False = masked (held)."""
    held: Array
    """Values that the masked entries must equal, in the shape and dtype of the weight. Its values
    at kept entries are ignored."""

    def __post_init__(self) -> None:
        name, shape = self.weight.name, self.weight.shape
        require(self.mask.shape == shape, name, self.mask.shape, f"a mask of shape {shape}")
        require(self.mask.dtype == np.bool_, name, self.mask.dtype, "a boolean mask")
        require(self.held.shape == shape, name, self.held.shape, f"held values of shape {shape}")
        require(
            str(self.held.dtype) == self.weight.dtype,
            name,
            self.held.dtype,
            f"held values of dtype {self.weight.dtype}",
        )

    def with_outputs_last(self) -> MaskedWeight:
        """Returns the weight with all outputs of its layer on the last axis.

        This is the weight itself, or a matrix if its outputs have several axes, as those of the
        layers in MultiHeadAttention.
        """
        weight, matrix_shape = self.weight, self.weight.matrix_shape
        if not weight.shape or weight.shape[-1] == matrix_shape[-1]:
            return self
        mask, held = self.mask.reshape(matrix_shape), self.held.reshape(matrix_shape)
        return MaskedWeight(replace(weight, shape=matrix_shape, input_axes=None), mask, held)

    @property
    def columns(self) -> Mask | None:
        """The kept outputs (last axis), as a boolean array `[outputs]`.

        None if an output has kept and masked entries, or the weight is a scalar.
        """
        if not self.mask.ndim:
            return None
        flat = self.mask.reshape(-1, self.mask.shape[-1])
        kept: Mask = flat[0] if len(flat) else np.ones(self.mask.shape[-1], bool)
        return kept if bool((flat == kept).all()) else None

    @property
    def masked(self) -> int:
        """Number of masked entries."""
        return self.mask.size - int(np.count_nonzero(self.mask))

    @property
    def held_values(self) -> Array:
        """The held values of the masked entries, `[masked]`, or `[1]` if all share one value."""
        held = collapse_constant(self.held)
        if held.shape == self.held.shape:
            return held[~self.mask]
        return held.reshape(1)[: self.masked]

    @property
    def zeros(self) -> int:
        """Number of masked entries that are held at zero."""
        is_zero = self.held_values == 0
        return self.masked if is_zero.all() else int(is_zero.sum())

    @property
    def holds_zero(self) -> bool:
        """Whether all masked entries are held at zero."""
        return not np.any(self.held_values)

    @property
    def holds_plus_zero(self) -> bool:
        """Whether all masked entries are held at +0.0, whose bits are all zero.

        If nothing is masked yet, this is about the values at which entries will be held.
        """
        values = np.ascontiguousarray(
            self.held_values if self.masked else collapse_constant(self.held)
        )
        return not values.view(f"u{values.dtype.itemsize}").any()


@dataclass(frozen=True)
class Plan:
    """All masked weights of one model.

    Example:
        >>> weight = Weight("hidden/kernel", (2, 2), "float32", "Dense")
        >>> mask, held = np.eye(2, dtype=bool), np.zeros((2, 2), "float32")
        >>> plan = Plan((MaskedWeight(weight, mask, held),))
        >>> plan.sparsity, plan.find("hidden/kernel").masked
        (0.5, 2)
    """

    weights: tuple[MaskedWeight, ...] = ()
    outputs_held: tuple[int, ...] = ()
    """Outputs of the model whose values must not change, as indices of the last axis."""

    def find(self, name: str) -> MaskedWeight | None:
        """Returns the masked weight of this name, or None if the plan does not mask it."""
        return next((w for w in self.weights if w.weight.name == name), None)

    @property
    def sparsity(self) -> float:
        """Fraction of the entries of `weights` that is masked, in [0, 1]."""
        size = sum(w.mask.size for w in self.weights)
        return sum(int((~w.mask).sum()) for w in self.weights) / size if size else 0.0
