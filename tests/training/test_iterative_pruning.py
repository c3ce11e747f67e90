"""Masks that go by trainings: each round from the same start, kept for the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from masksweep.strategies import Invalid
from masksweep.strategies.base import Array
from masksweep.strategies.patterns.magnitude import Magnitude
from masksweep.sweeps.common.storage import Folder
from masksweep.sweeps.training import iterative_pruning, run_trial, setup
from masksweep.sweeps.training.loop import alone
from masksweep.sweeps.training.setup import Start
from tests.support.trials import trial as make


def started(number: int, seed: int = 0, steps: int = 6, **other: Any) -> Start:
    found_with = {"found_with": other.pop("found_with", None)}
    return setup.start(
        make(
            strategy="projection",
            pattern={"name": "magnitude", "round": number, "rounds": 5, **found_with},
            targets=["*"],
            train={"steps": steps, "batch_size": 100, "jit": False},
            speed={"rounds": 0},
            seed=seed,
            **other,
        )
    )


def masks(start: Start) -> dict[str, Array]:
    return {w.weight.name: w.mask for w in start.plan.weights}


def by_hand(number: int) -> dict[str, Array]:
    """Round by round, with nothing of the module's."""
    start = started(number)
    kept = {name: np.ones(w.shape, bool) for name, w in start.weights.items()}
    for current in range(number):
        one = started(number)
        weights = tuple(type(w)(w.weight, kept[w.weight.name], w.held) for w in one.plan.weights)
        one = Start(**{**vars(one), "plan": type(one.plan)(weights)})
        loop = alone(one)
        loop.run()
        loop.program.one.training.finalize()
        end = loop.program.one.effective()
        kept = Magnitude(current + 1, 5).by_scores(end)
    return kept


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iterative_pruning, "_last", {})


def test_each_round_follows_from_the_one_before() -> None:
    found, expected = masks(iterative_pruning.with_masks(started(3), None)), by_hand(3)
    for name, mask in expected.items():
        np.testing.assert_array_equal(found[name], mask)


def test_a_shelf_changes_no_mask_and_saves_the_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Folder(str(tmp_path), "rounds")
    alone = masks(iterative_pruning.with_masks(started(3), None))
    monkeypatch.setattr(iterative_pruning, "_last", {})
    iterative_pruning.with_masks(started(2), shelf)
    monkeypatch.setattr(iterative_pruning, "_last", {})
    trained: list[int] = []
    own = iterative_pruning._trained

    def counted(start: Start) -> dict[str, Array]:
        trained.append(1)
        return own(start)

    monkeypatch.setattr(iterative_pruning, "_trained", counted)
    found = masks(iterative_pruning.with_masks(started(3), shelf))
    assert len(trained) == 1  # the third; the first two are on the shelf
    for name, mask in alone.items():
        np.testing.assert_array_equal(found[name], mask)


def test_what_is_damaged_on_the_shelf_is_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Folder(str(tmp_path), "rounds")
    alone = masks(iterative_pruning.with_masks(started(2), shelf))
    monkeypatch.setattr(iterative_pruning, "_last", {})
    (kept,) = (tmp_path / "rounds").iterdir()
    content = bytearray(kept.read_bytes())
    content[-30] ^= 1
    kept.write_bytes(content)
    for name, mask in masks(iterative_pruning.with_masks(started(2), shelf)).items():
        np.testing.assert_array_equal(mask, alone[name])


def test_the_rounds_may_be_shorter_than_the_trial(tmp_path: Path) -> None:
    """Early-bird tickets: they share the shelf with those of a trial that is as short."""
    shelf = Folder(str(tmp_path), "rounds")
    short = masks(iterative_pruning.with_masks(started(3), shelf))
    files = {path.name for path in (tmp_path / "rounds").iterdir()}
    start = started(3, steps=9, found_with={"train": {"steps": 6}})
    found = iterative_pruning.with_masks(start, shelf)
    assert found.trial is start.trial
    assert {path.name for path in (tmp_path / "rounds").iterdir()} == files
    other = masks(iterative_pruning.with_masks(started(3, steps=9), None))
    assert any((short[n] != other[n]).any() for n in short)
    for name, mask in short.items():
        np.testing.assert_array_equal(masks(found)[name], mask)


def test_masks_may_come_from_other_data() -> None:
    data = {"name": "mnist1d", "validation": 0}
    objective = {"objective": "test/loss"}
    from_ordered = {"found_with": {"data": {"shuffled": False}}}
    shuffled = data | {"shuffled": True}
    ordered = masks(iterative_pruning.with_masks(started(2, data=data, **objective), None))
    moved = masks(
        iterative_pruning.with_masks(started(2, data=shuffled, **objective, **from_ordered), None)
    )
    own = masks(iterative_pruning.with_masks(started(2, data=shuffled, **objective), None))
    for name, mask in ordered.items():
        np.testing.assert_array_equal(moved[name], mask)
    assert any((own[n] != ordered[n]).any() for n in own)


def test_a_round_that_a_trial_began_with_stays_on_the_shelf(tmp_path: Path) -> None:
    """Those on the way to it do not."""
    shelf = Folder(str(tmp_path), "rounds")
    iterative_pruning.with_masks(started(1), shelf)
    (first,) = (tmp_path / "rounds").iterdir()
    iterative_pruning.with_masks(started(3), shelf)
    left = {path.name for path in (tmp_path / "rounds").iterdir()}
    assert first.name in left
    assert len(left) == 2


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"model": {}}, r"pattern\.found_with\.model=\{\}: settings of train, data or optimizer"),
        ({"train": 3}, r"pattern\.found_with\.train=3: must be keys and values"),
        ({"train": {"step": 3}}, r"pattern\.found_with\.train\.step=3: unknown key"),
        ({"train": {"steps": 0}}, r"pattern\.found_with\.train\.steps=0: .*greater"),
        ({"data": {"name": "no"}}, r"pattern\.found_with\.data\.name=no: unknown"),
    ],
)
def test_what_rounds_cannot_have_otherwise(given: dict[str, Any], match: str) -> None:
    with pytest.raises(Invalid, match=match):
        started(2, found_with=given)


def test_rounds_of_other_shapes_are_refused() -> None:
    start = started(2, found_with={"data": {"name": "mnist1d"}})
    with pytest.raises(Invalid, match=r"found_with.*weights of the trial's own shapes"):
        iterative_pruning.with_masks(start, None)


def test_another_seed_has_rounds_of_its_own(tmp_path: Path) -> None:
    shelf = Folder(str(tmp_path), "rounds")
    one, other = (masks(iterative_pruning.with_masks(started(2, seed), shelf)) for seed in (0, 1))
    assert any((one[n] != other[n]).any() for n in one)


def test_a_trial_holds_what_was_dropped() -> None:
    result = run_trial.run(started(3).trial)
    assert result.metrics["integrity/ok"] == 1
    assert result.metrics["sparsity/achieved"] == pytest.approx(0.75, abs=0.01)


def test_the_first_round_is_the_dense_training() -> None:
    first = run_trial.run(started(0).trial)
    dense = run_trial.run(started(0).trial.control)
    assert first.tags["trial.weights_sha256"] == dense.tags["trial.weights_sha256"]
    assert "integrity/ok" not in first.metrics


def test_the_dense_control_has_no_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iterative_pruning, "_trained", None)
    dense = setup.start(started(3).trial.control)
    assert iterative_pruning.with_masks(dense, None) is dense


def test_only_zeros_are_the_smallest() -> None:
    with pytest.raises(Invalid, match="held=constant: zero with pattern=magnitude"):
        make(strategy="projection", pattern="magnitude", held="constant")


def test_a_strategy_is_asked_again_when_the_masks_are_known() -> None:
    """Of the masks before any training, whole columns may be left; of the real ones not."""
    base = started(3).trial
    one = make(**{**base.resolved(), "strategy": {"name": "row_lookup"}, "targets": ["*/kernel"]})
    result = run_trial.run(one)
    assert result.status == "skipped"
