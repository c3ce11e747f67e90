"""The checks that every pattern must pass."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np

from masksweep.strategies.patterns import Pattern
from masksweep.strategies.patterns.base import Shapes
from masksweep.strategies.plan import Mask
from masksweep.strategies.testing.require import require

SHAPES: Shapes = {"a/kernel": (24, 36), "b/kernel": (24, 36)}
"""Default shapes of the weights that patterns are checked with."""


def pattern_checks(
    pattern: Pattern, shapes: Shapes = SHAPES, *, seeded: bool = True
) -> dict[str, Callable[[], None]]:
    """Returns the checks of a pattern by name, for example for `pytest.mark.parametrize`.

    Args:
        pattern: The pattern to check.
        shapes: Shapes by weight name, for which the pattern can make masks.
        seeded: Whether the masks depend on the seed.

    Returns:
        Functions without arguments, each of which raises `AssertionError` if its check fails.
    """
    checks: dict[str, Callable[[], None]] = {
        "fits the weights": partial(fits, pattern, shapes),
        "is the same again": partial(is_the_same_again, pattern, shapes),
        "is the same in another process": partial(is_the_same_elsewhere, pattern, shapes),
    }
    if seeded:
        checks["depends on the seed"] = partial(depends_on_the_seed, pattern, shapes)
    return checks


def check_pattern(pattern: Pattern, shapes: Shapes = SHAPES, *, seeded: bool = True) -> None:
    """Checks that the masks of a pattern fit, and are the same for a seed in each call and process.

    Args:
        pattern: The pattern to check.
        shapes: Shapes by weight name, for which the pattern can make masks.
        seeded: Whether the masks depend on the seed.

    Raises:
        AssertionError: A check failed. The name of the check is a note of the exception.

    Example:
        >>> from masksweep.strategies.patterns.columns import Columns
        >>> check_pattern(Columns(0.5))  # doctest: +SKIP
    """
    for name, check in pattern_checks(pattern, shapes, seeded=seeded).items():
        try:
            check()
        except Exception as error:
            error.add_note(f"check of {pattern.name}: {name}")
            raise


def fits(pattern: Pattern, shapes: Shapes) -> None:
    """Checks that each weight gets a mask of its shape, in the order of the weights."""
    masks = pattern.masks(shapes, 0)
    require(list(masks) == list(shapes), f"masks of {list(masks)} for {list(shapes)}")
    for name, mask in masks.items():
        require(mask.dtype == bool, f"the mask of {name} is {mask.dtype}, not bool")
        require(mask.shape == shapes[name], f"the mask of {name} has the shape {mask.shape}")


def is_the_same_again(pattern: Pattern, shapes: Shapes) -> None:
    """Checks that a seed gives the same masks again.

    The pattern must neither use nor change the global random state of NumPy.
    """
    state = np.random.get_state()  # noqa: NPY002
    try:
        np.random.seed(1)  # noqa: NPY002
        expected = np.random.random_sample()  # noqa: NPY002
        np.random.seed(1)  # noqa: NPY002
        first = _as_bytes(pattern.masks(shapes, 7))
        require(np.random.random_sample() == expected, "it draws from numpy.random")  # noqa: NPY002
        np.random.seed(2)  # noqa: NPY002
        require(first == _as_bytes(pattern.masks(shapes, 7)), "the masks differ")
    finally:
        np.random.set_state(state)  # noqa: NPY002


def is_the_same_elsewhere(pattern: Pattern, shapes: Shapes) -> None:
    """Checks that another process gets the same masks.

    It fails for masks that use `hash()`, whose results differ between processes.
    """
    masks = _as_bytes(pattern.masks(shapes, 7))
    before = os.environ.get("PYTHONHASHSEED")
    os.environ["PYTHONHASHSEED"] = "1" if before == "2" else "2"
    try:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            other_masks = _as_bytes(pool.submit(pattern.masks, shapes, 7).result())
    finally:
        if before is None:
            del os.environ["PYTHONHASHSEED"]
        else:
            os.environ["PYTHONHASHSEED"] = before
    require(masks == other_masks, "the masks differ in another process")


def depends_on_the_seed(pattern: Pattern, shapes: Shapes) -> None:
    """Checks that two seeds give different masks, and two weights of one shape do too."""
    masks, others = pattern.masks(shapes, 1), pattern.masks(shapes, 2)
    require(_as_bytes(masks) != _as_bytes(others), "two seeds give the same masks")
    alike = [m.tobytes() for n, m in masks.items() if shapes[n] == next(iter(shapes.values()))]
    require(len(alike) == 1 or len(set(alike)) > 1, "weights of one shape share a mask")


def _as_bytes(masks: Mapping[str, Mask]) -> dict[str, bytes]:
    return {name: mask.tobytes() for name, mask in masks.items()}
