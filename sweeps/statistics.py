"""Comparisons of trials that share their seeds: paired differences, intervals, corrected tests."""

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
    reach 0.05 at all. Differences that are all equal but for rounding have p = 0, or 1 if they are
    zero. Where a value is no finite number nothing can be said: all is NaN. Raises `ValueError`
    without a pair, or if they do not pair up.
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
        return Difference(own, own, own, 0.0, float(abs(mean) <= rounding), count)
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


def noise_floor(values: Sequence[float]) -> float:
    """How far two trials differ that differ in nothing but their seed.

    The root mean square over all pairs; NaN for fewer than two.
    """
    squares = [(a - b) ** 2 for a, b in combinations(values, 2)]
    return math.sqrt(sum(squares) / len(squares)) if squares else math.nan
