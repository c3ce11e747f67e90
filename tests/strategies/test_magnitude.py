"""Tests of the `magnitude` pattern: which weights a round masks for given scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masksweep.strategies import PATTERNS, Invalid
from masksweep.strategies.patterns.magnitude import Magnitude
from masksweep.sweeps.config.trial import parse
from tests.support.trials import BASE

ROUNDS = st.integers(2, 120).flatmap(lambda n: st.tuples(st.integers(0, n - 2), st.just(n)))
SHAPES = st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=3), min_size=1, max_size=4)
FEW = [0.0, -0.0, 0.5, -0.5, 1.0]
"""Few different values, so that there are ties."""


def scores_of(shapes: list[list[int]], seed: int = 0) -> dict[str, Any]:
    """Returns random scores by name: layers with two weights, a kernel and a bias."""
    rng = np.random.default_rng(seed)
    names = [f"hidden_{i // 2}/{('kernel', 'bias')[i % 2]}" for i in range(len(shapes))]
    return {n: rng.normal(size=s).astype(np.float32) for n, s in zip(names, shapes, strict=True)}


def layers_of(names: Any) -> dict[str, list[str]]:
    return {
        layer: [n for n in names if n.startswith(f"{layer}/")]
        for layer in dict.fromkeys(n.split("/")[0] for n in names)
    }


def test_the_smallest_of_each_layer_are_masked() -> None:
    """The kernel and bias of a layer are ranked together, and each layer has the same sparsity."""
    scores = {
        "hidden_1/kernel": np.array([[0.1, -3.0], [2.0, -0.2]]),
        "hidden_1/bias": np.array([0.05, -9.0]),
        "output/kernel": np.array([[100.0], [-300.0], [200.0]]),
    }
    masks = Magnitude(1, 4).by_scores(scores)
    assert list(masks) == list(scores)
    assert {n: m.tolist() for n, m in masks.items()} == {
        "hidden_1/kernel": [[False, True], [True, True]],
        "hidden_1/bias": [False, True],
        "output/kernel": [[False], [True], [True]],
    }
    assert {n: m.tolist() for n, m in Magnitude(2, 4).by_scores(scores).items()} == {
        "hidden_1/kernel": [[False, True], [False, False]],
        "hidden_1/bias": [False, True],
        "output/kernel": [[False], [True], [False]],
    }


def test_layers_that_are_nested_are_layers_of_their_own() -> None:
    scores = {
        f"both/{layer}/kernel": np.array([1.0, 2.0]) * factor
        for layer, factor in (("a", 1), ("b", 100))
    }
    masks = Magnitude(1, 3).by_scores(scores)
    assert [m.tolist() for m in masks.values()] == [[False, True], [False, True]]


def test_a_layers_weights_need_not_follow_each_other() -> None:
    scores = {"a/kernel": np.array([1.0, 4.0]), "b/kernel": np.ones(2), "a/bias": np.array([2.0])}
    masks = Magnitude(2, 4).by_scores(scores)
    assert list(masks) == list(scores)
    assert {n: m.tolist() for n, m in masks.items()} == {
        "a/kernel": [False, True],
        "b/kernel": [False, True],
        "a/bias": [False],
    }


def test_ties_are_masked_in_their_own_order() -> None:
    scores = {"a/kernel": np.full((2, 3), -0.5), "a/bias": np.array([0.5, 0.25])}
    masks = Magnitude(2, 5).by_scores(scores)
    assert masks["a/kernel"].tolist() == [[False, False, False], [True, True, True]]
    assert masks["a/bias"].tolist() == [True, False]


def test_many_ties_are_masked_in_their_own_order_too() -> None:
    """A sort that is not stable may keep the order of a few equal values, but not of many."""
    sizes = np.resize([2.0, 1.0, 1.0, 3.0, 1.0], 200)
    mask = Magnitude(1, 3).by_scores({"a/kernel": sizes})["a/kernel"]
    expected = np.ones(200, bool)
    expected[np.flatnonzero(sizes == 1)[:100]] = False
    np.testing.assert_array_equal(mask, expected)


def test_the_sign_does_not_count_that_of_zero_either() -> None:
    plus = {"a/kernel": np.array([0.0, 0.0, 1.0, 2.0])}
    minus = {"a/kernel": np.array([0.0, -0.0, -1.0, 2.0])}
    for number in range(3):
        first, second = (Magnitude(number, 4).by_scores(s)["a/kernel"] for s in (plus, minus))
        np.testing.assert_array_equal(first, second)


@settings(deadline=None)  # other processes may hold the cores
@given(SHAPES, ROUNDS, st.integers(0, 99))
def test_counts_are_exact_in_each_layer(
    shapes: list[list[int]], at: tuple[int, int], seed: int
) -> None:
    pattern, scores = Magnitude(*at), scores_of(shapes, seed)
    masks = pattern.by_scores(scores)
    assert list(masks) == list(scores)
    for name, mask in masks.items():
        assert (mask.shape, mask.dtype) == (scores[name].shape, np.dtype(bool))
    for names in layers_of(scores).values():
        sizes = np.concatenate([np.abs(scores[n]).ravel() for n in names])
        kept = np.concatenate([masks[n].ravel() for n in names])
        masked = int((~kept).sum())
        assert masked == round(at[0] / (at[1] - 1) * sizes.size)
        assert masked < sizes.size or sizes.size < at[1] - 1
        if masked and kept.any():
            assert sizes[~kept].max() <= sizes[kept].min()


@settings(deadline=None)  # other processes may hold the cores
@given(st.lists(st.sampled_from(FEW), min_size=1, max_size=30), ROUNDS)
def test_what_one_round_masks_a_later_one_masks_too(
    given: list[float], at: tuple[int, int]
) -> None:
    """This holds for the same scores, also if some are equal."""
    scores = {"a/kernel": np.array(given)}
    number, rounds = at
    earlier, later = (
        Magnitude(n, rounds).by_scores(scores)["a/kernel"] for n in (number // 2, number)
    )
    assert not (later & ~earlier).any()


def test_what_is_held_at_zero_stays_masked_while_something_else_is_not_zero() -> None:
    """Each round masks the weights that the round before masked, because they are zero."""
    rng, mask = np.random.default_rng(0), np.ones(100, bool)
    for number in range(1, 20):
        trained = np.where(mask, rng.normal(size=100), 0)
        new_mask = Magnitude(number, 21).by_scores({"a/kernel": trained})["a/kernel"]
        assert not (new_mask & ~mask).any()
        assert (~new_mask).sum() == 5 * number
        mask = new_mask


def test_the_same_scores_give_the_same_masks_and_are_left_as_they_are() -> None:
    scores = {"a/kernel": np.resize(FEW, (5, 7)), "a/bias": np.resize(FEW, 7)}
    before = {n: s.copy() for n, s in scores.items()}
    first, again = (Magnitude(40, 100).by_scores(scores) for _ in range(2))
    for name in scores:
        np.testing.assert_array_equal(first[name], again[name])
        np.testing.assert_array_equal(scores[name], before[name])


# -- rounds ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [2, 3, 100])
def test_round_0_keeps_all(rounds: int) -> None:
    masks = Magnitude(0, rounds).by_scores(scores_of([[4, 5], [5]]))
    assert all(mask.all() for mask in masks.values())
    assert Magnitude(0, rounds).before is None
    assert Magnitude(0, rounds).sparsity == 0


def test_a_round_goes_by_the_one_before_it() -> None:
    chain, rounds = Magnitude(3, 7), []
    while chain is not None:
        rounds.append((chain.round, chain.rounds))
        chain = chain.before
    assert rounds == [(3, 7), (2, 7), (1, 7), (0, 7)]


@settings(deadline=None)  # other processes may hold the cores
@given(ROUNDS)
def test_the_sparsity_is_the_rounds_part_of_the_last(at: tuple[int, int]) -> None:
    number, rounds = at
    pattern = Magnitude(number, rounds)
    assert 0 <= pattern.sparsity < 1
    assert pattern.sparsity * (rounds - 1) == pytest.approx(number)
    if pattern.before:
        assert pattern.sparsity - pattern.before.sparsity == pytest.approx(1 / (rounds - 1))


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"round": -1}, "round"),
        ({"round": 99}, "round"),  # the last round would mask all weights
        ({"round": 100}, "round"),
        ({"round": 5, "rounds": 6}, "round"),
        ({"round": 1, "rounds": 2}, "round"),
        ({"round": 0.5}, "round"),
        ({"round": 0, "rounds": 1}, "rounds"),
        ({"round": 0, "rounds": 0}, "rounds"),
        ({"round": 0, "rounds": -3}, "rounds"),
    ],
    ids=str,
)
def test_rounds_that_cannot_be_are_refused(given: dict[str, Any], key: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse({**BASE, "pattern": {"name": "magnitude", **given}})
    assert caught.value.key == f"pattern.{key}"


def test_the_first_and_last_rounds_that_can_be() -> None:
    assert Magnitude(98, 100).sparsity == 98 / 99
    assert Magnitude(0, 2).sparsity == 0
    assert PATTERNS["magnitude"] is Magnitude


# -- masks of shapes alone -------------------------------------------------------------------


@settings(deadline=None)  # other processes may hold the cores
@given(SHAPES, ROUNDS, st.integers(0, 2**40))
def test_masks_of_shapes_have_the_counts_of_any_scores(
    shapes: list[list[int]], at: tuple[int, int], seed: int
) -> None:
    pattern, scores = Magnitude(*at), scores_of(shapes)
    masks = pattern.masks({n: s.shape for n, s in scores.items()}, seed)
    assert list(masks) == list(scores)
    for name, mask in masks.items():
        assert (mask.shape, mask.dtype) == (scores[name].shape, np.dtype(bool))
    by_scores = pattern.by_scores(scores)
    for names in layers_of(scores).values():
        counts = [sum(int(m[n].sum()) for n in names) for m in (masks, by_scores)]
        assert counts[0] == counts[1]


def test_masks_of_shapes_are_the_same_for_every_seed() -> None:
    shapes = {"a/kernel": (4, 6), "a/bias": (6,)}
    first, second = (Magnitude(30, 100).masks(shapes, seed) for seed in (0, 1))
    for name in shapes:
        np.testing.assert_array_equal(first[name], second[name])


def test_a_fraction_is_no_round() -> None:
    with pytest.raises(Invalid, match=r"round=0\.9: a whole number .*\. Smallest masks a fraction"):
        Magnitude(0.9)  # type: ignore[arg-type]
