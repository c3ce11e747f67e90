"""The base class of all kinds of held values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from masksweep.strategies.errors import require
from masksweep.strategies.plan import Array


class Held:
    """Base class of all kinds of held values: the values that masked entries must keep.

    A subclass is a frozen dataclass with a `name`, in a module of its own. Its fields are its
    settings. `masksweep.strategies.register` makes it known to configs by its name.

    Example:
        >>> import numpy as np
        >>> from masksweep.strategies.held.constant import Constant
        >>> Constant(0.5).values({"hidden/bias": np.zeros(2, "float32")})
        {'hidden/bias': array([0.5, 0.5], dtype=float32)}
    """

    name: ClassVar[str]
    """The name in configs: lower-case letters, digits and underscores."""

    def values(self, initial: Mapping[str, Array]) -> dict[str, Array]:
        """Returns the held values.

        If all entries of a weight have the same held value by definition, the array must be a view
        of this one value, made by `numpy.broadcast_to`. Then a step reads it as a scalar.

        Args:
            initial: The weights before training, by name.

        Returns:
            Held values by name, in the order, shapes and dtypes of `initial`.
        """
        raise NotImplementedError


def as_finite(name: str, values: Array, dtype: Any) -> Array:
    """Returns held values in the dtype of their weight.

    Args:
        name: Name of the weight.
        values: The held values.
        dtype: The weight's dtype.

    Raises:
        Invalid: A value is not finite, or too large for the dtype.
    """
    with np.errstate(over="ignore"):
        held: Array = values.astype(dtype)
    finite = bool(np.isfinite(held).all())
    require(finite, name, "values", f"finite numbers that a {dtype} can hold")
    return held
