"""Describes each weight of a model: how much of it is masked, how, and what it costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from masksweep.strategies.core.flops import flops
from masksweep.strategies.core.raw_products import Positions
from masksweep.strategies.plan import Plan


@dataclass(frozen=True)
class WeightSummary:
    """How one weight of a masked model is held, and what it costs; or all of several weights."""

    name: str
    shape: tuple[int, ...]
    masked: int
    """Number of masked entries."""
    flops: int | None
    """FLOPs of the dense weight for each sample in the forward pass; None if unknown."""
    masked_flops: int | None
    """The same without the entries that are held at zero."""
    held: str
    """The value of its masked entries, or `values` if they differ. Empty if it is not masked."""
    strategy: str
    """Name of the strategy. Empty if it is not masked."""

    @property
    def size(self) -> int:
        """Number of entries."""
        return prod(self.shape)

    @property
    def density(self) -> float:
        """Fraction of the entries that train, in [0, 1]; 1 for a weight without entries."""
        return (self.size - self.masked) / self.size if self.size else 1.0

    @property
    def sparsity(self) -> float:
        """Fraction of the entries that is masked, in [0, 1]."""
        return self.masked / self.size if self.size else 0.0


def summarize(
    shapes: Mapping[str, tuple[int, ...]],
    plan: Plan,
    strategies: Mapping[str, str],
    counts: Mapping[str, Positions],
) -> list[WeightSummary]:
    """Describes the weights of a model.

    Args:
        shapes: The shape of each weight by name.
        plan: The masked weights.
        strategies: Name of the strategy of each masked weight.
        counts: Positions of each weight, from `masksweep.strategies.core.flops.positions`.

    Returns:
        One entry for each weight, in the order of `shapes`.
    """
    from masksweep.strategies.core.audit import one_if_equal

    entries = []
    for name, shape in shapes.items():
        w, size = plan.find(name), prod(shape)
        cost = flops(counts[name], size)
        if w is None:
            entries.append(WeightSummary(name, shape, 0, cost, cost, "", ""))
            continue
        held = one_if_equal(w.held_values)
        entries.append(
            WeightSummary(
                name=name,
                shape=shape,
                masked=w.masked,
                flops=cost,
                masked_flops=flops(counts[name], size - w.zeros),
                held="values" if held.size > 1 else f"{float(held):.4g}" if held.size else "",
                strategy=strategies[name],
            )
        )
    return entries


def whole(name: str, weights: Iterable[WeightSummary]) -> WeightSummary:
    """Returns the sums over weights under a name; the shape is the number of their entries."""

    def total(counts: Sequence[int | None]) -> int | None:
        return None if None in counts else sum(counts)  # type: ignore[arg-type]

    parts = list(weights)
    return WeightSummary(
        name=name,
        shape=(sum(w.size for w in parts),),
        masked=sum(w.masked for w in parts),
        flops=total([w.flops for w in parts]),
        masked_flops=total([w.masked_flops for w in parts]),
        held="",
        strategy="",
    )
