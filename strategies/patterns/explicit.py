"""The `explicit` pattern: masks that are written out in the config."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from masksweep.strategies.errors import Invalid, require
from masksweep.strategies.patterns.base import Pattern, Shapes
from masksweep.strategies.plan import Mask
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Explicit(Pattern):
    """Masks written out as nested lists of 0 and 1, by weight name.

    1 means kept (trains), 0 means masked (held). The seed is ignored.

    Raises:
        Invalid: No mask is given.

    Example:
        >>> pattern = Explicit({"hidden/kernel": [[0, 1], [1, 0]]})
        >>> pattern.masks({"hidden/kernel": (2, 2)}, seed=0)["hidden/kernel"].tolist()
        [[False, True], [True, False]]
    """

    name: ClassVar[str] = "explicit"
    mask: Any = field(default=None)
    """Nested lists by weight name, or nested lists alone if only one weight is targeted."""

    def __post_init__(self) -> None:
        require(self.mask is not None, "mask", None, "nested lists of 0 and 1, by weight name")

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        lists = self.mask
        if not isinstance(lists, dict):
            names = list(shapes)
            require(
                len(names) == 1,
                "mask",
                "a bare list",
                f"lists by weight name, for {', '.join(names)}",
            )
            lists = {names[0]: lists}
        unknown = [n for n in lists if n not in shapes]
        require(not unknown, "mask", unknown, f"among the targeted weights {', '.join(shapes)}")
        missing = [n for n in shapes if n not in lists]
        require(
            not missing, "mask", list(lists), f"a mask for each target, also {', '.join(missing)}"
        )
        return {n: to_mask(lists[n], shapes[n], f"mask of {n}") for n in shapes}


def to_mask(values: Any, shape: tuple[int, ...], key: str) -> Mask:
    """Makes a boolean mask from numbers 0 and 1, or from an adjacency matrix.

    Args:
        values: Nested lists or an array of 0 and 1, or of booleans. Or a DataFrame or a SciPy
            sparse matrix, of which each entry that is not 0 is kept.
        shape: Shape that the mask must have.
        key: What the mask is called in the message.

    Returns:
        The mask.

    Raises:
        Invalid: The values have another shape, or are not all numbers that a mask can have.
    """
    # pandas and SciPy are not imported: these methods tell their classes from arrays
    is_sparse, is_frame = hasattr(values, "toarray"), hasattr(values, "to_numpy")
    if is_sparse:
        _check_shape(key, values.shape, shape)  # before `toarray`, which could fill the memory
        values = values.toarray()
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise Invalid(key, "ragged lists", f"must be of shape {list(shape)}") from error
    _check_shape(key, array.shape, shape)
    if is_frame and array.dtype == object:  # its columns have several dtypes
        with suppress(TypeError, ValueError):
            array = array.astype(np.float64)
    if array.dtype == np.bool_:
        return array
    numeric = array.dtype.kind in "buif"
    if is_sparse or is_frame:
        invalid = array[np.isnan(array)] if numeric else array.ravel()
        allowed = "numbers or booleans, of which 0 and False are masked"
    else:
        invalid = array[(array != 0) & (array != 1)] if numeric else array.ravel()
        allowed = "0 and 1 only"
    require(not invalid.size, key, invalid[:3].tolist(), allowed)
    return array.astype(bool)


def _check_shape(key: str, found: tuple[int, ...], shape: tuple[int, ...]) -> None:
    require(tuple(found) == shape, key, f"shape {list(found)}", f"of shape {list(shape)}")
