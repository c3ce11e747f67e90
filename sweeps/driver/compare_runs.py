"""Comparison of two runs of a trial: weights, metrics, curves, config and environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isclose, isnan
from typing import Literal

from masksweep.sweeps.tracking.run_config import RecordedResults

LOSS_TOLERANCE = 1e-3
"""Largest difference of a loss that counts as rounding: relative or absolute, whichever allows
more. Other machines round differently."""
ACCURACY_TOLERANCE = 0.01
"""Largest difference of an accuracy that counts as rounding, absolute. Rounding may change the
predicted class of a few samples."""
NOT_COMPARED = ("speed/", "memory/")
"""Prefixes of metrics that differ in every run; they are not compared."""
NEW_METRICS = (
    "audit/", "integrity/reached", "integrity/unreached", "sparsity/cut_off", "flops/dense",
    "flops/masked",
)  # fmt: skip
"""Prefixes of metrics that earlier versions did not record. If one run lacks such a metric, this
is not a difference."""

COUNTING = ("accuracy", "/auc", "/f1_score", "/precision", "/recall")
"""Ends of the names of metrics that count samples, so that rounding can change them by a sample."""

Agreement = Literal["identical", "equal within tolerance", "different"]


@dataclass(frozen=True)
class Verdict:
    """Result of the comparison of a second run of a trial with the recorded one."""

    agreement: Agreement
    config_changed: bool
    """Whether the config differs from the one that the recorded run had."""
    same_weights: bool
    """Whether the final weights have the same digest."""
    metrics: Mapping[str, tuple[float | None, float | None]]
    """The metrics that differ in any bit, as (recorded value, new value)."""
    first_difference: tuple[int, str] | None
    """The first epoch at which a curve differs, and the name of that curve; None if all are the
    same."""
    environment: Mapping[str, tuple[str, str]]
    """The properties of the environment that differ, as (recorded value, new value)."""

    @property
    def is_same(self) -> bool:
        """Whether the result is the same, at least within the tolerance."""
        return self.agreement != "different"

    def explanation(self) -> list[str]:
        """Returns the lines that are shown to the user; the last one is the verdict."""
        texts = [f"weights: {'the same digest' if self.same_weights else 'another digest'}"]
        texts += [f"{name}: {_format(a)} recorded, {_format(b)} now"
                  for name, (a, b) in self.metrics.items()] or ["metrics: the same"]  # fmt: skip
        curves = "the same"
        if self.first_difference:
            epoch, curve = self.first_difference
            curves = f"first differ at epoch {epoch} ({curve})"
        texts.append(f"curves: {curves}")
        if self.config_changed:
            texts.append("config: changed since, it is not the one that was recorded")
        texts += [
            f"environment: {name} was {a}, is {b}" for name, (a, b) in self.environment.items()
        ]
        return [*texts, f"verdict: {self.agreement}"]


def compare(recorded: RecordedResults, now: RecordedResults) -> Verdict:
    """Compares a second run of a trial with the recorded one.

    Args:
        recorded: What the first run recorded.
        now: What the second run recorded.
    """
    names = dict.fromkeys([*recorded.metrics, *now.metrics])
    pairs = {n: (recorded.metrics.get(n), now.metrics.get(n)) for n in names
             if not n.startswith(NOT_COMPARED)}  # fmt: skip
    differ = {n: (a, b) for n, (a, b) in pairs.items() if not _equal_or_unrecorded(n, a, b)}
    differing_points = _differing_points(recorded, now)
    first_difference = next(iter(differing_points), None)
    config_changed = recorded.trial != now.trial
    same_weights = recorded.weights_sha256 == now.weights_sha256
    same_end = (recorded.status, recorded.reason) == (now.status, now.reason)
    points: list[Point] = [*((n, a, b) for n, (a, b) in differ.items()), *differing_points.values()]
    agreement: Agreement = "different"
    if same_end and same_weights and not (config_changed or differ or first_difference):
        agreement = "identical"
    elif same_end and not config_changed and all(_within_tolerance(*p) for p in points):
        agreement = "equal within tolerance"
    before, after = ({**r.environment, "code": r.code} for r in (recorded, now))
    keys = dict.fromkeys([*before, *after])
    environment = {k: (before.get(k, "-"), after.get(k, "-")) for k in keys}
    environment = {k: (a, b) for k, (a, b) in environment.items() if a != b}
    return Verdict(agreement, config_changed, same_weights, differ, first_difference, environment)


def _equal(a: float | None, b: float | None) -> bool:
    """Whether two values are equal; two NaNs count as equal."""
    return a == b or (a is not None and b is not None and isnan(a) and isnan(b))


def _equal_or_unrecorded(name: str, a: float | None, b: float | None) -> bool:
    """Whether two values are equal, or an earlier version did not record one of them."""
    return _equal(a, b) or (name.startswith(NEW_METRICS) and None in (a, b))


def _within_tolerance(name: str, a: float | None, b: float | None) -> bool:
    """Whether rounding alone can explain the difference. Metrics of integrity must be equal."""
    if a is None or b is None or name in ("integrity/ok", "integrity/violations"):
        return False
    if name.endswith(COUNTING):
        return abs(a - b) <= ACCURACY_TOLERANCE
    return isclose(a, b, rel_tol=LOSS_TOLERANCE, abs_tol=LOSS_TOLERANCE)


Point = tuple[str, float | None, float | None]
"""Name of a metric, its recorded value and its new value."""


def _differing_points(
    before: RecordedResults, after: RecordedResults
) -> dict[tuple[int, str], Point]:
    """Returns the points of the curves that differ in any bit, by (epoch, name), in this order."""
    points = {
        (epoch, name) for r in (before, after) for name in r.curves for epoch in r.curves[name]
    }
    differing: dict[tuple[int, str], Point] = {}
    for epoch, name in sorted(points):
        old, new = (r.curves.get(name, {}).get(epoch) for r in (before, after))
        if not _equal_or_unrecorded(name, old, new):
            differing[epoch, name] = name, old, new
    return differing


def _format(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.9g}"
