"""The compiled programs that a process keeps, for other trials of the same shape."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from masksweep.sweeps.training.program_shape import Shape

MAX_KEPT = 16
"""Largest number of programs that a process keeps; the least recently used is dropped first."""

_programs: OrderedDict[Shape, Any] = OrderedDict()


def get_or_build(shape: Shape, make: Callable[[], Any]) -> Any:
    """The program of this shape that the process keeps.

    Args:
        shape: Key of the program.
        make: Builds the program if the process keeps none of this shape.
    """
    if shape not in _programs:
        _programs[shape] = make()
    _programs.move_to_end(shape)
    while len(_programs) > MAX_KEPT:
        _programs.popitem(last=False)
    return _programs[shape]


def drop_program(shape: Shape) -> None:
    """Drops the program of this shape, if the process keeps one."""
    _programs.pop(shape, None)


def programs() -> list[Any]:
    """The programs that the process keeps, the least recently used first."""
    return list(_programs.values())


def clear_programs() -> None:
    """Drops all programs that the process keeps."""
    _programs.clear()


@contextmanager
def without_programs() -> Iterator[None]:
    """Context in which the process starts without programs; at its end it has the earlier ones."""
    saved = dict(_programs)
    _programs.clear()
    try:
        yield
    finally:
        _programs.clear()
        _programs.update(saved)
