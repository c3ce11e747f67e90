"""How the functions of this package are compiled, and where the machine code is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])
OPTIONS: dict[str, Any] = {
    "nogil": True,  # so that threads run at the same time
    "boundscheck": False,
    # not "nnan" and "ninf": a training that diverges must give NaN as without masks
    "fastmath": {"reassoc", "contract", "nsz"},
}


def compiled(function: Function) -> Function:
    """Compiles a function by Numba at its first call. The machine code is cached on disk.

    Numba keeps it beside the module, or in the user's cache folder if that cannot be written, and
    writes each file in one move, so that many processes may start at once. If neither folder can be
    written, each process compiles for itself, which takes a few seconds.
    """
    try:
        result: Function = numba.njit(cache=True, **OPTIONS)(function)
    except RuntimeError:  # no folder can be written
        result = numba.njit(**OPTIONS)(function)
    return result
