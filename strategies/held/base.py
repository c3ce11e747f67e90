"""The base class of held values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from masksweep.strategies.base import Array


class Held:
    """Makes the held values from the weights' values before training."""

    name: ClassVar[str]

    def values(self, initial: Mapping[str, Array]) -> dict[str, Array]:
        """Held values by name, in the shapes and dtypes of `initial`.

        Where it is one value for all, a view of that one (`numpy.broadcast_to`).
        """
        raise NotImplementedError
