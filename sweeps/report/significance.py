"""Statistics of trials that are paired by seed: differences, intervals, corrected tests.

There are two corrections for many comparisons: `holm` for claims, each of which passes or fails by
itself, and `bonferroni` for a table that a person reads as a whole.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import nan

import numpy as np

RESAMPLE_COUNT = 9999
"""Number of resamples of the bootstrap."""
CONFIDENCE = 0.95
"""Confidence level of all intervals."""
SIGNIFICANCE_LEVEL = 0.05
"""A corrected p-value below this is significant."""


@dataclass(frozen=True)
class Difference:
    """The paired difference of two metrics over common seeds, in the unit of the metric."""

    mean: float
    low: float
    high: float
    """Ends of the 95 % bootstrap interval of the mean (percentiles of 9,999 resamples of the
    pairs). With five seeds it is somewhat too narrow."""
    margin: float
    """Half of the width of Student's 95 % interval of the mean, which is not too narrow."""
    p: float
    """P-value of the two-sided paired t-test; NaN for fewer than two pairs."""
    seeds: int
    """Number of pairs."""


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Returns the paired difference of two lists of values, first minus second.

    The test is Student's t-test on the differences. With five seeds, a sign test or a rank test
    cannot reach a p-value of 0.05. If all differences are equal up to rounding, p is 0; if they are
    zero up to rounding, the difference is 0 and p is 1.

    Args:
        first: A metric, one value per seed.
        second: The metric to subtract, in the same order of seeds.

    Returns:
        The difference, with an uncorrected p-value. All other numbers than `seeds` are
        NaN if a value is not finite. The intervals and p are NaN for a single pair.

    Raises:
        ValueError: The lists are empty or have different lengths.
    """
    from scipy import stats

    pairs = np.array([first, second], float)  # raises ValueError if the lengths differ
    count = pairs.shape[1]
    if not count:
        raise ValueError("no seed in common")
    if not np.isfinite(pairs).all():
        return Difference(nan, nan, nan, nan, nan, count)
    # scaled by a power of two, which is exact, so that squares neither overflow nor underflow
    exponent = np.frexp(np.abs(pairs).max())[1]
    pairs = np.ldexp(pairs, -exponent)
    differences = pairs[0] - pairs[1]
    mean, spread = float(differences.mean()), float(np.ptp(differences))
    unscaled_mean = float(np.ldexp(mean, exponent))
    if count < 2:
        return Difference(unscaled_mean, nan, nan, nan, nan, count)
    # equal differences vary by rounding; without this, the spread would seem real
    rounding = 1e-12 * float(np.abs(pairs).max())
    if spread <= rounding:
        is_zero = abs(mean) <= rounding
        common = 0.0 if is_zero else unscaled_mean
        return Difference(common, common, common, 0.0, float(is_zero), count)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p = float(stats.ttest_1samp(differences, 0.0).pvalue)
    interval = stats.bootstrap(
        (differences,),
        np.mean,
        n_resamples=RESAMPLE_COUNT,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    margin = stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1) * stats.sem(differences)
    low, high, margin = (float(np.ldexp(x, exponent)) for x in (*interval, margin))
    return Difference(unscaled_mean, low, high, margin, p, count)


def holm(differences: Sequence[Difference]) -> list[Difference]:
    """Returns the differences with p-values corrected for their number.

    Args:
        differences: A family of differences. Those whose p is NaN are not counted.

    Returns:
        The differences in the same order; only `p` is changed.

    Reference:
        Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of
        Statistics 6, 1979.
    """
    tested = [i for i, d in enumerate(differences) if not math.isnan(d.p)]
    corrected, least = list(differences), 0.0
    for rank, i in enumerate(sorted(tested, key=lambda i: differences[i].p)):
        least = max(least, min(1.0, (len(tested) - rank) * differences[i].p))
        corrected[i] = replace(differences[i], p=least)
    return corrected


def bonferroni(differences: Sequence[Difference]) -> list[Difference]:
    """Returns the differences with simultaneous intervals and p-values (Bonferroni).

    Each of `m` differences gets Student's interval at the level `1 - 0.05 / m`, and `m` times its
    p-value, at most 1. The two agree: an interval excludes zero exactly if p is below 0.05. The
    probability that any interval misses its true difference is at most 0.05, however the
    differences depend on each other (Dunn 1961, "Multiple comparisons among means", JASA 56).

    Holm's p-values would be smaller, but have no useful intervals: those that are compatible with
    his procedure are one-sided and mostly say no more than the test does (Strassburger and Bretz
    2008, "Compatible simultaneous lower confidence bounds for the Holm procedure and other
    Bonferroni-based closed tests", Statistics in Medicine 27). The max-t method with permutations
    or bootstrap (Westfall and Young 1993) has more power with many seeds. Five seeds have only 32
    permutations, with which it cannot reach 0.05.

    Args:
        differences: The results of `paired_difference` for all rows of a table.

    Returns:
        The differences in the same order, with new `low`, `high`, `margin` and `p`. A difference
        whose p is NaN is not changed and not counted.
    """
    from scipy import stats

    family = sum(not math.isnan(d.p) for d in differences)

    def widened(d: Difference) -> Difference:
        if math.isnan(d.p):
            return d
        corrected, uncorrected = (
            stats.t.ppf(1 - (1 - CONFIDENCE) / (2 * m), d.seeds - 1) for m in (family, 1)
        )
        margin = float(d.margin * (corrected / uncorrected))
        p = min(1.0, family * d.p)
        return replace(d, low=d.mean - margin, high=d.mean + margin, margin=margin, p=p)

    return [widened(d) for d in differences]


def noise_floor(values: Sequence[float]) -> float:
    """Returns how far apart two trials lie that differ only in their seed.

    Args:
        values: A metric of such trials, one value per seed.

    Returns:
        Root mean square of the differences over all pairs; NaN for fewer than two values, or if one
        is infinite or NaN.
    """
    if not all(map(math.isfinite, values)):
        return math.nan
    squares = [(a - b) * (a - b) for a, b in combinations(values, 2)]
    return math.sqrt(sum(squares) / len(squares)) if squares else math.nan
