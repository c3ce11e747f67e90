"""Which masks each schedule chooses, against cases that were computed by hand."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from math import cos, pi
from pathlib import Path

import numpy as np
import pytest

from masksweep.strategies import Invalid
from masksweep.strategies.hard_mask import HardMask
from masksweep.strategies.patterns.random import densities
from masksweep.strategies.plan import Array, Mask, MaskedWeight, Plan, Weight
from masksweep.strategies.schedules import SCHEDULES
from masksweep.strategies.schedules.base import Course, MaskChange, MaskSchedule, Moment
from masksweep.strategies.schedules.dense_sparse_dense import DenseSparseDense
from masksweep.strategies.schedules.given import Given
from masksweep.strategies.schedules.gradual import Gradual
from masksweep.strategies.schedules.iterative import Iterative
from masksweep.strategies.schedules.one_shot import OneShot
from masksweep.strategies.schedules.rigl import RigL
from masksweep.strategies.schedules.set import SET
from masksweep.strategies.schedules.static import Static
from masksweep.strategies.schedules.swap import Swap
from masksweep.strategies.sparse_tensor import SparseTensor
from masksweep.strategies.sparse_values import SparseValues
from masksweep.strategies.testing import check_schedule
from masksweep.strategies.var_list import VarList

COURSE = Course(steps=1000, epoch=100)
GIVEN_MASKS = np.random.default_rng(0).random((2, 6, 8)) < [[[0.3]], [[0.6]]]
"""For the weight `masked/kernel` of the small model of the contract."""
CONTRACT: dict[str, MaskSchedule] = {
    "static": Static(),
    "swap": Swap(steps=(5, 9)),
    "one_shot": OneShot(begin_step=7),
    "gradual": Gradual(frequency=5),
    "iterative": Iterative(rounds=3, rewind_to=2),
    "set": SET(frequency=5),
    "rigl": RigL(frequency=5),
    "dense_sparse_dense": DenseSparseDense(),
    "given": Given(steps=(5, 9), masks=[{"masked/kernel": mask} for mask in GIVEN_MASKS]),
}
"""Each schedule, with settings that change masks within 24 steps."""


def moment(
    step: int,
    mask: Mask,
    weight: Array,
    *,
    target: Mask | None = None,
    gradient: Array | None = None,
    course: Course = COURSE,
    saved: dict[str, Array] | None = None,
    seed: int = 0,
) -> Moment:
    def gradients() -> dict[str, Array]:
        assert gradient is not None, "this schedule must not ask for gradients"
        return {"w": gradient}

    def draw(number: int) -> dict[str, Mask]:
        return {"w": np.roll(mask if target is None else target, number)}

    targets = {"w": mask if target is None else target}
    masks, weights = {"w": mask}, {"w": weight}
    return Moment(step, course, targets, masks, weights, gradients, draw, saved, seed)


def kept(schedule: MaskSchedule, at: Moment) -> list[int]:
    """Flat positions of the entries that are kept from this moment on."""
    return np.flatnonzero(schedule.change(at).masks["w"]).tolist()


# -- RigL --------------------------------------------------------------------------------------


def test_rigl_drops_the_smallest_and_grows_the_largest_gradients() -> None:
    mask = np.array([[True] * 5, [False] * 5])
    weight = np.array([[0.5, -0.1, 2.0, 0.2, -3.0], [0.0] * 5])
    gradient = np.array([[9.0] * 5, [0.1, -7.0, 0.2, 5.0, 0.3]])
    schedule = RigL(frequency=100, fraction=0.8, end=1.0)
    # .8 / 2 * (1 + cos(pi / 2)) = .4, and .4 * 5 = 2 entries: -0.1 and 0.2 go. Both may grow again,
    # and do, because their gradients are the largest
    assert kept(schedule, moment(500, mask, weight, gradient=gradient)) == [0, 1, 2, 3, 4]
    gradient[0] = 0
    assert kept(schedule, moment(500, mask, weight, gradient=gradient)) == [0, 2, 4, 6, 8]


def test_rigls_fraction_falls_along_a_cosine() -> None:
    schedule = RigL(frequency=100, fraction=0.3, end=0.75)
    assert schedule.dropped_fraction(0, COURSE) == 0.3
    assert schedule.dropped_fraction(375, COURSE) == pytest.approx(0.15)
    assert schedule.dropped_fraction(100, COURSE) == 0.15 * (1 + cos(pi * 100 / 750))
    assert schedule.change_steps(COURSE) == (100, 200, 300, 400, 500, 600, 700)
    mask = np.ones(40, bool)
    mask[20:] = False
    change = schedule.change(
        moment(100, mask, np.arange(40) / 40, gradient=np.arange(40, 0, -1) * 1.0)
    )
    # .2870 * 20 = 5.74: 5 entries
    assert schedule.dropped_fraction(100, COURSE) == pytest.approx(0.2870, abs=1e-4)
    assert np.flatnonzero(change.masks["w"]).tolist() == list(range(20))
    assert change.fresh_slots == "regrown"


def test_erks_densities_are_those_computed_by_hand() -> None:
    """`(inputs + outputs) / (inputs * outputs)` times one factor, 1 where it would be above."""
    shapes = {"a": (784, 300), "b": (300, 100), "c": (100, 10)}
    # at .9: 26,620 of 266,200 entries are kept. The shares sum(shape) / prod(shape) are .004609,
    # .013333 and .11, so the factor is 26620 / (1084 + 400 + 110) = 16.70, and `c` would be 1.837.
    # It is 1 then, and the factor of the others is (26620 - 1000) / (1084 + 400) = 17.2642
    found = densities(shapes, 0.9, "erk")
    assert found["c"] == 1.0
    assert found["a"] == pytest.approx(17.2642 * 1084 / 235200, rel=1e-5)
    assert found["b"] == pytest.approx(17.2642 * 400 / 30000, rel=1e-5)


# -- SET ---------------------------------------------------------------------------------------


def test_set_drops_the_fraction_of_each_sign_that_is_nearest_to_zero() -> None:
    mask = np.zeros(40, bool)
    mask[:10] = True
    weight = np.zeros(40)
    weight[:10] = [0.1, 0.2, 5.0, 6.0, 7.0, 8.0, -0.3, -9.0, -8.0, -7.0]
    schedule = SET(zeta=0.34)
    change = schedule.change(moment(100, mask, weight))
    after = change.masks["w"]
    # of six positive entries .34 * 6 = 2 go, of four negative ones 1
    assert np.flatnonzero(mask & ~after).tolist() == [0, 1, 6]
    assert int(after.sum()) == 10
    assert change.weights is None
    assert change.fresh_slots == "regrown"


def test_set_grows_other_entries_with_another_seed() -> None:
    mask = np.zeros(4000, bool)
    mask[:400] = True
    weight = np.where(mask, np.linspace(-1, 1, 4000), 0)
    grown = [
        set(kept(SET(), moment(100, mask, weight, seed=seed))) - set(range(400))
        for seed in (0, 0, 1)
    ]
    assert grown[0] == grown[1] != grown[2]
    assert len(grown[0]) == 120
    # spread over all masked entries
    assert 1500 < np.mean(list(grown[0])) < 3000


def test_set_drops_entries_that_are_exactly_zero() -> None:
    mask, weight = np.zeros(20, bool), np.zeros(20)
    mask[:4], weight[:4] = True, [1.0, 0.0, 2.0, -3.0]
    after = SET(zeta=0.1).change(moment(100, mask, weight)).masks["w"]
    assert np.flatnonzero(mask & ~after).tolist() == [1]
    assert int(after.sum()) == 4


def test_a_nearly_full_weight_drops_no_more_than_it_can_grow() -> None:
    mask, weight = np.ones(10, bool), np.arange(1.0, 11)
    mask[9] = False
    after = SET(zeta=0.5).change(moment(100, mask, weight)).masks["w"]
    # four go (1, 2, 3, 4), and only one can grow: the three largest of them stay
    assert np.flatnonzero(~after).tolist() == [0]


def test_grown_entries_can_start_from_a_normal_distribution() -> None:
    mask = np.zeros(40000, bool)
    mask[:20000] = True
    weight = np.where(mask, 1.0, 0.0)
    change = SET(zeta=0.5, deviation=0.1).change(moment(100, mask, weight))
    assert change.weights is not None
    started = change.weights["w"][change.masks["w"] & ~mask]
    assert started.size == 10000
    assert abs(started.mean()) < 0.005
    assert started.std() == pytest.approx(0.1, rel=0.03)
    assert np.abs(started).max() < 0.6
    np.testing.assert_array_equal(change.weights["w"][mask], weight[mask])


def test_set_changes_at_the_end_of_each_epoch_but_the_last() -> None:
    assert SET().change_steps(COURSE) == tuple(range(100, 1000, 100))
    assert SET(frequency=300).change_steps(COURSE) == (300, 600, 900)


# -- dense starts ------------------------------------------------------------------------------


def test_gradual_follows_the_formula_of_tfmot() -> None:
    """`PolynomialDecay(initial_sparsity, final_sparsity, begin_step, end_step, power, frequency)`.

    Its formula: `p = min(1, max(0, (step - begin) / (end - begin)))` and
    `sparsity = (initial - final) * (1 - p) ** power + final`.
    """
    schedule = Gradual(initial_sparsity=0.1, begin_step=100, end_step=550, frequency=50)
    assert schedule.change_steps(COURSE) == tuple(range(100, 551, 50))
    for step in schedule.change_steps(COURSE):  # ten steps
        progress = (step - 100) / 450
        expected = (0.1 - 0.8) * (1 - progress) ** 3 + 0.8
        assert schedule.sparsity(0.8, step, 550) == pytest.approx(expected, abs=1e-12)
    mask, target = np.ones(1000, bool), np.arange(1000) < 200
    weight = np.arange(1000.0)
    for step, masked in ((100, 100), (150, 308), (300, 680), (500, 799), (550, 800)):
        after = schedule.change(moment(step, mask, weight, target=target)).masks["w"]
        # 0.8 - 0.7 * (1 - p)^3, for p = 0, 1/9, 4/9, 8/9, 1
        assert int((~after).sum()) == masked
        assert not after[:masked].any()  # the smallest


def test_gradual_never_frees_what_is_masked() -> None:
    mask, weight = np.ones(100, bool), np.arange(100.0)
    mask[90:] = False  # the largest
    schedule = Gradual(end_step=500)
    after = schedule.change(moment(200, mask, weight, target=np.arange(100) < 50)).masks["w"]
    assert not after[90:].any()


def test_iterative_keeps_the_same_fraction_in_each_round_and_rewinds() -> None:
    schedule, mask, weight = Iterative(rounds=2), np.ones(100, bool), np.arange(100.0)
    target, first = np.arange(100) < 4, {"w": np.full(100, 7.0)}
    assert schedule.change_steps(COURSE) == (333, 666)
    assert schedule.rewinds_to(COURSE) == 0
    change = schedule.change(moment(333, mask, weight, target=target, saved=first))
    # sqrt(.04) = .2, and then .2 of that
    assert np.flatnonzero(change.masks["w"]).tolist() == list(range(80, 100))
    assert change.weights == first
    assert change.fresh_slots == "all"
    after = schedule.change(moment(666, change.masks["w"], weight, target=target, saved=first))
    assert np.flatnonzero(after.masks["w"]).tolist() == [96, 97, 98, 99]
    going_on = Iterative(rounds=2, rewind_to=None)
    change = going_on.change(moment(333, mask, weight, target=target))
    assert (change.weights, change.fresh_slots) == (None, "regrown")


def test_dense_sparse_dense_masks_the_smallest_and_then_nothing() -> None:
    schedule, weight = DenseSparseDense(begin=0.2, end=0.6), np.arange(10.0)
    assert schedule.change_steps(COURSE) == (200, 600)
    target = np.arange(10) < 3
    assert kept(schedule, moment(200, np.ones(10, bool), weight, target=target)) == [7, 8, 9]
    assert kept(schedule, moment(600, weight > 6, weight, target=target)) == list(range(10))


def test_one_shot_and_swap_draw_from_the_pattern() -> None:
    mask = np.arange(10) < 3
    assert OneShot(begin_step=50).change_steps(COURSE) == (50,)
    ones = np.ones(10, bool)
    assert kept(OneShot(begin_step=50), moment(50, ones, ones * 1.0, target=mask)) == [0, 1, 2]
    swap = Swap(steps=(5, 9))
    assert kept(swap, moment(5, mask, mask * 1.0)) == [1, 2, 3]
    assert kept(swap, moment(9, mask, mask * 1.0)) == [2, 3, 4]
    assert swap.change(moment(9, mask, mask * 1.0)).fresh_slots == "none"


def test_given_masks_come_as_arrays_or_from_a_file(tmp_path: Path) -> None:
    start = np.arange(10) < 3
    masks = np.array([np.arange(10) == 4, np.arange(10) > 7])
    np.savez(tmp_path / "masks.npz", w=masks.astype(int), other=np.ones(3))
    in_file = Given(steps=(5, 9), path=str(tmp_path / "masks.npz"))
    written_out = Given(steps=(5, 9), masks=[{"w": mask} for mask in masks])
    for schedule in (in_file, written_out):
        assert kept(schedule, moment(5, start, start * 1.0)) == [4]
        assert kept(schedule, moment(9, masks[0], start * 1.0)) == [8, 9]
        assert schedule.change(moment(5, start, start * 1.0)).fresh_slots == "none"
        counts = [schedule.counts({"w": start}, step, COURSE)["w"] for step in (0, 4, 5, 8, 9, 20)]
        assert counts == [3, 3, 1, 1, 2, 2]


def planned(**shapes: tuple[int, ...]) -> Plan:
    """A plan that masks nothing of weights of these names."""
    weights = [Weight(name, shape, "float32", "layer") for name, shape in shapes.items()]
    ones = [np.ones(w.shape, bool) for w in weights]
    return Plan(
        tuple(MaskedWeight(w, m, m * np.float32(0)) for w, m in zip(weights, ones, strict=True))
    )


def test_given_masks_that_do_not_fit_the_weights_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "masks.npz", w=np.full((2, 4), 2), one=np.ones(4))
    in_file = Given(steps=(5, 9), path=str(tmp_path / "masks.npz"))
    written_out = Given(steps=(5,), masks=[{"w": [1, 0, 0, 1]}])
    cases: list[tuple[Given, Plan, str | None]] = [
        (written_out, planned(w=(4,)), None),
        (written_out, planned(w=(3,)), "schedule=given: mask of w=shape [4]: must be of shape [3]"),
        (
            written_out,
            planned(v=(4,)),
            "schedule=given: mask=['w']: must be among the targeted weights v",
        ),
        (in_file, planned(one=(4,)), "mask of one=shape [4]: must be of shape [2, 4]"),
        (in_file, planned(w=(4,)), "mask of w=[2, 2, 2]: must be 0 and 1 only"),
        (in_file, planned(v=(4,)), "a file with masks for v; it has w, one"),
    ]
    for schedule, plan, expected in cases:
        reason = schedule.refuses(HardMask(), plan)
        assert reason == expected or (expected and reason and expected in reason), reason


def test_given_arrays_are_not_rounded_and_steps_may_be_of_numpy() -> None:
    soft = Given(steps=np.array([5]), masks=[{"w": np.full(4, 0.9)}])  # type: ignore[arg-type]
    assert [type(step) for step in soft.steps] == [int]
    assert "must be 0 and 1 only" in (soft.refuses(HardMask(), planned(w=(4,))) or "")
    with pytest.raises(Invalid, match="steps="):
        Swap(steps=(2.5, 7))  # type: ignore[arg-type]


def test_strategies_that_store_kept_values_refuse_given_masks_that_keep_more() -> None:
    half = Plan(tuple(replace(w, mask=np.arange(4) < 2) for w in planned(w=(4,)).weights))
    grows = Given(steps=(5, 9), masks=[{"w": [0, 0, 1, 1]}, {"w": [1, 1, 1, 0]}])
    shrinks = replace(grows, masks=[{"w": [0, 0, 1, 1]}, {"w": [0, 0, 0, 1]}])
    reason = grows.refuses(SparseValues(), half)
    assert reason == (
        "schedule=given: its arrays have places for the 2 entries kept at the start, "
        "and the mask after step 9 keeps 3 of w"
    )
    assert grows.refuses(HardMask(), half) is None
    assert shrinks.refuses(SparseValues(), half) is None


# -- all ---------------------------------------------------------------------------------------

WRONG: list[tuple[type[MaskSchedule], dict[str, object], str]] = [
    (RigL, {"frequency": 0}, "frequency=0: must be 1 or more"),
    (RigL, {"fraction": 0.0}, "fraction=0.0: must be above 0 and at most 1"),
    (RigL, {"end": 1.5}, "end=1.5: must be above 0 and at most 1"),
    (SET, {"zeta": 2.0}, "zeta=2.0: must be above 0 and at most 1"),
    (SET, {"deviation": -1.0}, "deviation=-1.0: must be 0 or above"),
    (Gradual, {"initial_sparsity": 1.0}, "initial_sparsity=1.0: must be a number in [0, 1)"),
    (Gradual, {"begin_step": 9, "end_step": 9}, "end_step=9: must be above 9, the begin_step"),
    (Gradual, {"power": 0.0}, "power=0.0: must be above 0"),
    (Iterative, {"rounds": 0}, "rounds=0: must be 1 or more"),
    (Iterative, {"rewind_to": -1}, "rewind_to=-1: must be 0 or more, or null"),
    (DenseSparseDense, {"begin": 0.7}, "must be above 0.7 and below 1"),
    (OneShot, {"begin_step": 0}, "begin_step=0: must be 1 or more"),
    (Swap, {"steps": (5, 5)}, "steps=[5, 5]: must be whole numbers above 0 in ascending order"),
    (Given, {"steps": (5, 5)}, "steps=[5, 5]: must be whole numbers above 0 in ascending order"),
    (Given, {}, "path=None: must be given, or else masks"),
    (Given, {"path": "a", "masks": []}, "path=path and masks: must be given, or else masks"),
    (Given, {"path": "no.npz"}, "path=no.npz: no such file"),
    (Given, {"masks": [{}, {}]}, "a list with the masks of each of the 1 steps"),
]


@pytest.mark.parametrize(("kind", "settings", "message"), WRONG, ids=lambda v: str(v)[:40])
def test_a_wrong_setting_is_refused(
    kind: type[MaskSchedule], settings: dict[str, object], message: str
) -> None:
    with pytest.raises(Invalid) as raised:
        kind(**settings)
    assert message in str(raised.value)


TOO_SHORT: list[tuple[MaskSchedule, str]] = [
    (RigL(frequency=8), "frequency=8: must be below 7.5"),
    (Gradual(end_step=10), "end_step=10: must be below 10, the training steps"),
    (Gradual(begin_step=7), "begin_step=7: must be below 7, the end_step"),
    (Iterative(rounds=10), "rounds=10: must be below 10"),
    (Iterative(rounds=1, rewind_to=5), "rewind_to=5: must be below 5, the steps of a round"),
    (OneShot(begin_step=10), "begin_step=10: must be below 10"),
    (Swap(steps=(3, 10)), "steps=[3, 10]: must be below 10"),
    (Given(steps=(10,), masks=[{}]), "steps=[10]: must be below 10"),
    (DenseSparseDense(begin=0.05), "a share of 10 steps"),
]


@pytest.mark.parametrize(("schedule", "message"), TOO_SHORT, ids=lambda v: str(v)[:40])
def test_a_training_that_is_too_short_is_refused(schedule: MaskSchedule, message: str) -> None:
    with pytest.raises(Invalid) as raised:
        schedule.change_steps(Course(steps=10, epoch=5))
    assert message in str(raised.value)


def test_changes_come_in_order_and_within_the_training() -> None:
    for schedule in CONTRACT.values():
        steps = schedule.change_steps(COURSE)
        assert list(steps) == sorted(set(steps))
        assert all(0 < step < COURSE.steps for step in steps)


def test_strategies_say_what_they_can_follow() -> None:
    dense_start = "number changes"
    for schedule in CONTRACT.values():
        for follows_all in (HardMask(), SparseValues(), SparseTensor(), SparseTensor("compiled")):
            assert schedule.refuses(follows_all, Plan()) is None
        reason = schedule.refuses(SparseTensor("coo"), Plan())
        if schedule.keeps_counts:
            assert reason is None
        else:
            assert reason is not None
            assert dense_start in reason
        moves = not isinstance(schedule, Static | Swap)
        assert (schedule.refuses(VarList(), Plan()) is not None) == moves


def test_each_schedule_passes_the_contract() -> None:
    assert CONTRACT.keys() == SCHEDULES.keys()
    for name, schedule in CONTRACT.items():
        check_schedule(schedule, changes=name != "static")


@dataclass(frozen=True)
class Losing(RigL):
    """Drops, and grows nothing."""

    def change(self, moment: Moment) -> MaskChange:
        moment.gradients()
        masks = {n: m & (np.abs(moment.weights[n]) > 0.1) for n, m in moment.masks.items()}
        return MaskChange(masks)


@dataclass(frozen=True)
class Chancy(SET):
    """Depends on more than its arguments."""

    def change(self, moment: Moment) -> MaskChange:
        seed = int.from_bytes(os.urandom(4))
        return super().change(replace(moment, seed=seed))


@dataclass(frozen=True)
class Late(RigL):
    """Changes after the last step."""

    def change_steps(self, course: Course) -> tuple[int, ...]:
        return (course.steps,)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (Losing(frequency=5), "keeps_counts, but masked/kernel keeps"),
        (Chancy(frequency=5), "the masks differ between two equal trainings"),
        (Late(), "the steps of the changes must be in order"),
        (Static(), "changes=True, but"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_the_contract_finds_a_wrong_schedule(schedule: MaskSchedule, message: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(message)):
        check_schedule(schedule)
