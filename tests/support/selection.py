"""A selection of cases that runs by default. The others are marked slow."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def by_default(chosen: Collection[Any], cases: Iterable[Any]) -> list[Any]:
    """Returns all cases for `pytest.mark.parametrize`: the chosen ones, and the others as slow.

    Args:
        chosen: The cases that run by default.
        cases: All cases: a value, or a tuple of values, for each.
    """
    listed = list(cases)
    assert all(case in listed for case in chosen), "a chosen case is not there"
    return [case if case in chosen else slow(case) for case in listed]


def slow(case: Any) -> Any:
    """Returns a case, a value or a tuple of values, that is marked slow."""
    values = case if isinstance(case, tuple) else (case,)
    return pytest.param(*values, marks=pytest.mark.slow)
