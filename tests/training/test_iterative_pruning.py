"""Iterative pruning: each round starts from the same weights, and is saved for the next one."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from masksweep.strategies import Invalid
from masksweep.strategies.patterns.magnitude import Magnitude
from masksweep.strategies.plan import Array
from masksweep.sweeps.common.storage import Folder
from masksweep.sweeps.training import iterative_pruning, run_trial, saved_weights, setup
from masksweep.sweeps.training.loop import single_trial_loop
from masksweep.sweeps.training.setup import TrialStart
from tests.support.trials import trial as make


def started(number: int, seed: int = 0, steps: int = 6, **other: Any) -> TrialStart:
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


def masks(start: TrialStart) -> dict[str, Array]:
    return {w.weight.name: w.mask for w in start.plan.weights}


def by_hand(number: int) -> dict[str, Array]:
    """The masks of round `number`, computed without the tested module."""
    start = started(number)
    round_masks = {name: np.ones(w.shape, bool) for name, w in start.weights.items()}
    for round_number in range(number):
        round_start = started(number)
        weights = tuple(
            type(w)(w.weight, round_masks[w.weight.name], w.held) for w in round_start.plan.weights
        )
        round_start = TrialStart(**{**vars(round_start), "plan": type(round_start.plan)(weights)})
        loop = single_trial_loop(round_start)
        loop.run()
        loop.program.single_program.training.finalize()
        end = loop.program.single_program.effective()
        round_masks = Magnitude(round_number + 1, 5).by_scores(end)
    return round_masks


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_weights, "_kept", OrderedDict())


def test_each_round_follows_from_the_one_before() -> None:
    round_masks, expected = masks(iterative_pruning.with_masks(started(3), None)), by_hand(3)
    for name, mask in expected.items():
        np.testing.assert_array_equal(round_masks[name], mask)


def test_a_shelf_changes_no_mask_and_saves_the_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Folder(str(tmp_path), "rounds")
    alone = masks(iterative_pruning.with_masks(started(3), None))
    monkeypatch.setattr(saved_weights, "_kept", OrderedDict())
    iterative_pruning.with_masks(started(2), shelf)
    monkeypatch.setattr(saved_weights, "_kept", OrderedDict())
    trained: list[int] = []
    original = iterative_pruning._train_round

    def counting(start: TrialStart) -> dict[str, Array]:
        trained.append(1)
        return original(start)

    monkeypatch.setattr(iterative_pruning, "_train_round", counting)
    with_shelf = masks(iterative_pruning.with_masks(started(3), shelf))
    assert len(trained) == 1  # the third; the first two are on the shelf
    for name, mask in alone.items():
        np.testing.assert_array_equal(with_shelf[name], mask)


def test_what_is_damaged_on_the_shelf_is_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Folder(str(tmp_path), "rounds")
    expected = masks(iterative_pruning.with_masks(started(2), shelf))
    monkeypatch.setattr(saved_weights, "_kept", OrderedDict())
    (file,) = (tmp_path / "rounds").iterdir()
    content = bytearray(file.read_bytes())
    content[-30] ^= 1
    file.write_bytes(content)
    for name, mask in masks(iterative_pruning.with_masks(started(2), shelf)).items():
        np.testing.assert_array_equal(mask, expected[name])


def test_the_rounds_may_be_shorter_than_the_trial(tmp_path: Path) -> None:
    """Early-bird tickets: such rounds share the shelf with those of a trial that is as short.

    Reference:
        You et al., Drawing Early-Bird Tickets, ICLR 2020, https://arxiv.org/abs/1909.11957
    """
    shelf = Folder(str(tmp_path), "rounds")
    short = masks(iterative_pruning.with_masks(started(3), shelf))
    files = {path.name for path in (tmp_path / "rounds").iterdir()}
    start = started(3, steps=9, found_with={"train": {"steps": 6}})
    shorter_rounds = iterative_pruning.with_masks(start, shelf)
    assert shorter_rounds.trial is start.trial
    assert {path.name for path in (tmp_path / "rounds").iterdir()} == files
    full_rounds = masks(iterative_pruning.with_masks(started(3, steps=9), None))
    assert any((short[n] != full_rounds[n]).any() for n in short)
    for name, mask in short.items():
        np.testing.assert_array_equal(masks(shorter_rounds)[name], mask)


def test_masks_may_come_from_other_data() -> None:
    data = {"name": "mnist1d", "validation": 0}
    objective = {"objective": "test/loss"}
    from_ordered = {"found_with": {"data": {"shuffled": False}}}
    shuffled = data | {"shuffled": True}
    ordered = masks(iterative_pruning.with_masks(started(2, data=data, **objective), None))
    shuffled_with_ordered = masks(
        iterative_pruning.with_masks(started(2, data=shuffled, **objective, **from_ordered), None)
    )
    shuffled_masks = masks(
        iterative_pruning.with_masks(started(2, data=shuffled, **objective), None)
    )
    for name, mask in ordered.items():
        np.testing.assert_array_equal(shuffled_with_ordered[name], mask)
    assert any((shuffled_masks[n] != ordered[n]).any() for n in shuffled_masks)


def test_a_round_that_a_trial_began_with_stays_on_the_shelf(tmp_path: Path) -> None:
    """The rounds that were trained in between do not stay."""
    shelf = Folder(str(tmp_path), "rounds")
    iterative_pruning.with_masks(started(1), shelf)
    (first,) = (tmp_path / "rounds").iterdir()
    iterative_pruning.with_masks(started(3), shelf)
    remaining = {path.name for path in (tmp_path / "rounds").iterdir()}
    assert first.name in remaining
    assert len(remaining) == 2


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
    first, second = (
        masks(iterative_pruning.with_masks(started(2, seed), shelf)) for seed in (0, 1)
    )
    assert any((first[n] != second[n]).any() for n in first)


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
    monkeypatch.setattr(iterative_pruning, "_train_round", None)
    dense = setup.start(started(3).trial.control)
    assert iterative_pruning.with_masks(dense, None) is dense


def test_only_zeros_are_the_smallest() -> None:
    with pytest.raises(Invalid, match="held=constant: zero with pattern=magnitude"):
        make(strategy="projection", pattern="magnitude", held="constant")


def test_a_strategy_is_asked_again_when_the_masks_are_known() -> None:
    """Before any training the strategy accepts the masks; it refuses the final ones."""
    plain = started(3).trial
    refused = make(
        **{**plain.resolved(), "strategy": {"name": "row_lookup"}, "targets": ["*/kernel"]}
    )
    result = run_trial.run(refused)
    assert result.status == "skipped"
