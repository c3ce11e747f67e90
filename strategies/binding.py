"""`Binding`: the functions that a strategy consists of.

This module imports NumPy only. The functions of a strategy import TensorFlow themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from masksweep.strategies.plan import Array, Mask, MaskedWeight, collapse_constant


def _first_argument(value: Any, *_: Any) -> Any:
    return value


@dataclass(frozen=True)
class Slot:
    """A variable that an optimizer keeps for a trained variable, such as a moment.

    Example:
        >>> momentum = Slot(value=np.array([0.5, 0.5]), fresh=0.0)
        >>> np.where([True, False], momentum.value, momentum.fresh).tolist()
        [0.5, 0.0]
    """

    value: Any
    """The current value, in the shape of the trained variable."""
    fresh: Any
    """The initial value, as the optimizer builds the slot: in the same shape, or a scalar."""


@dataclass(frozen=True)
class Binding:
    """Pure functions over arrays that define what a strategy does with one masked weight.

    The arguments of the functions:

    - `w`: the dense weight;
    - `v`: the values that train, in any shape that the strategy chooses;
    - `m`: the layout of the mask, by default the mask itself;
    - `h`: the held values, by default a scalar or an array of the weight's shape; see `places`;
    - `g`: the gradient of `v`, in its shape;
    - `y`: the model's outputs, `[batch, outputs]`.

    The mask and the held values are arguments, so one compiled program can be used for all masks
    whose `m` and `h` have the same shapes. By default a function returns its first argument.

    Example:
        >>> from masksweep.strategies.weight_mask import WeightMask
        >>> binding = WeightMask().bind()
        >>> binding.substitute([1.0, 2.0], [True, False], [0.0, 0.0]).numpy()
        array([1., 0.], dtype=float32)
    """

    layout: Callable[[Mask], Array] = _first_argument
    """mask -> `m`, computed once with NumPy. The shape of `m` may depend only on the shape of the
    mask and on how many entries, rows or outputs it keeps."""
    padded: Callable[[Mask, int], Array] | None = None
    """(mask, number of values in `v`) -> `m` of a mask that keeps at most as many entries.

    A strategy gives it if `v` has values of kept entries only, in an order of its own. While the
    masks move, `v` keeps its shape, so nothing is compiled again. The values that are left over
    stand for masked entries: `init` must return them, `substitute`, `effective` and `matmul` must
    ignore them, and so they get no gradient."""
    keep: Callable[[Array, Array], Array] = collapse_constant
    """(held values in the weight's shape, m) -> `h`, computed once with NumPy. The shape of `h` may
    depend on what the shape of `m` may depend on, and on whether `collapse_constant` (the default)
    finds a single value."""
    init: Callable[[Any, Any, Any], Any] = _first_argument
    """(w, m, h) -> `v` at the start of the training."""
    substitute: Callable[[Any, Any, Any], Any] = _first_argument
    """(v, m, h) -> the weight that the forward pass uses, in the shape of `w`."""
    effective: Callable[[Any, Any, Any], Any] | None = None
    """(v, m, h) -> the dense weight that is audited and saved, in the shape of `w`. By default the
    result of `substitute`."""
    matmul: Callable[[Any, Any, Any, Any], Any] | None = None
    """(x, v, m, h) -> `x @ w`, for inputs `x` of `[rows, inputs]` and a kernel `w` as a matrix
    `[inputs, outputs]`. Replaces the layer's own product with the result of `substitute`. The rows
    of a convolution are its windows, as `[window * channels]`."""
    matmul_layers: tuple[str, ...] = ("Dense",)
    """Classes of the layers whose product `matmul` replaces, of those in `MATRIX_LAYERS`."""
    outputs: Callable[[Any, Any], Any] = _first_argument
    """(y, m) -> the outputs that the loss gets. Called for masked weights of the output layer."""
    gradients: Callable[[Any, Any], Any] = _first_argument
    """(g, m) -> the gradient that the optimizer gets. `g` is a dense tensor."""
    places: Callable[[Any, tuple[int, ...]], Any] | None = None
    """(m, shape of `w`) -> the index in the flattened `w` of each entry of `v`, int64; of a value
    that is left over `-1 - index` of a masked entry.

    A strategy gives it if `v` has one value for each kept entry, and it stores nothing for masked
    entries, which are zero. If they are held at +0.0, `h` is then a `tf.TensorSpec` of the weight's
    shape, which has no values, and the mask is in memory as bits. So nothing of the weight's size
    is in memory between two steps. `matmul` should replace the product of each layer that the
    strategy takes; else `substitute` makes the weight in each forward pass."""
    outputs_last: bool = False
    """Whether `w`, `m` and `h` must have all outputs of the layer on their last axis. If they are
    on several, the functions get the weight as a matrix; see `MaskedWeight.with_outputs_last`."""
    slices: bool = False
    """Whether the optimizer gets the gradients unchanged, so that `tf.IndexedSlices` stay sparse.
    `gradients` is not called then."""
    after_step: Callable[[Any, Sequence[Slot], Any, Any], tuple[Any, Sequence[Any]]] | None = None
    """(v, slots, m, h) -> (new `v`, new value of each slot). Called after each step of the
    optimizer, after `optimizer.finalize_variable_values`, and after a change of the mask."""

    def constants(self, of: MaskedWeight, places: int | None = None) -> tuple[Array, Array]:
        """Returns (m, h) of a masked weight. If no `h` is stored, it is an array without entries.

        Masked weights whose constants have the same shapes can use the same compiled program.

        Args:
            of: The weight with its mask and its held values.
            places: Number of values in `v`; by default that of the kept entries.
        """
        of = of.with_outputs_last() if self.outputs_last else of
        if self.padded is None or places is None:
            m = self.layout(of.mask)
        else:
            m = self.padded(of.mask, places)
        if self.places is not None and of.holds_plus_zero:
            return m, np.empty((*of.held.shape, 0), of.held.dtype)
        return m, self.keep(of.held, m)

    def dense(self, v: Any, m: Any, h: Any) -> Any:
        """Returns the dense weight that `v`, `m` and `h` stand for, in the shape of `w`."""
        return (self.effective or self.substitute)(v, m, h)
