"""Tests of paired comparisons: against SciPy, by hand, and properties for random values."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from masksweep.sweeps.report.significance import (
    Difference,
    bonferroni,
    holm,
    noise_floor,
    paired_difference,
)

ONE = [0.612, 0.598, 0.631, 0.605, 0.62]
OTHER = [0.601, 0.599, 0.602, 0.59, 0.611]

FIGURES = st.floats(-100, 100)
PAIRS = st.lists(st.tuples(FIGURES, FIGURES), min_size=2, max_size=6)
PS = st.one_of(st.floats(0, 1), st.just(math.nan))


def with_p(p: float) -> Difference:
    return Difference(0.5, 0.0, 1.0, 0.6, p, 5)


def corrected(*p_values: float) -> list[float]:
    return [d.p for d in holm([with_p(p) for p in p_values])]


# -- paired differences ----------------------------------------------------------------------


def test_the_mean_is_one_minus_other() -> None:
    difference = paired_difference([3.0, 5.0, 9.0], [1.0, 2.0, 3.0])
    assert difference.mean == pytest.approx(11 / 3)
    assert difference.seeds == 3


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_p_is_that_of_the_paired_t_test(seeds: int) -> None:
    difference = paired_difference(ONE[:seeds], OTHER[:seeds])
    expected = stats.ttest_rel(ONE[:seeds], OTHER[:seeds]).pvalue
    assert difference.p == pytest.approx(expected, rel=1e-9)
    assert difference.seeds == seeds


def test_p_by_hand() -> None:
    # differences 1, 2, 3: t = 2 / (1 / sqrt 3) with 2 degrees of freedom
    t = 2 * math.sqrt(3)
    assert paired_difference([2, 4, 6], [1, 2, 3]).p == pytest.approx(1 - t / math.sqrt(2 + t**2))


def test_pairs_count_and_not_the_two_means() -> None:
    """With the same values in another order, the mean is the same, but p and interval are not."""
    base = [10.0, 20.0, 30.0, 40.0]
    in_order = paired_difference(
        [b + d for b, d in zip(base, (1.0, 1.1, 0.9, 1.0), strict=True)], base
    )
    shuffled = paired_difference([21.1, 11.0, 41.0, 30.9], base)
    assert in_order.mean == pytest.approx(shuffled.mean)
    assert in_order.p < 0.001 < 0.5 < shuffled.p
    assert in_order.high - in_order.low < 1 < shuffled.high - shuffled.low


def test_the_interval_is_of_resampled_means() -> None:
    """With two pairs, a resample has one of three means. Each of them is drawn often."""
    assert (
        paired_difference([1.0, 5.0], [0.0, 0.0]).low,
        paired_difference([1.0, 5.0], [0.0, 0.0]).high,
    ) == (1, 5)


def test_the_interval_covers_95_percent_of_resamples() -> None:
    differences = np.subtract(ONE, OTHER)
    difference = paired_difference(ONE, OTHER)
    # all 5^5 resamples, which are equally likely
    grid = np.stack(np.meshgrid(*[differences] * 5), -1).reshape(-1, 5).mean(1)
    below, above = (grid < difference.low).mean(), (grid > difference.high).mean()
    assert below == pytest.approx(0.025, abs=0.01)
    assert above == pytest.approx(0.025, abs=0.01)


@settings(deadline=None)  # other processes may use all cores
@given(PAIRS)
def test_the_interval_holds_the_mean_and_lies_within_the_differences(
    pairs: list[tuple[float, float]],
) -> None:
    first, second = zip(*pairs, strict=True)
    difference = paired_difference(first, second)
    differences = np.subtract(first, second)
    slack = 1e-9 * max(1.0, float(np.abs(differences).max()))
    assert differences.min() - slack <= difference.low <= difference.mean + slack
    assert difference.mean - slack <= difference.high <= differences.max() + slack
    assert 0 <= difference.p <= 1
    assert difference.seeds == len(pairs)


@settings(deadline=None)  # other processes may use all cores
@given(PAIRS)
def test_to_exchange_the_sides_turns_the_sign_and_no_p(pairs: list[tuple[float, float]]) -> None:
    first, second = zip(*pairs, strict=True)
    difference, reverse = paired_difference(first, second), paired_difference(second, first)
    assert reverse.mean == -difference.mean
    assert reverse.p == difference.p


@pytest.mark.parametrize("exponent", [-1000, -900, 900, 1020])
def test_figures_whose_squares_have_no_float_are_compared_all_the_same(exponent: int) -> None:
    first, second = np.ldexp([0.5, 0.0, 0.25], exponent), np.ldexp([0.0, 0.5, 0.0], exponent)
    plain, scaled = (
        paired_difference([0.5, 0.0, 0.25], [0.0, 0.5, 0.0]),
        paired_difference(list(first), list(second)),
    )
    assert scaled.p == plain.p
    assert scaled.mean == np.ldexp(plain.mean, exponent)
    assert (scaled.low, scaled.high) == tuple(np.ldexp((plain.low, plain.high), exponent))


def test_the_same_figures_give_the_same_interval() -> None:
    np.random.seed(1)  # noqa: NPY002 - SciPy draws from it if it is not told otherwise
    first = paired_difference(ONE, OTHER)
    np.random.seed(2)  # noqa: NPY002
    assert paired_difference(ONE, OTHER) == first
    assert first.low < first.mean < first.high


def test_one_pair_has_a_difference_and_no_more() -> None:
    difference = paired_difference([0.7], [0.5])
    assert difference.mean == pytest.approx(0.2)
    assert difference.seeds == 1
    assert all(math.isnan(x) for x in (difference.low, difference.high, difference.p))


@pytest.mark.parametrize(
    ("one", "other", "mean", "p"),
    [
        ([0.5, 0.6, 0.7], [0.5, 0.6, 0.7], 0.0, 1.0),
        ([3.0, 5.0], [1.0, 3.0], 2.0, 0.0),
        ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0], -1.0, 0.0),
        ([0.3, 0.7, 1.1], [0.1, 0.5, 0.9], 0.2, 0.0),  # equal up to rounding
        ([0.1 + 0.2, 0.7], [0.3, 0.7], 0.0, 1.0),  # zero up to rounding
    ],
)
def test_equal_differences_have_no_spread(
    one: list[float], other: list[float], mean: float, p: float
) -> None:
    difference = paired_difference(one, other)
    assert difference.mean == pytest.approx(mean, abs=1e-12)
    assert difference.low == difference.mean == difference.high
    assert difference.p == p


def test_no_pair_is_an_error() -> None:
    with pytest.raises(ValueError, match="no seed in common"):
        paired_difference([], [])


# -- Holm's correction -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # Holm's procedure as R's p.adjust(c(.01, .04, .03, .005), "holm") gives it
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.005, 0.01, 0.03, 0.04], [0.02, 0.03, 0.06, 0.06]),
        ([0.02], [0.02]),
        ([0.4, 0.6, 0.9], [1.0, 1.0, 1.0]),
        ([0.03, 0.03], [0.06, 0.06]),
        ([0.0, 1.0], [0.0, 1.0]),
        ([], []),
    ],
)
def test_holm_by_hand(given: list[float], expected: list[float]) -> None:
    assert corrected(*given) == pytest.approx(expected)


def test_holm_counts_no_nan() -> None:
    first, second, third = corrected(0.01, math.nan, 0.03)
    assert (first, third) == pytest.approx((0.02, 0.03))
    assert math.isnan(second)
    assert math.isnan(corrected(math.nan)[0])


def test_holm_changes_nothing_but_p_and_keeps_the_order() -> None:
    differences = [
        Difference(float(i), i - 1.0, i + 1.0, 1.5, p, i) for i, p in enumerate((0.04, 0.01, 0.03))
    ]
    adjusted = holm(differences)
    assert [replace(d, p=0.0) for d in adjusted] == [replace(d, p=0.0) for d in differences]
    assert [d.p for d in differences] == [0.04, 0.01, 0.03]


@settings(deadline=None)  # other processes may use all cores
@given(st.lists(PS, max_size=8))
def test_holm_is_monotone_and_never_above_1_nor_below_what_it_was(ps: list[float]) -> None:
    adjusted = corrected(*ps)
    tested = sorted((p, q) for p, q in zip(ps, adjusted, strict=True) if not math.isnan(p))
    assert [math.isnan(q) for q in adjusted] == [math.isnan(p) for p in ps]
    assert all(p <= q <= 1 and q <= max(1, len(tested)) * p for p, q in tested)
    after = [q for _, q in tested]
    assert after == sorted(after)


# -- simultaneous intervals ------------------------------------------------------------------


@settings(deadline=None)
@example([[(0.0, 4.018463937000463e-39), (1.0, 1.0)]])  # zero up to rounding
@given(st.lists(PAIRS, min_size=1, max_size=6))
def test_a_simultaneous_interval_leaves_out_zero_exactly_where_p_is_below_005(
    families: list[list[tuple[float, float]]],
) -> None:
    uncorrected = [paired_difference(*zip(*pairs, strict=True)) for pairs in families]
    for before, d in zip(uncorrected, bonferroni(uncorrected), strict=True):
        if abs(d.p - 0.05) > 1e-9:  # rounding decides at exactly 0.05
            assert (d.low > 0 or d.high < 0) == (d.p < 0.05)
        assert (d.mean, d.seeds) == (before.mean, before.seeds)
        assert d.margin >= before.margin
        assert d.p == min(1, len(uncorrected) * before.p)


def test_one_alone_has_students_own_interval_and_p() -> None:
    difference = paired_difference(ONE, OTHER)
    (single,) = bonferroni([difference])
    expected = stats.ttest_rel(ONE, OTHER).confidence_interval(0.95)
    assert (single.low, single.high) == pytest.approx((expected.low, expected.high))
    assert single.p == difference.p


def test_one_of_four_has_the_interval_of_a_fourth_of_the_error() -> None:
    difference = bonferroni([paired_difference(ONE, OTHER)] * 4)[2]
    expected = stats.ttest_rel(ONE, OTHER).confidence_interval(1 - 0.05 / 4)
    assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))


def test_what_cannot_be_tested_counts_for_none() -> None:
    untested = paired_difference([1.0], [0.5])
    differences = bonferroni([untested, paired_difference(ONE, OTHER)])
    assert math.isnan(differences[0].p)
    assert differences[1] == bonferroni([paired_difference(ONE, OTHER)])[0]


# -- noise -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 4.0], 3.0),
        ([0.0, 1.0, 3.0], math.sqrt((1 + 9 + 4) / 3)),
        ([2.0, 2.0, 2.0], 0.0),
    ],
)
def test_noise_floor_by_hand(values: list[float], expected: float) -> None:
    assert noise_floor(values) == pytest.approx(expected)


@pytest.mark.parametrize("values", [[], [1.0]])
def test_one_trial_has_no_noise_floor(values: list[float]) -> None:
    assert math.isnan(noise_floor(values))


@settings(deadline=None)  # other processes may use all cores
@given(st.lists(FIGURES, min_size=2, max_size=6))
def test_the_noise_floor_is_the_deviation_times_the_root_of_2(values: list[float]) -> None:
    expected = math.sqrt(2) * float(np.std(values, ddof=1))
    assert noise_floor(values) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_nothing_is_said_of_what_is_no_finite_number(value: float) -> None:
    d = paired_difference([value, 1.0, 2.0], [0.0, 0.0, 0.0])
    assert all(math.isnan(x) for x in (d.mean, d.low, d.high, d.p))
    assert d.seeds == 3


def test_lists_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        paired_difference([1.0], [1.0, 2.0, 3.0])


def test_rounding_is_measured_by_the_values() -> None:
    tiny = paired_difference([1e-13, 3e-13, 2e-13], [0.0, 0.0, 0.0])
    assert tiny.low < tiny.high
    large = paired_difference([1e5 + 0.1, 2e5 + 0.1, 3e5 + 0.1], [1e5, 2e5, 3e5])
    assert (large.p, large.low) == (0.0, large.high)


def test_the_margin_is_students() -> None:
    d = paired_difference([1.0, 2.0, 4.0], [0.0, 0.0, 0.0])
    low, high = stats.ttest_1samp([1.0, 2.0, 4.0], 0).confidence_interval()
    assert (
        d.mean - d.margin,
        d.mean + d.margin,
    ) == pytest.approx((low, high))
