"""Results of the leak atlas, and the order of strategies that follows from them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CellCounts:
    """Number of cells of the atlas in which a strategy ran, and in which it held bit for bit."""

    tried: int
    """Number of cells that the strategy accepts. It refuses the others."""
    exact: int
    """Number of these cells in which no masked entry changed in any bit."""


RESULTS: dict[str, CellCounts] = {
    "weight_mask": CellCounts(324, 324),
    "projection": CellCounts(324, 324),
    "hard_mask": CellCounts(324, 324),
    "sparse_values": CellCounts(270, 270),
    "var_list": CellCounts(270, 270),
    "sparse_tensor": CellCounts(84, 84),
    "sparse_tensor(format=lookup)": CellCounts(84, 84),
    "row_lookup": CellCounts(324, 192),
    "gradient_mask": CellCounts(324, 190),
    "loss_mask": CellCounts(324, 187),
    "weight_mask(form=product)": CellCounts(108, 6),
}
"""Results by the strategy's label, from `.assets/leak_atlas.html` (`+experiment=leak_atlas`). The
entries are in the order of `rank`. Strategies with equal numbers keep the order of this table."""


def rank(label: str) -> int:
    """Returns the place of a strategy in the order, 0 for the best.

    Strategies are sorted by the fraction of their accepted cells in which they hold, then by the
    number of accepted cells, then by their order in `RESULTS`. A strategy that is not in the atlas
    comes last.

    Args:
        label: The strategy's label as in `Trial.label`, for example `weight_mask(form=product)`.
    """
    order = sorted(RESULTS, key=lambda k: (-RESULTS[k].exact / RESULTS[k].tried, -RESULTS[k].tried))
    return order.index(label) if label in RESULTS else len(order)
