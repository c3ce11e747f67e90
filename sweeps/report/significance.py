"""Comparisons of trials that share their seeds: paired differences, intervals, corrected tests.

Two ways to correct for many comparisons: `holm` for claims, each of which is passed or failed by
itself, and `simultaneous` for a table that a person reads as a whole.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import nan

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
    """Bootstrap interval of the mean at 95 % (percentiles of 9,999 resamples of the pairs). With
    five seeds it is somewhat too narrow."""
    margin: float
    """Half of Student's 95 % interval of the mean, which is not."""
    p: float
    """Two-sided paired t-test; NaN for fewer than two pairs. `holm` corrects it for the family."""
    seeds: int


def paired(one: Sequence[float], other: Sequence[float]) -> Difference:
    """The paired difference of two metrics, given in the same order of seeds.

    The test is Student's on the differences: with five seeds a test by signs or ranks could not
    reach 0.05 at all. Differences that are all equal but for rounding have p = 0; those that are
    zero but for rounding are 0, and p is 1. Where a value is no finite number nothing can be said:
    all is NaN. Raises `ValueError` without a pair, or if they do not pair up.
    """
    from scipy import stats

    pairs = np.array([one, other], float)  # of unlike lengths: a ValueError
    count = pairs.shape[1]
    if not count:
        raise ValueError("no seed in common")
    if not np.isfinite(pairs).all():
        return Difference(nan, nan, nan, nan, nan, count)
    # squares of very small or large figures have no float; a power of two changes no bit else
    size = np.frexp(np.abs(pairs).max())[1]
    pairs = np.ldexp(pairs, -size)
    found = pairs[0] - pairs[1]
    mean, spread = float(found.mean()), float(np.ptp(found))
    own = float(np.ldexp(mean, size))
    if count < 2:
        return Difference(own, nan, nan, nan, nan, count)
    # rounding of equal differences would pass for a very small spread
    rounding = 1e-12 * float(np.abs(pairs).max())
    if spread <= rounding:
        none = abs(mean) <= rounding
        same = 0.0 if none else own
        return Difference(same, same, same, 0.0, float(none), count)
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
    margin = stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1) * stats.sem(found)
    low, high, margin = (float(np.ldexp(x, size)) for x in (*interval, margin))
    return Difference(own, low, high, margin, p, count)


def holm(found: Sequence[Difference]) -> list[Difference]:
    """The same with p-values corrected for their number (Holm 1979); NaN counts for none."""
    tested = [i for i, d in enumerate(found) if not math.isnan(d.p)]
    corrected, least = list(found), 0.0
    for rank, i in enumerate(sorted(tested, key=lambda i: found[i].p)):
        least = max(least, min(1.0, (len(tested) - rank) * found[i].p))
        corrected[i] = replace(found[i], p=least)
    return corrected


def simultaneous(found: Sequence[Difference]) -> list[Difference]:
    """The same with intervals and p-values that hold for all of them at once (Bonferroni).

    Of `m` differences each gets Student's interval at `1 - 0.05 / m`, and `m` times its p-value,
    at most 1. Both say the same: an interval leaves out zero exactly where p is below 0.05, and the
    probability that any of the intervals misses its true difference is at most 0.05, however the
    differences depend on one another (Dunn 1961, "Multiple comparisons among means", JASA 56).

    Holm's p-values would be smaller, but no interval goes with them: those that are compatible
    with his procedure are one-sided and mostly say no more than the test does (Strassburger and
    Bretz 2008, "Compatible simultaneous lower confidence bounds for the Holm procedure and other
    Bonferroni-based closed tests", Statistics in Medicine 27). Max-t by permutation or bootstrap
    (Westfall and Young 1993) is sharper where seeds are many; with five, 32 permutations cannot
    reach 0.05 at all.

    Args:
        found: Differences as `paired` gives them, a family that is read together.

    Returns:
        The differences in the same order; `low`, `high`, `margin` and `p` are the simultaneous
        ones. One whose p is NaN is left as it is and counts for none.
    """
    from scipy import stats

    family = sum(not math.isnan(d.p) for d in found)

    def widened(d: Difference) -> Difference:
        if math.isnan(d.p):
            return d
        wide, plain = (
            stats.t.ppf(1 - (1 - CONFIDENCE) / (2 * m), d.seeds - 1) for m in (family, 1)
        )
        margin = float(d.margin * (wide / plain))
        p = min(1.0, family * d.p)
        return replace(d, low=d.mean - margin, high=d.mean + margin, margin=margin, p=p)

    return [widened(d) for d in found]


def noise_floor(values: Sequence[float]) -> float:
    """How far two trials differ that differ in nothing but their seed.

    The root mean square over all pairs; NaN for fewer than two.
    """
    squares = [(a - b) ** 2 for a, b in combinations(values, 2)]
    return math.sqrt(sum(squares) / len(squares)) if squares else math.nan
