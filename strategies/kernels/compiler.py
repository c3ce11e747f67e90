"""How the functions of this package are compiled, and where the machine code is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
from numba import types

Function = TypeVar("Function", bound=Callable[..., Any])
OPTIONS: dict[str, Any] = {
    "nogil": True,  # so that threads run at the same time
    "error_model": "numpy",
    # not "nnan" and "ninf": a training that diverges must give NaN as without masks
    "fastmath": {"reassoc", "contract", "nsz"},
}
INDICES = types.Array(types.int32, 1, "C", readonly=True)
"""Type of an argument: places in an array, `[n]`."""
ROW = types.int64
"""Type of an argument: the index of a row."""


def numbers(dimensions: int, *, result: bool = False) -> Callable[[Any], Any]:
    """Returns the type of an argument: an array of float32 or float64, by its dtype.

    Args:
        dimensions: How many axes it has.
        result: Whether the function writes to it.
    """
    return lambda dtype: types.Array(dtype, dimensions, "C", readonly=not result)


def compiled(*arguments: Any) -> Callable[[Function], Any]:
    """Compiles a function by Numba, for float32 and for float64. The code is cached on disk.

    Numba keeps it beside the module, or in the user's cache folder if that cannot be written. If
    neither can be written, each process compiles for itself, which takes some seconds.

    Many processes may start at once. Numba writes each file in one move, and numbers the files in
    the order of the signatures. All processes compile the same signatures in the same order, so a
    number stands for the same code in each of them.

    Args:
        *arguments: The type of each argument: `INDICES`, `ROW`, or the result of `numbers`.
    """
    signatures = [
        types.void(*(a if isinstance(a, types.Type) else a(dtype) for a in arguments))
        for dtype in (types.float32, types.float64)
    ]

    def compile_function(function: Function) -> Any:
        try:
            result = numba.njit(signatures, cache=True, **OPTIONS)(function)
        except (RuntimeError, OSError):  # no folder can be written, or the disk is full
            result = numba.njit(signatures, **OPTIONS)(function)
        return result

    return compile_function
