"""Names to classes: every strategy and pattern is found by its module, none is listed by hand."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from types import ModuleType
from typing import TypeVar

from strategies.base import Strategy

T = TypeVar("T")
LOADS_TENSORFLOW = ("step", "masked", "forward", "optimizer", "slots", "cause")
"""Modules of this package that import it at their top; none has a strategy."""


def _named_subclasses(package: ModuleType, base: type[T]) -> dict[str, type[T]]:
    for module in pkgutil.iter_modules(package.__path__):
        if module.name not in LOADS_TENSORFLOW:
            importlib.import_module(f"{package.__name__}.{module.name}")
    inside = [c for c in _below(base) if c.__module__.startswith(f"{package.__name__}.")]
    found = [c for c in inside if "name" in vars(c)]
    return {c.name: c for c in sorted(found, key=lambda c: c.name)}  # type: ignore[attr-defined]


def _below(base: type[T]) -> list[type[T]]:
    found = base.__subclasses__()
    return [*found, *(c for sub in found for c in _below(sub))]


@cache
def all_strategies() -> dict[str, type[Strategy]]:
    """Every strategy by name."""
    import strategies as package

    return _named_subclasses(package, Strategy)


@cache
def all_patterns() -> dict[str, type]:
    """Every pattern by name."""
    from strategies import patterns as package

    return _named_subclasses(package, package.Pattern)
