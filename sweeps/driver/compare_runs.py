"""Whether a trial that was run again came to the same: bits, figures, curves, and what changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isclose, isnan
from typing import Literal

from masksweep.sweeps.tracking.run_config import Recorded

TOLERANCE = 1e-3
"""Of a loss, relative to it or absolute, whichever is more: other machines round otherwise."""
FLIPPED = 0.01
"""Of an accuracy, absolute: rounding may tip a few samples over."""
MEASURED = ("speed/", "memory/")
"""What is another figure each time."""
LATER = ("audit/", "integrity/reached", "integrity/unreached", "sparsity/cut_off")
"""What earlier versions did not record, so its absence is no difference."""

Word = Literal["identical", "equal within tolerance", "different"]


@dataclass(frozen=True)
class Verdict:
    """How a second run of a trial compares with the recorded one."""

    word: Word
    changed: bool
    """The config is another one than what was recorded ran with."""
    weights: bool
    """Whether the weights at the end have the same digest."""
    metrics: Mapping[str, tuple[float | None, float | None]]
    """Those that differ in any bit, as (recorded, now)."""
    parted: tuple[int, str] | None
    """(First epoch at which a curve differs, that curve's name)."""
    environment: Mapping[str, tuple[str, str]]
    """What of the environment differs, as (recorded, now)."""

    @property
    def good(self) -> bool:
        return self.word != "different"

    def lines(self) -> list[str]:
        """What a person reads, the verdict last."""
        said = [f"weights: {'the same digest' if self.weights else 'another digest'}"]
        said += [f"{name}: {_shown(a)} recorded, {_shown(b)} now"
                 for name, (a, b) in self.metrics.items()] or ["metrics: the same"]  # fmt: skip
        where = f"part at epoch {self.parted[0]} ({self.parted[1]})" if self.parted else "the same"
        said.append(f"curves: {where}")
        if self.changed:
            said.append("config: changed since, it is not the one that was recorded")
        said += [
            f"environment: {name} was {a}, is {b}" for name, (a, b) in self.environment.items()
        ]
        return [*said, f"verdict: {self.word}"]


def compare(recorded: Recorded, now: Recorded) -> Verdict:
    """Hold what a second run found against what was recorded."""
    names = dict.fromkeys([*recorded.metrics, *now.metrics])
    pairs = {n: (recorded.metrics.get(n), now.metrics.get(n)) for n in names
             if not n.startswith(MEASURED)}  # fmt: skip
    differ = {n: (a, b) for n, (a, b) in pairs.items() if not _alike(n, a, b)}
    apart = _apart(recorded, now)
    parted = next(iter(apart), None)
    changed = recorded.trial != now.trial
    weights = recorded.weights_sha256 == now.weights_sha256
    ended = (recorded.status, recorded.reason) == (now.status, now.reason)
    points: list[Point] = [*((n, a, b) for n, (a, b) in differ.items()), *apart.values()]
    word: Word = "different"
    if ended and weights and not (changed or differ or parted):
        word = "identical"
    elif ended and not changed and all(_near(*p) for p in points):
        word = "equal within tolerance"
    before, after = ({**r.environment, "code": r.code} for r in (recorded, now))
    keys = dict.fromkeys([*before, *after])
    environment = {k: (before.get(k, "-"), after.get(k, "-")) for k in keys}
    environment = {k: (a, b) for k, (a, b) in environment.items() if a != b}
    return Verdict(word, changed, weights, differ, parted, environment)


def _same(one: float | None, other: float | None) -> bool:
    return one == other or (one is not None and other is not None and isnan(one) and isnan(other))


def _alike(name: str, one: float | None, other: float | None) -> bool:
    return _same(one, other) or (name.startswith(LATER) and None in (one, other))


def _near(name: str, one: float | None, other: float | None) -> bool:
    """Whether a figure may differ so much by rounding alone; what was held may not at all."""
    if one is None or other is None or name in ("integrity/ok", "integrity/violations"):
        return False
    if name.endswith("/accuracy"):
        return abs(one - other) <= FLIPPED
    return isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


Point = tuple[str, float | None, float | None]
"""A metric's name, and its value as recorded and now."""


def _apart(one: Recorded, other: Recorded) -> dict[tuple[int, str], Point]:
    """The points of the curves that differ in any bit, by epoch and name."""
    points = {(epoch, name) for r in (one, other) for name in r.curves for epoch in r.curves[name]}
    found: dict[tuple[int, str], Point] = {}
    for epoch, name in sorted(points):
        before, after = (r.curves.get(name, {}).get(epoch) for r in (one, other))
        if not _alike(name, before, after):
            found[epoch, name] = name, before, after
    return found


def _shown(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.9g}"
