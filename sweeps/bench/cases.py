"""What is timed: which networks, strategies and patterns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import product
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from masksweep.strategies.base import Strategy
from masksweep.strategies.patterns import Pattern
from masksweep.strategies.patterns.block import Block
from masksweep.strategies.patterns.columns import Columns
from masksweep.strategies.patterns.n_m import NM
from masksweep.strategies.patterns.random import Random
from masksweep.strategies.patterns.rows import Rows
from masksweep.strategies.registry import STRATEGIES

OUTPUTS = 10
BATCH = 128
SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.99)
OF_OUTPUTS = ("loss_mask",)
"""Strategies that hold weights of the output layer only."""
UNITS = ("hidden_*",)
"""Targets of whole units: their biases are held with the columns of their kernels."""
OF_UNITS = ("var_list",)
"""Strategies that compute less for a unit that is held whole."""


@dataclass(frozen=True)
class Size:
    """A network of Dense layers; `OUTPUTS` logits come after the hidden ones."""

    name: str
    inputs: int
    hidden: tuple[int, ...]
    block: int
    """Side of the blocks of pattern `block`."""

    @property
    def widths(self) -> tuple[int, ...]:
        return (self.inputs, *self.hidden, OUTPUTS)


SIZES = {
    size.name: size
    for size in (
        Size("S", 784, (300, 100), 4),
        Size("M", 1024, (1024, 1024), 32),
        Size("L", 4096, (4096, 4096), 32),
    )
}


@dataclass(frozen=True)
class Case:
    """One strategy on one kind of mask."""

    size: Size
    strategy: Strategy
    pattern: Pattern
    sparsity: float
    targets: tuple[str, ...] | None = None
    """As a trial's; None masks every kernel but the last."""

    @property
    def format(self) -> str:
        """The strategy's variant, such as `coo`; `-` where it has one only."""
        found = [str(getattr(self.strategy, key)) for key in _choices(type(self.strategy))]
        found += ["with biases"] * (self.targets == UNITS)
        return " ".join(found) or "-"

    @property
    def label(self) -> dict[str, Any]:
        """What a row of the results says of the case."""
        return {
            "size": self.size.name,
            "strategy": self.strategy.name,
            "format": self.format,
            "pattern": self.pattern.name,
            "sparsity": self.sparsity,
        }


def cases(size: Size, kinds: Sequence[type[Strategy]], given: Sequence[float]) -> list[Case]:
    """Every strategy in each of its variants, on the masks that can change its time.

    Where masks enter as values of the weights' own shapes the time does not depend on them: random
    ones alone are timed. Loads TensorFlow.
    """
    found = []
    for strategy in (s for kind in kinds for s in variants(kind)):
        targets = ("output/*",) if strategy.name in OF_OUTPUTS else None
        for sparsity in given:
            for pattern in _patterns(strategy, size, sparsity):
                found.append(Case(size, strategy, pattern, sparsity, targets))
            if strategy.name in OF_UNITS and sparsity > 0.5:  # or it computes all
                found.append(Case(size, strategy, Columns(sparsity), sparsity, UNITS))
    return found


def variants(kind: type[Strategy]) -> Iterator[Strategy]:
    """The strategy with each combination of its settings that are choices."""
    choices = _choices(kind)
    for values in product(*choices.values()):
        yield kind(**dict(zip(choices, values, strict=True)))


def _choices(kind: type[Strategy]) -> dict[str, tuple[str, ...]]:
    hints = get_type_hints(kind)
    named = {f.name: hints[f.name] for f in fields(kind)}  # type: ignore[arg-type]
    return {name: get_args(hint) for name, hint in named.items() if get_origin(hint) is Literal}


def _patterns(strategy: Strategy, size: Size, sparsity: float) -> list[Pattern]:
    if strategy.name in OF_OUTPUTS:
        return [Columns(sparsity)] if round(sparsity * OUTPUTS) < OUTPUTS else []
    if strategy.role == "dense" or _by_values(strategy):
        return [Random(sparsity)]
    found: list[Pattern] = [Random(sparsity), Rows(sparsity), Columns(sparsity)]
    found.append(Block(sparsity, (size.block, size.block)))
    return [*found, NM(2, 4)] if sparsity == 0.5 else found


def _by_values(strategy: Strategy) -> bool:
    mask = np.ones((2, 2), bool)
    return strategy.bind().layout(mask) is mask


def known() -> dict[str, type[Strategy]]:
    """The strategies that can be timed; the dense control always is."""
    return {name: kind for name, kind in STRATEGIES.items() if kind.role != "dense"}
