"""Vectors of numbers in the processor's registers, for functions that Numba compiles.

Numba has scalars and arrays, and leaves it to LLVM to find vector instructions. Where a sum must
stay in registers over a whole loop, LLVM does not find them. So a kernel here can compute with a
`Vector`: some neighbours of an array, as one value. LLVM divides a vector into as many registers as
the processor needs for it, whatever their width, so a vector may be wider than a register.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

insert_function: Any = cgutils.get_or_insert_function
struct_proxy: Any = cgutils.create_struct_proxy
FASTMATH = ("reassoc", "contract", "nsz")


def _intrinsic(function: Callable[..., Any]) -> Any:
    """Makes a function of compiled code, from one that returns its types and its instructions."""
    return intrinsic(prefer_literal=True)(function)


class Vector(types.Type):
    """The type of a vector: its number of lanes, and the dtype of each."""

    def __init__(self, dtype: Any, lanes: int) -> None:
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"Vector({dtype}, {lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        number = manager.lookup(kind.dtype).get_value_type()
        super().__init__(manager, kind, ir.VectorType(number, kind.lanes))  # type: ignore[no-untyped-call]


@_intrinsic
def zeros(typing: Any, array: Any, lanes: Any) -> Any:
    """Returns a vector of zeros.

    Args:
        typing: Given by Numba.
        array: An array of the wanted dtype.
        lanes: Number of lanes, a constant.
    """
    vector = Vector(array.dtype, lanes.literal_value)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_constant_null(vector)

    return vector(array, lanes), generate


@_intrinsic
def load(typing: Any, array: Any, start: Any, lanes: Any) -> Any:
    """Returns `array[start : start + lanes]`.

    Args:
        typing: Given by Numba.
        array: An array with one axis.
        start: Index of the first number.
        lanes: Number of lanes, a constant.
    """
    vector = Vector(array.dtype, lanes.literal_value)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        loaded = builder.load(_pointer(context, builder, signature, arguments, vector))
        loaded.align = array.dtype.bitwidth // 8
        return loaded

    return vector(array, types.intp, lanes), generate


@_intrinsic
def store(typing: Any, array: Any, start: Any, vector: Any) -> Any:
    """Sets `array[start : start + lanes]` to a vector.

    Args:
        typing: Given by Numba.
        array: An array with one axis.
        start: Index of the first number.
        vector: The vector.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature, arguments, vector)
        builder.store(arguments[2], pointer).align = array.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@_intrinsic
def multiply_add(typing: Any, total: Any, factor: Any, vector: Any) -> Any:
    """Returns `total + factor * vector`.

    Args:
        typing: Given by Numba.
        total: A vector.
        factor: A number, or a vector.
        vector: A vector.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        added, left, right = arguments
        if not isinstance(factor, Vector):
            left = _broadcast(builder, left, right.type)
        product = builder.fmul(left, right, flags=FASTMATH)
        return builder.fadd(added, product, flags=FASTMATH)

    return total(total, factor, vector), generate


@_intrinsic
def total(typing: Any, vector: Any) -> Any:
    """Returns the sum of the numbers of a vector.

    Args:
        typing: Given by Numba.
        vector: The vector.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = arguments[0].type
        name = f"llvm.vector.reduce.fadd.v{vector.lanes}f{vector.dtype.bitwidth}"
        function = ir.FunctionType(kind.element, [kind.element, kind])
        callee = insert_function(builder.module, function, name)
        start = ir.Constant(kind.element, -0.0)
        return builder.call(callee, [start, arguments[0]], fastmath=FASTMATH)

    return vector.dtype(vector), generate


def _pointer(context: Any, builder: Any, signature: Any, arguments: Any, vector: Any) -> Any:
    """Returns a pointer to the vector that starts at an index of an array."""
    array = struct_proxy(signature.args[0])(context, builder, arguments[0])
    first = builder.gep(array.data, [arguments[1]])
    return builder.bitcast(first, context.get_value_type(vector).as_pointer())


def _broadcast(builder: Any, number: Any, kind: Any) -> Any:
    """Returns a vector that has the number in each lane."""
    undefined, index = ir.Constant(kind, ir.Undefined), ir.IntType(32)
    first = builder.insert_element(undefined, number, ir.Constant(index, 0))
    zeros = ir.Constant(ir.VectorType(index, kind.count), None)
    return builder.shuffle_vector(first, undefined, zeros)
