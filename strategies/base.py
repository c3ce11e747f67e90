"""The basic types: weights, masked weights, plans, and the base class of strategies.

This module imports NumPy only. A strategy imports TensorFlow and Keras inside the functions that
compute with them. So a configuration can be checked, and a strategy can refuse a plan, before
TensorFlow is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Mask = NDArray[np.bool_]
"""A boolean array of a weight's shape: True = kept (trains), False = masked (held)."""
MATRIX_LAYERS = ("Dense", "EinsumDense", "Conv1D", "Conv2D", "Conv3D")
"""Classes of the layers that can multiply their inputs by their kernel as by a matrix. See
`Weight.not_a_matrix`."""


class Invalid(ValueError):
    """Raised for a value that is not allowed. Its message is `key=value: allowed`.

    Args:
        key: The setting or the weight that has the value.
        value: The value that is not allowed.
        allowed: What is allowed, or why the value is not.
    """

    def __init__(self, key: str, value: object, allowed: str) -> None:
        super().__init__(f"{key}={value}: {allowed}")
        self.key, self.value, self.allowed = key, value, allowed

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.key, self.value, self.allowed)


def require(condition: bool, key: str, value: object, allowed: str) -> None:
    """Checks a value.

    Args:
        condition: Whether the value is allowed.
        key: The setting or the weight that has the value.
        value: The value.
        allowed: What is allowed; the message is `key=value: must be allowed`.

    Raises:
        Invalid: The condition is False.

    Example:
        >>> require(2 >= 3, "rounds", 2, "3 or more")
        Traceback (most recent call last):
        masksweep.strategies.base.Invalid: rounds=2: must be 3 or more
    """
    if not condition:
        raise Invalid(key, value, f"must be {allowed}")


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


@dataclass(frozen=True)
class Weight:
    """Describes one trainable weight of a model, without its values."""

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

    @property
    def columns(self) -> Mask | None:
        """The kept outputs (last axis), as a boolean array `[outputs]`.

        None if an output has kept and masked entries.
        """
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
    """All masked weights of one model."""

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


def _first_argument(value: Any, *_: Any) -> Any:
    return value


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


def _first_two_arguments(value: Any, slots: Any, *_: Any) -> Any:
    return value, slots


@dataclass(frozen=True)
class Slot:
    """A variable that an optimizer keeps for a trained variable, such as a moment."""

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
    masks move, `v` keeps its shape, so that nothing is compiled anew. The values that are left over
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


class Strategy:
    """Base class of all strategies: a way to hold masked weights while the other weights train.

    A subclass is a frozen dataclass with a `name`, in a module of its own. Its fields are its
    settings. `masksweep.strategies.register` makes it known to configs by its name.

    Example:
        >>> @dataclass(frozen=True)
        ... class ZeroGradient(Strategy):
        ...     name = "zero_gradient"
        ...
        ...     def bind(self):
        ...         return Binding(gradients=lambda g, m: np.where(m, g, 0))
        >>> ZeroGradient().bind().gradients([0.5, 0.5], [True, False]).tolist()
        [0.5, 0.0]

        A strategy that trains a model uses `tf.where`, and imports TensorFlow inside `bind`.
    """

    name: ClassVar[str]
    """The name in configs: lower-case letters, digits and underscores."""
    role: ClassVar[Literal["strategy", "control", "dense"]] = "strategy"
    """`control`: the audit must find violations, or the audit does not work. `dense`: masks
    nothing, so it has no plan."""
    xla: ClassVar[bool] = True
    """Whether its training step compiles with XLA."""
    follows: ClassVar[Literal["all masks", "equal counts", "nothing"]] = "nothing"
    """Which changes of the masks a `MaskSchedule` may make: all that keep at most as many entries
    of a weight as at the start; those that keep as many; or none."""

    def refuses(self, plan: Plan) -> str | None:
        """Returns the reason why this strategy cannot hold the plan, or None if it can.

        It looks at shapes, kinds of layers, masks and held values. It does not load TensorFlow.
        """
        return None

    def for_weight(self, masked: MaskedWeight, on_gpu: bool | None = None) -> Strategy:
        """Returns the strategy that holds one weight: this one, or a variant that suits its mask.

        The same weight has the same variant on every machine with the same kind of device.

        Args:
            masked: The weight with its mask.
            on_gpu: Whether it trains on a GPU. None: if TensorFlow sees one in this process.
        """
        return self

    def compiles_with_xla(self, plan: Plan, on_gpu: bool | None = None) -> bool:
        """Returns whether its training step compiles with XLA for a plan.

        It may where `xla` is False, if what `for_weight` chooses does.

        Args:
            plan: The masked weights.
            on_gpu: As for `for_weight`.
        """
        if self.xla or not plan.weights:
            return self.xla
        return all(self.for_weight(w, on_gpu).xla for w in plan.weights)

    def for_moving_masks(self, on_gpu: bool | None = None) -> Strategy:
        """Returns the strategy for masks that lose their structure, such as their blocks, as they
        move. By default this strategy.

        Args:
            on_gpu: As for `for_weight`.
        """
        return self

    def choices(self, plan: Plan, on_gpu: bool | None = None) -> dict[str, str]:
        """Returns what `for_weight` chooses for a plan, by setting, as text for the user.

        Args:
            plan: The masked weights.
            on_gpu: As for `for_weight`.
        """
        return {}

    def bind(self) -> Binding:
        """Returns the functions that this strategy consists of.

        Call it for the result of `for_weight`.
        """
        raise NotImplementedError
