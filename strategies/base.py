"""`Strategy`: the base class of all strategies.

This module imports NumPy only. A strategy imports TensorFlow and Keras inside the functions that
compute with them. So a configuration can be checked, and a strategy can refuse a plan, before
TensorFlow is loaded.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from masksweep.strategies.binding import Binding
from masksweep.strategies.plan import MaskedWeight, Plan


class Strategy:
    """Base class of all strategies: a way to hold masked weights while the other weights train.

    A subclass is a frozen dataclass with a `name`, in a module of its own. Its fields are its
    settings. `masksweep.strategies.register` makes it known to configs by its name.

    Example:
        >>> from dataclasses import dataclass
        >>> import numpy as np
        >>> @dataclass(frozen=True)
        ... class ZeroGradient(Strategy):
        ...     name = "zero_gradient"
        ...
        ...     def bind(self):
        ...         return Binding(gradients=lambda g, m: np.where(m, g, 0))
        >>> ZeroGradient().bind().gradients([0.5, 0.5], [True, False]).tolist()
        [0.5, 0.0]

        A strategy that trains a model uses `tf.where`, and imports TensorFlow inside `bind`.
    """

    name: ClassVar[str]
    """The name in configs: lower-case letters, digits and underscores."""
    role: ClassVar[Literal["strategy", "control", "dense"]] = "strategy"
    """`control`: the audit must find violations, or the audit does not work. `dense`: masks
    nothing, so it has no plan."""
    xla: ClassVar[bool] = True
    """Whether its training step compiles with XLA."""
    follows: ClassVar[Literal["all masks", "equal counts", "nothing"]] = "nothing"
    """Which changes of the masks a `MaskSchedule` may make: all that keep at most as many entries
    of a weight as at the start; those that keep as many; or none."""

    def refuses(self, plan: Plan) -> str | None:
        """Returns the reason why this strategy cannot hold the plan, or None if it can.

        It looks at shapes, kinds of layers, masks and held values. It does not load TensorFlow.
        """
        return None

    def for_weight(self, masked: MaskedWeight, on_gpu: bool | None = None) -> Strategy:
        """Returns the strategy that holds one weight: this one, or a variant that suits its mask.

        The same weight has the same variant on every machine with the same kind of device.

        Args:
            masked: The weight with its mask.
            on_gpu: Whether it trains on a GPU. None: if TensorFlow sees one in this process.
        """
        return self

    def compiles_with_xla(self, plan: Plan, on_gpu: bool | None = None) -> bool:
        """Returns whether its training step compiles with XLA for a plan.

        It may where `xla` is False, if what `for_weight` chooses does.

        Args:
            plan: The masked weights.
            on_gpu: As for `for_weight`.
        """
        if self.xla or not plan.weights:
            return self.xla
        return all(self.for_weight(w, on_gpu).xla for w in plan.weights)

    def for_moving_masks(self, on_gpu: bool | None = None) -> Strategy:
        """Returns the strategy for masks that lose their structure, such as their blocks, as they
        move. By default this strategy.

        Args:
            on_gpu: As for `for_weight`.
        """
        return self

    def choices(self, plan: Plan, on_gpu: bool | None = None) -> dict[str, str]:
        """Returns what `for_weight` chooses for a plan, by setting, as text for the user.

        Args:
            plan: The masked weights.
            on_gpu: As for `for_weight`.
        """
        return {}

    def bind(self) -> Binding:
        """Returns the functions that this strategy consists of.

        Call it for the result of `for_weight`.
        """
        raise NotImplementedError
