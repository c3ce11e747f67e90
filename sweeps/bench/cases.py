"""The cases that a bench times: networks, strategies and mask patterns."""

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
from masksweep.strategies.plan import MaskedWeight, Plan, Weight
from masksweep.strategies.registry import STRATEGIES

OUTPUTS = 10
BATCH_SIZE = 128
SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.99)
UNIT_TARGETS = ("hidden_*",)
"""Targets with which a mask covers whole units: a kernel's column together with its bias."""
HIDDEN_KERNEL = Weight("hidden_0/kernel", (4, 4), "float32", "Dense")
HIDDEN_BIAS = Weight("hidden_0/bias", (4,), "float32", "Dense")


@dataclass(frozen=True)
class Size:
    """The size of a network of Dense layers. Its last layer has `OUTPUTS` logits."""

    name: str
    inputs: int
    hidden: tuple[int, ...]
    block: int
    """Side length of the square blocks of pattern `block`, in entries."""

    @property
    def layer_widths(self) -> tuple[int, ...]:
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
    """One strategy on masks of one pattern and sparsity, for a network of one size."""

    size: Size
    strategy: Strategy
    pattern: Pattern
    sparsity: float
    targets: tuple[str, ...] | None = None
    """Glob patterns of the masked weights, as in a trial; None masks all kernels but the last."""

    @property
    def format(self) -> str:
        """The strategy's variant, such as `coo`; `-` if it has only one."""
        choices = [str(getattr(self.strategy, key)) for key in _choices(type(self.strategy))]
        choices += ["with biases"] * (self.targets == UNIT_TARGETS)
        return " ".join(choices) or "-"

    @property
    def label(self) -> dict[str, Any]:
        """The fields of a result row that identify the case."""
        return {
            "size": self.size.name,
            "strategy": self.strategy.name,
            "format": self.format,
            "pattern": self.pattern.name,
            "sparsity": self.sparsity,
        }


def cases(size: Size, kinds: Sequence[type[Strategy]], sparsities: Sequence[float]) -> list[Case]:
    """Returns every strategy in each of its variants, on the patterns that can change its time.

    The time of a strategy that uses the mask as a plain tensor of the weight's shape does not
    depend on the pattern, so such a strategy is timed with random masks only. Loads TensorFlow.

    Args:
        size: The network.
        kinds: Strategy classes.
        sparsities: Sparsities to time, each in (0, 1).
    """
    timed_cases = []
    for strategy in (variant for kind in kinds for variant in variants(kind)):
        targets = None if _can_hold(strategy, HIDDEN_KERNEL) else ("output/*",)
        units = not _takes_plain_mask(strategy) and _can_hold(strategy, HIDDEN_KERNEL, HIDDEN_BIAS)
        for sparsity in sparsities:
            for pattern in _patterns(strategy, size, sparsity, targets):
                timed_cases.append(Case(size, strategy, pattern, sparsity, targets))
            if units and sparsity > 0.5:  # at 0.5 little is saved
                timed_cases.append(Case(size, strategy, Columns(sparsity), sparsity, UNIT_TARGETS))
    return timed_cases


def variants(kind: type[Strategy]) -> Iterator[Strategy]:
    """Yields the strategy with each combination of its `Literal` settings."""
    choices = _choices(kind)
    for values in product(*choices.values()):
        yield kind(**dict(zip(choices, values, strict=True)))


def _choices(kind: type[Strategy]) -> dict[str, tuple[str, ...]]:
    all_hints = get_type_hints(kind)
    hints = {f.name: all_hints[f.name] for f in fields(kind)}  # type: ignore[arg-type]
    return {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Literal}


def _can_hold(strategy: Strategy, *weights: Weight) -> bool:
    """Whether the strategy can hold whole columns of these weights, or whole rows, at zero."""
    for axis in (0, -1):
        masked = []
        for weight in weights:
            mask = np.ones(weight.shape, bool)
            np.moveaxis(mask, axis, 0)[0] = False
            masked.append(MaskedWeight(weight, mask, np.zeros(weight.shape, weight.dtype)))
        if strategy.refuses(Plan(tuple(masked))) is None:
            return True
    return False


def _patterns(
    strategy: Strategy, size: Size, sparsity: float, targets: tuple[str, ...] | None
) -> list[Pattern]:
    if targets:
        return [Columns(sparsity)] if round(sparsity * OUTPUTS) < OUTPUTS else []
    if strategy.role == "dense" or _takes_plain_mask(strategy):
        return [Random(sparsity)]
    patterns: list[Pattern] = [Random(sparsity), Rows(sparsity), Columns(sparsity)]
    patterns.append(Block(sparsity, (size.block, size.block)))
    return [*patterns, NM(2, 4)] if sparsity == 0.5 else patterns


def _takes_plain_mask(strategy: Strategy) -> bool:
    """Whether the strategy computes with the mask itself, not with another layout of it."""
    mask = np.ones((2, 2), bool)
    return strategy.bind().layout(mask) is mask


def timed_strategies() -> dict[str, type[Strategy]]:
    """Returns the strategies that can be timed, by name, without the dense control."""
    return {name: kind for name, kind in STRATEGIES.items() if kind.role != "dense"}
