"""Findings of an audit for each masked weight; shows them as a table, a line, or JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from masksweep.strategies.core.audit import bits, violations
from masksweep.strategies.plan import Array, Mask, MaskedWeight, Plan, Weight
from masksweep.sweeps.common import tables
from masksweep.sweeps.common.tables import Column
from masksweep.sweeps.common.text import printable

MAX_SHOWN_ENTRIES = 3
"""Number of violating entries of a weight that are shown."""


@dataclass(frozen=True)
class Entry:
    """One violating entry. A NaN or infinity is stored as text, which JSON can hold."""

    index: tuple[int, ...]
    found: float | str
    """Value in the saved model."""
    held: float | str
    """Value that it must have."""


@dataclass(frozen=True)
class Finding:
    """The result of the audit of one weight."""

    weight: str
    shape: tuple[int, ...]
    masked: int
    """Number of masked entries."""
    violations: int
    """Number of masked entries that differ from their held value in any bit."""
    zero_signs: int
    """Number of violations that differ only in the sign of a zero."""
    largest_drift: float
    """Largest distance of a masked entry from its held value; infinite if one is NaN."""
    first: tuple[Entry, ...]
    """The first violating entries, at most `MAX_SHOWN_ENTRIES`."""
    by_place: bool = False
    """Whether the name is only the weight's number in its layer, because the file has no name."""


@dataclass(frozen=True)
class Block:
    """A block of a weight, of its mask (True = kept) and of its held values, in the same shape."""

    start: tuple[int, ...]
    """Index of the first entry of the block in the whole weight."""
    weight: Array
    mask: Mask
    held: Array


def audit_weight(
    name: str, shape: tuple[int, ...], blocks: Iterable[Block], by_place: bool = False
) -> Finding:
    """Audits one masked weight, block by block.

    Args:
        name: Name of the weight.
        shape: Shape of the whole weight.
        blocks: The blocks of the weight, in C order.
        by_place: Whether the weight is named by its number in its layer.
    """
    masked = count = signs = 0
    largest = 0.0
    first: list[Entry] = []
    for block in blocks:
        wrong = ~block.mask & (bits(block.weight) != bits(block.held))
        masked += block.mask.size - int(np.count_nonzero(block.mask))
        if not wrong.any():
            continue
        weight = Weight(name, block.weight.shape, str(block.weight.dtype), "")
        plan = Plan((MaskedWeight(weight, block.mask, block.held),))
        violating, drift = violations({name: block.weight}, plan)
        count += violating
        # only +0 and -0 are equal but have different bits
        signs += int((wrong & (block.weight == block.held)).sum())
        largest = max(largest, drift)
        remaining = MAX_SHOWN_ENTRIES - len(first)
        for position in np.argwhere(wrong)[:remaining] if remaining > 0 else ():
            inner = tuple(int(i) for i in position)
            index = tuple(i + start for i, start in zip(inner, block.start, strict=True))
            first.append(Entry(index, _number(block.weight[inner]), _number(block.held[inner])))
    return Finding(name, shape, masked, count, signs, largest, tuple(first), by_place)


def _number(value: Any) -> float | str:
    if isinstance(value, np.bool_):
        return float(value)
    # by the text of its own dtype: a float32 of 0.1 becomes 0.1, not 0.10000000149011612
    return float(str(value)) if np.isfinite(value) else str(value)


def holds(findings: Sequence[Finding]) -> bool:
    """Returns whether no masked entry differs from its held value in any bit."""
    return not any(f.violations for f in findings)


def verdict(findings: Sequence[Finding]) -> str:
    """Returns the findings as one line of text."""
    masked = sum(f.masked for f in findings)
    wrong, signs = sum(f.violations for f in findings), sum(f.zero_signs for f in findings)
    entries = "entry" if masked == 1 else "entries"
    if not wrong:
        return f"holds: {masked:,} masked {entries}, bit for bit"
    text = f"DOES NOT HOLD: {wrong:,} of {masked:,} masked {entries} "
    text += "differs, " if wrong == 1 else "differ, "
    if signs == wrong:
        return f"{text}in the sign of a zero only"
    text += f"by up to {max(f.largest_drift for f in findings):.3g}"
    return f"{text}; {signs:,} in the sign of a zero only" if signs else text


def naming_note(findings: Sequence[Finding]) -> str:
    """Returns a note on weights that are named by number; empty if there are none."""
    names = [f.weight for f in findings if f.by_place]
    if not names:
        return ""
    return (
        f"{', '.join(names)}: named by position, because the file does not have the names of "
        "variables of layers that are not Keras' own"
    )


def table(findings: Sequence[Finding]) -> Table:
    """Returns the findings as a table for the terminal."""
    columns = [
        Column("weight", wrap=True),
        Column("shape", wrap=True),
        *(Column(header, right=True) for header in ("masked", "violations", "drift")),
        Column("first: found, held", wrap=True),
    ]
    rows = [
        (
            Text(printable(f.weight)),
            " x ".join(map(str, f.shape)) or "scalar",
            f"{f.masked:,}",
            Text(f"{f.violations:,}", "bold red" if f.violations else "green"),
            f"{f.largest_drift:.3g}" if f.violations else "-",
            Text("\n".join(f"{list(e.index)}: {e.found}, {e.held}" for e in f.first) or "-"),
        )
        for f in findings
    ]
    return tables.terminal(columns, rows)


def describe(findings: Sequence[Finding]) -> dict[str, Any]:
    """Returns the findings as plain data, which can be written as JSON."""
    drifts = [f.largest_drift for f in findings]
    return {
        "holds": holds(findings),
        "masked": sum(f.masked for f in findings),
        "violations": sum(f.violations for f in findings),
        "zero_signs": sum(f.zero_signs for f in findings),
        "largest_drift": _number(max(drifts)),
        "weights": [asdict(f) | {"largest_drift": _number(f.largest_drift)} for f in findings],
    }
