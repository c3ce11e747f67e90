"""The words of the house: what a weight is, what is held of it, and what a strategy may do.

NumPy only. TensorFlow and Keras are imported inside the functions that compute with them, so a
configuration can be checked, and a strategy can refuse, before either is loaded.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Mask = NDArray[np.bool_]


class Invalid(ValueError):
    """A value that is not allowed: which key, what it was, and what is allowed there."""

    def __init__(self, key: str, value: object, allowed: str) -> None:
        super().__init__(f"{key}={value}: {allowed}")
        self.key, self.value, self.allowed = key, value, allowed

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.key, self.value, self.allowed)


def require(condition: bool, key: str, value: object, allowed: str) -> None:
    """Raise `Invalid` unless `condition` holds: the value must be `allowed`."""
    if not condition:
        raise Invalid(key, value, f"must be {allowed}")


def variable_of(name: str) -> str:
    """The variable's part of a weight's name: `kernel` of `layer/kernel` and `layer/kernel#1`."""
    return name.rsplit("/", 1)[-1].partition("#")[0]


@dataclass(frozen=True)
class Weight:
    """One trainable weight of a model, by what can be known without its values."""

    name: str
    """`layer/variable`, with the outer layers' names in front where layers are nested; the second
    of one name is `layer/variable#1`."""
    shape: tuple[int, ...]
    dtype: str
    layer: str
    """The class of its layer, such as `Dense`."""
    output: bool = False
    """Entry `c` of the last axis acts on the model's output `c` and on no other."""
    mixed: str = ""
    """Why not, of a weight of the output layer."""
    regularized: bool = False
    constrained: bool = False
    shared: bool = False
    """Another layer uses it too (tied weights)."""

    @property
    def is_kernel(self) -> bool:
        return variable_of(self.name).endswith("kernel")


@dataclass(frozen=True)
class MaskedWeight:
    """A weight, which of its entries train, and what the others must equal."""

    weight: Weight
    mask: Mask
    """Shape of the weight; True = kept (trains), False = masked (held)."""
    held: Array
    """Shape and dtype of the weight; only its entries at `~mask` count."""

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
        """Which outputs (last axis) are kept, if the mask holds whole ones only; else None."""
        flat = self.mask.reshape(-1, self.mask.shape[-1])
        kept: Mask = flat[0] if len(flat) else np.ones(self.mask.shape[-1], bool)
        return kept if bool((flat == kept).all()) else None

    @property
    def holds_zero(self) -> bool:
        return not np.any(self.held[~self.mask])


@dataclass(frozen=True)
class Plan:
    """The masked weights of one model."""

    weights: tuple[MaskedWeight, ...] = ()
    outputs_held: tuple[int, ...] = ()
    """Outputs of the model whose value must not move either, by their index on the last axis."""

    def find(self, name: str) -> MaskedWeight | None:
        return next((w for w in self.weights if w.weight.name == name), None)

    @property
    def sparsity(self) -> float:
        """Fraction of the masked weights' entries that is held."""
        size = sum(w.mask.size for w in self.weights)
        return sum(int((~w.mask).sum()) for w in self.weights) / size if size else 0.0


def match(names: Sequence[str], globs: Sequence[str]) -> list[str]:
    """The names that match any of the globs (`*` also spans `/`), in their own order."""
    return [name for name in names if any(fnmatch.fnmatchcase(name, g) for g in globs)]


def target_names(weights: Sequence[Weight], targets: Sequence[str] | None) -> list[str]:
    """The names of the targeted weights: by globs, or every kernel but the last.

    Raises `Invalid` if a glob, or the default, finds none.
    """
    if targets is None:
        found = [w.name for w in weights if w.is_kernel][:-1]
        known = ", ".join(w.name for w in weights)
        if not found:
            raise Invalid("targets", "null", f"no kernel but the last; the weights are {known}")
        return found
    require(bool(targets), "targets", list(targets), "at least one glob")
    return match_each("targets", [w.name for w in weights], targets)


def match_each(key: str, names: Sequence[str], globs: Sequence[str]) -> list[str]:
    """As `match`. Raises `Invalid` with this key for a glob that matches nothing."""
    for glob in globs:
        if not match(names, [glob]):
            raise Invalid(key, glob, f"matches no weight; the weights are {', '.join(names)}")
    return match(names, globs)


def _first(value: Any, *_: Any) -> Any:
    return value


def one_value(held: Array, m: Any = None) -> Array:
    """What all entries are held at, as a scalar; `held` where that is not one value.

    One value for all is a view of that value (`numpy.broadcast_to`). As a scalar it is not read
    from memory once more for each entry, at each step.
    """
    one = held.size > 0 and not any(held.strides)
    return held[(slice(1),) * held.ndim].reshape(()) if one else held


def _pair(value: Any, slots: Any, *_: Any) -> Any:
    return value, slots


@dataclass(frozen=True)
class Slot:
    """One optimizer variable of a trained variable's shape."""

    value: Any
    """The slot now, of the trained variable's shape."""
    fresh: Any
    """The same slot as the optimizer builds it: of the same shape, or a scalar."""


@dataclass(frozen=True)
class Binding:
    """What a strategy does to one masked weight, as pure functions over arrays.

    Legend: `w` the dense weight, `v` the values that train, `m` the layout of the mask, `h` what is
    kept of the held values, `g` the gradient of `v`, `y` the model's outputs `[batch, outputs]`.
    Masks and held values are arguments, so that one compiled program serves every mask of a shape.
    A field left out is the identity.
    """

    layout: Callable[[Mask], Array] = _first
    """mask -> `m`, computed once with NumPy; its shape must depend on the mask's counts only."""
    keep: Callable[[Array, Array], Array] = one_value
    """(held values of the weight's shape, m) -> `h`, computed once with NumPy; its shape must
    depend on the mask's counts only, and on whether there is `one_value`, the default."""
    init: Callable[[Any, Any, Any], Any] = _first
    """(w, m, h) -> v"""
    substitute: Callable[[Any, Any, Any], Any] = _first
    """(v, m, h) -> what the forward pass uses in place of the weight."""
    effective: Callable[[Any, Any, Any], Any] | None = None
    """(v, m, h) -> the dense weight that this amounts to; by default `substitute`."""
    dense_call: Callable[[Any, Any, Any, Any, Any], Any] | None = None
    """(layer, inputs, v, m, h) -> what a Dense layer with a masked kernel computes, in place of its
    own `call`, which computes with `substitute`."""
    outputs: Callable[[Any, Any], Any] = _first
    """(y, m) -> the outputs on their way to the loss; called for weights of the output layer."""
    gradients: Callable[[Any, Any], Any] = _first
    """(g, m) -> g, before the optimizer; `g` is dense."""
    slices: bool = False
    """Hand `tf.IndexedSlices` to the optimizer as they are, without `gradients`."""
    after_step: Callable[[Any, Sequence[Slot], Any, Any], tuple[Any, Sequence[Any]]] | None = None
    """(v, slots, m, h) -> (v, the slots' values); after the optimizer, and after its finalizing."""

    def constants(self, of: MaskedWeight) -> tuple[Array, Array]:
        """(m, h) of a masked weight. What has them in the same shapes needs no other program."""
        m = self.layout(of.mask)
        return m, self.keep(of.held, m)

    def dense(self, v: Any, m: Any, h: Any) -> Any:
        """The effective weight, `[shape of w]`."""
        return (self.effective or self.substitute)(v, m, h)


class Strategy:
    """A way to hold masked weights: a frozen value (its knobs) that binds to pure functions.

    Subclasses are frozen dataclasses in a module of their own. Their fields are their settings.
    """

    name: ClassVar[str]
    role: ClassVar[Literal["strategy", "control", "dense"]] = "strategy"
    """`control` must be seen to fail the audit; `dense` holds nothing, so takes no plan."""
    xla: ClassVar[bool] = True
    """Whether its training step compiles under XLA."""

    def refuses(self, plan: Plan) -> str | None:
        """Why this strategy cannot hold the plan, or None. From shapes, kinds and masks alone."""
        return None

    def bind(self) -> Binding:
        raise NotImplementedError
