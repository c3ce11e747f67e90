"""The checks that every kind of held values must pass."""

from __future__ import annotations

import numpy as np

from masksweep.strategies.held import Held
from masksweep.strategies.plan import Array
from masksweep.strategies.testing.require import require


def check_held(held: Held) -> None:
    """Checks that held values fit the weights, and are the same in each call.

    Args:
        held: The kind of held values to check.

    Raises:
        AssertionError: A check failed.

    Example:
        >>> from masksweep.strategies.held.constant import Constant
        >>> check_held(Constant(0.5))
    """
    initial = _initial()
    values_by_name, again = held.values(initial), held.values(_initial())
    require(
        list(values_by_name) == list(initial),
        f"values of {list(values_by_name)} for {list(initial)}",
    )
    for name, values in values_by_name.items():
        expected = initial[name]
        require(values.shape == expected.shape, f"those of {name} have the shape {values.shape}")
        require(values.dtype == expected.dtype, f"those of {name} are {values.dtype}")
        require(bool(np.isfinite(values).all()), f"those of {name} are not all finite")
        require(np.array_equal(values, again[name]), f"those of {name} differ the second time")
    for name, values in _initial().items():
        require(np.array_equal(values, initial[name]), f"it changes the initial values of {name}")


def _initial() -> dict[str, Array]:
    generator = np.random.default_rng(0)
    shapes = {"a/kernel": (3, 3, 4, 8), "b/kernel": (6, 5), "b/bias": (5,)}
    return {name: generator.normal(size=s).astype("float32") for name, s in shapes.items()}
