"""Comparisons of trials that share their seeds: paired differences, intervals, corrected tests."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

RESAMPLES = 9999
CONFIDENCE = 0.95
SIGNIFICANT = 0.05
"""A corrected p-value below it counts."""


@dataclass(frozen=True)
class Difference:
    """One minus other over the seeds that both have, in the metric's own unit."""

    mean: float
    low: float
    high: float
    """Bootstrap interval of the mean at 95 % (percentiles of 9,999 resamples of the pairs)."""
    p: float
    """Two-sided paired t-test; NaN for fewer than two pairs. `holm` corrects it for the family."""
    seeds: int


def paired(one: Sequence[float], other: Sequence[float]) -> Difference:
    """The paired difference of two metrics, given in the same order of seeds.

    The test is Student's on the differences: with five seeds a test by signs or ranks could not
    reach 0.05 at all. Differences that are all equal have p = 0, or 1 if they are zero. Raises
    `ValueError` without a pair.
    """
    from scipy import stats

    found = np.asarray(one, float) - np.asarray(other, float)
    if not len(found):
        raise ValueError("no seed in common")
    mean, spread = float(found.mean()), float(np.ptp(found))
    if len(found) < 2:
        return Difference(mean, math.nan, math.nan, math.nan, len(found))
    # rounding of equal figures would pass for a very small spread
    if spread <= 1e-12 * max(1.0, abs(mean)):
        return Difference(mean, mean, mean, float(abs(mean) <= 1e-12), len(found))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p = float(stats.ttest_1samp(found, 0.0).pvalue)
    interval = stats.bootstrap(
        (found,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Difference(mean, float(interval.low), float(interval.high), p, len(found))


def holm(found: Sequence[Difference]) -> list[Difference]:
    """The same with p-values corrected for their number (Holm 1979); NaN counts for none."""
    tested = [i for i, d in enumerate(found) if not math.isnan(d.p)]
    corrected, least = list(found), 0.0
    for rank, i in enumerate(sorted(tested, key=lambda i: found[i].p)):
        least = max(least, min(1.0, (len(tested) - rank) * found[i].p))
        corrected[i] = replace(found[i], p=least)
    return corrected


def noise_floor(values: Sequence[float]) -> float:
    """How far two trials differ that differ in nothing but their seed.

    The root mean square over all pairs; NaN for fewer than two.
    """
    squares = [(a - b) ** 2 for a, b in combinations(values, 2)]
    return math.sqrt(sum(squares) / len(squares)) if squares else math.nan
