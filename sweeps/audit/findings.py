"""What an audit found of each masked weight, as a table, in a line, and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from masksweep.strategies.base import Array, Mask, MaskedWeight, Plan, Weight
from masksweep.strategies.core.audit import bits, violations
from masksweep.sweeps.common import tables
from masksweep.sweeps.common.tables import Column
from masksweep.sweeps.common.text import printable

FIRST = 3
"""How many violating entries of a weight are shown."""


@dataclass(frozen=True)
class Entry:
    """One violating entry. What is no finite number stands as its name, which JSON can hold."""

    index: tuple[int, ...]
    found: float | str
    held: float | str


@dataclass(frozen=True)
class Finding:
    """What was found of one weight. The drift is in its own unit; a NaN's is infinite."""

    weight: str
    shape: tuple[int, ...]
    masked: int
    violations: int
    zero_signs: int
    """Violations that are the sign of a zero, and nothing else."""
    largest_drift: float
    first: tuple[Entry, ...]
    by_place: bool = False
    """Its name is its place in its layer, which is all that the file says."""


@dataclass(frozen=True)
class Block:
    """A part of a weight, of its mask (True trains) and of what it is held at."""

    start: tuple[int, ...]
    """The place of its first entry in the weight."""
    weight: Array
    mask: Mask
    held: Array


def finding(
    name: str, shape: tuple[int, ...], blocks: Iterable[Block], by_place: bool = False
) -> Finding:
    """What was found of one masked weight, block by block."""
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
        # no other values are equal where their bits are not
        signs += int((wrong & (block.weight == block.held)).sum())
        largest = max(largest, drift)
        for place in np.argwhere(wrong)[: FIRST - len(first)] if len(first) < FIRST else ():
            inside = tuple(int(i) for i in place)
            index = tuple(i + start for i, start in zip(inside, block.start, strict=True))
            first.append(Entry(index, _number(block.weight[inside]), _number(block.held[inside])))
    return Finding(name, shape, masked, count, signs, largest, tuple(first), by_place)


def _number(value: Any) -> float | str:
    if isinstance(value, np.bool_):
        return float(value)
    # as short as its own dtype allows: 0.1, not the double next to it
    return float(str(value)) if np.isfinite(value) else str(value)


def holds(found: Sequence[Finding]) -> bool:
    """Whether no masked entry differs from its held value in any bit."""
    return not any(f.violations for f in found)


def verdict(found: Sequence[Finding]) -> str:
    """The findings in a line."""
    masked = sum(f.masked for f in found)
    wrong, signs = sum(f.violations for f in found), sum(f.zero_signs for f in found)
    entries = "entry" if masked == 1 else "entries"
    if not wrong:
        return f"holds: {masked:,} masked {entries}, bit for bit"
    said = f"DOES NOT HOLD: {wrong:,} of {masked:,} masked {entries} "
    said += "differs, " if wrong == 1 else "differ, "
    if signs == wrong:
        return f"{said}in the sign of a zero only"
    said += f"by up to {max(f.largest_drift for f in found):.3g}"
    return f"{said}; {signs:,} in the sign of a zero only" if signs else said


def note(found: Sequence[Finding]) -> str:
    """What is to be said of the weights' names, if there is anything."""
    names = [f.weight for f in found if f.by_place]
    if not names:
        return ""
    return (
        f"{', '.join(names)}: numbered by place; the file does not say what layers that are not "
        "Keras' own call their variables"
    )


def table(found: Sequence[Finding]) -> Table:
    """The findings for the terminal."""
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
        for f in found
    ]
    return tables.terminal(columns, rows)


def described(found: Sequence[Finding]) -> dict[str, Any]:
    """The findings as plain data."""
    drifts = [f.largest_drift for f in found]
    return {
        "holds": holds(found),
        "masked": sum(f.masked for f in found),
        "violations": sum(f.violations for f in found),
        "zero_signs": sum(f.zero_signs for f in found),
        "largest_drift": _number(max(drifts)),
        "weights": [asdict(f) | {"largest_drift": _number(f.largest_drift)} for f in found],
    }
