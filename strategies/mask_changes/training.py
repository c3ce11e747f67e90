"""The training whose masks change, as this package sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any, Protocol

from masksweep.strategies.core.held_weight import HeldWeight
from masksweep.strategies.core.switching import FreshSlots
from masksweep.strategies.plan import Array, Plan, Weight


class MaskedTraining(Protocol):
    """What changes of the masks need of a training: a `Training`, or a masked Keras model."""

    @property
    def weights(self) -> Sequence[Weight]:
        """The weights of the model."""

    @property
    def values(self) -> Sequence[Any]:
        """The variables with the values that train, in the order of `weights`."""

    @property
    def masked(self) -> Mapping[str, HeldWeight]:
        """How each masked weight is held, by name."""

    @property
    def frozen_weights(self) -> Set[str]:
        """Names of the masked weights that do not train now."""

    @property
    def slots(self) -> Mapping[int, Sequence[tuple[Any, Array]]]:
        """Pairs (slot of the optimizer, its initial value), by the `id` of the variable."""

    def effective(self) -> Sequence[Any]:
        """Returns the dense weights as they are used now, in the order of `weights`."""

    def switch(
        self,
        plan: Plan,
        *,
        weights: Mapping[str, Array] | None = None,
        fresh_slots: FreshSlots = "none",
    ) -> None:
        """Changes the masks; see `TrainingState.switch`."""
