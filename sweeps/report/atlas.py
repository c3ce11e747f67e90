"""What the leak atlas found, as an order of strategies: the first holds in most of its cells."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Held:
    """In how many cells of the atlas a strategy was tried, and in how many it held bit for bit."""

    tried: int
    """Cells that the strategy takes: it refuses the others."""
    exact: int


FOUND: dict[str, Held] = {
    "weight_mask": Held(324, 324),
    "projection": Held(324, 324),
    "hard_mask": Held(324, 324),
    "sparse_values": Held(270, 270),
    "var_list": Held(270, 270),
    "sparse_tensor": Held(84, 84),
    "sparse_tensor(format=lookup)": Held(84, 84),
    "row_lookup": Held(324, 192),
    "gradient_mask": Held(324, 190),
    "loss_mask": Held(324, 187),
    "weight_mask(form=product)": Held(108, 6),
}
"""By a strategy's label, from `.assets/leak_atlas.html` (`+experiment=leak_atlas`). The order is
that of `rank`; where the figures of two are alike, it is fixed here."""


def rank(label: str) -> int:
    """The place of a strategy, 0 for the one that holds in most cells.

    First by the part of the cells that it takes in which it holds, then by how many it takes, then
    as listed. What the atlas does not know comes last.

    Args:
        label: As `Trial.label`, for example `weight_mask(form=product)`.
    """
    order = sorted(FOUND, key=lambda k: (-FOUND[k].exact / FOUND[k].tried, -FOUND[k].tried))
    return order.index(label) if label in FOUND else len(order)
