"""What is documented of a strategy, for its checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import keras

from masksweep.strategies.base import Plan, Strategy, one_value
from masksweep.strategies.core.weights import describe, make_plan, values
from masksweep.strategies.held import Held
from masksweep.strategies.held.constant import Constant
from masksweep.strategies.held.init import Init
from masksweep.strategies.held.zero import Zero
from masksweep.strategies.patterns import Pattern
from masksweep.strategies.patterns.random import Random
from masksweep.strategies.testing.networks import network
from masksweep.strategies.testing.trial import Trial

OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "sgd": lambda: keras.optimizers.SGD(0.1),
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
}
"""The optimizers that a strategy is tried with."""
HELD: dict[str, Held] = {"zero": Zero(), "constant": Constant(0.5), "init": Init()}
"""The held values that a strategy is tried with."""
Leak = Literal["bits", "values"]
"""How a documented leak shows: only in the sign of a zero, or in the values."""


@dataclass(frozen=True, eq=False)
class Case:
    """A strategy and what is documented of it: what it refuses, and where it leaks.

    Example:
        >>> from masksweep.strategies.weight_mask import WeightMask
        >>> Case(WeightMask()).strategy.name
        'weight_mask'
    """

    strategy: Strategy
    pattern: Pattern = field(default_factory=lambda: Random(0.5))
    """A pattern that the strategy takes."""
    targets: Sequence[str] = ("masked/kernel",)
    """Weights of `network` that the strategy takes."""
    leaks: Mapping[tuple[str, str], Leak] = field(default_factory=dict)
    """(optimizer, held value) where it is documented not to hold."""
    averages_leak: bool = False
    """Whether it is documented not to hold an optimizer's averages of the weights (`use_ema`)."""
    refuses: Mapping[str, str] = field(default_factory=dict)
    """Held values and situations that it must refuse, each with some words of its reason."""

    @property
    def holds(self) -> bool:
        """Whether it holds zero bit for bit, under SGD at least."""
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
        """The plan for a model: what of it is masked, and the held values.

        Args:
            model: A built Keras model.
            held: A key of `HELD`.
            seed: The seed of the masks.
            targets: Weights to mask in place of the case's.
            pattern: A pattern in place of the case's.

        Returns:
            The plan.
        """
        return make_plan(
            describe(model),
            values(model),
            masks=(pattern or self.pattern).masks,
            held=HELD[held].values,
            targets=targets or self.targets,
            seed=seed,
        )

    def begin(
        self, optimizer: str, held: str = "zero", *, seed: int = 0, jit: bool = False
    ) -> Trial:
        """A trial on `network`, at its start. All checks share its compiled program.

        Args:
            optimizer: A key of `OPTIMIZERS`.
            held: A key of `HELD`.
            seed: The seed of the masks.
            jit: Whether to compile the step with XLA.

        Returns:
            The trial. It is good until the next call with the same optimizer.
        """
        # held values that differ from entry to entry have another shape, so another program
        each = held == "init" and self.strategy.bind().keep is one_value
        trial = _compiled(self, optimizer, held if each else "zero", jit)
        return trial.begin(self.plan(network(), held, seed=seed))


@cache
def _compiled(case: Case, optimizer: str, held: str, jit: bool) -> Trial:
    model = network()
    plan = case.plan(model, held)
    return Trial(case.strategy, model, plan, OPTIMIZERS[optimizer](), jit=jit)
