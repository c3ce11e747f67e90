"""The documented behaviour of a strategy, as input of its checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import keras

from masksweep.strategies.base import Strategy
from masksweep.strategies.core.weights import describe, make_plan, values
from masksweep.strategies.held import Held
from masksweep.strategies.held.constant import Constant
from masksweep.strategies.held.init import Init
from masksweep.strategies.held.zero import Zero
from masksweep.strategies.patterns import Pattern
from masksweep.strategies.patterns.random import Random
from masksweep.strategies.plan import Array, Plan, Weight, collapse_constant
from masksweep.strategies.testing.networks import network
from masksweep.strategies.testing.trial import Trial

OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "sgd": lambda: keras.optimizers.SGD(0.1),
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
}
"""The optimizers that each strategy is checked with."""
HELD: dict[str, Held] = {"zero": Zero(), "constant": Constant(0.5), "init": Init()}
"""The held values that each strategy is checked with."""
Leak = Literal["bits", "values"]
"""How a documented leak is visible: only in the sign of a zero (`bits`), or in the values."""


@dataclass(frozen=True, eq=False)
class Case:
    """A strategy with its documented behaviour: what it refuses, and where it leaks.

    Example:
        >>> from masksweep.strategies.weight_mask import WeightMask
        >>> Case(WeightMask()).strategy.name
        'weight_mask'
    """

    strategy: Strategy
    pattern: Pattern = field(default_factory=lambda: Random(0.5))
    """A pattern that the strategy can hold."""
    targets: Sequence[str] = ("masked/kernel",)
    """Weights of `network` that the strategy can hold."""
    leaks: Mapping[tuple[str, str], Leak] = field(default_factory=dict)
    """The documented leaks, by (key of `OPTIMIZERS`, key of `HELD`)."""
    averages_leak: bool = False
    """Whether a leak is documented for optimizers that average the weights (`use_ema`)."""
    refuses: Mapping[str, str] = field(default_factory=dict)
    """Words of the reason for each key of `HELD` or `SITUATIONS` that the strategy must refuse."""

    @property
    def holds(self) -> bool:
        """Whether the strategy holds zero bit for bit under SGD."""
        return ("sgd", "zero") not in self.leaks

    def plan(
        self,
        model: Any,
        held: str = "zero",
        *,
        seed: int = 0,
        targets: Sequence[str] | None = None,
        pattern: Pattern | None = None,
    ) -> Plan:
        """Makes a plan for a model.

        Args:
            model: A built Keras model.
            held: A key of `HELD`.
            seed: Seed of the masks.
            targets: Names of the weights to mask; by default those of the case.
            pattern: Pattern of the masks; by default that of the case.

        Returns:
            The plan.
        """
        return self._plan(
            describe(model), values(model), held, seed, targets=targets, pattern=pattern
        )

    def _plan(
        self,
        weights: Sequence[Weight],
        start: Mapping[str, Array],
        held: str,
        seed: int,
        targets: Sequence[str] | None = None,
        pattern: Pattern | None = None,
    ) -> Plan:
        return make_plan(
            weights,
            start,
            masks=(pattern or self.pattern).from_weights,
            held=HELD[held].values,
            targets=targets or self.targets,
            seed=seed,
        )

    def begin(
        self, optimizer: str, held: str = "zero", *, seed: int = 0, jit: bool = False
    ) -> Trial:
        """Returns a trial on `network`, at its start. All checks share one compiled program.

        Args:
            optimizer: A key of `OPTIMIZERS`.
            held: A key of `HELD`.
            seed: Seed of the masks.
            jit: Whether to compile the step with XLA.

        Returns:
            The trial. It is valid until the next call with the same optimizer.
        """
        trial = _compiled(self, optimizer, held if self.needs_program(held) else "zero", jit)
        return trial.begin(self._plan(*_network_weights(), held=held, seed=seed))

    def needs_program(self, held: str) -> bool:
        """Returns whether a held value needs a program of its own, not that of zero.

        An array of held values has another shape than a scalar.

        Args:
            held: A key of `HELD`.
        """
        return held == "init" and self.strategy.bind().keep is collapse_constant


@cache
def _network_weights() -> tuple[tuple[Weight, ...], dict[str, Array]]:
    """Returns the weights of `network` and their initial values; both are always the same."""
    model = network()
    return tuple(describe(model)), values(model)


@cache
def _compiled(case: Case, optimizer: str, held: str, jit: bool) -> Trial:
    model = network()
    plan = case.plan(model, held)
    return Trial(case.strategy, model, plan, OPTIMIZERS[optimizer](), jit=jit)
