"""How much of a teacher's mask a student has found, at the end and at each change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from masksweep.strategies.plan import Mask
from masksweep.sweeps.components.datasets.teacher import Teacher
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.results import Report, TrialResult
from masksweep.sweeps.training import loop as training_loop
from masksweep.sweeps.training import run_trial, schedule_plot, setup
from masksweep.sweeps.training.checkpoint import Checkpoints
from masksweep.sweeps.training.loop import single_trial_loop
from masksweep.sweeps.training.recovery import PRECISION, RECALL, recovery
from tests.support.trials import trial as make

TEACHER = {"name": "teacher", "inputs": 8, "units": 4, "connections": 8, "count": 500}


def mask(*units: tuple[int, ...], inputs: int = 4) -> Mask:
    """A mask `[inputs, units]` from the kept inputs of each unit."""
    return np.stack([np.isin(np.arange(inputs), list(unit)) for unit in units], axis=1)


TRUE = mask((0, 1), (2, 3))
CASES: dict[str, tuple[Mask, Mask, float, float]] = {
    "perfect": (TRUE, TRUE, 1.0, 1.0),
    "in another order": (TRUE, mask((2, 3), (0, 1)), 1.0, 1.0),
    "all kept": (TRUE, mask((0, 1, 2, 3), (0, 1, 2, 3)), 0.5, 1.0),
    "none kept": (TRUE, mask((), ()), 0.0, 0.0),
    "nothing found": (mask((0,)), mask((1, 2)), 0.0, 0.0),
    "one wrong and one missing": (TRUE, mask((3,), (0, 1, 2)), 3 / 4, 3 / 4),
    # both units of the student have most in common with the first of the teacher, which gets one
    "one unit twice": (TRUE, mask((0, 1), (0, 1, 2)), 3 / 5, 3 / 4),
    "more units": (TRUE, mask((0, 2), (0, 1), (1, 3), (2, 3), (0, 3)), 1.0, 1.0),
    "fewer units": (TRUE, mask((1, 2, 3)), 2 / 3, 2 / 4),
    # of equal matchings, that with the fewest kept entries
    "equal matchings": (mask((0, 1)), mask((0, 1, 2), (0, 1), (0, 1, 3)), 1.0, 1.0),
    # a unit without connections is not matched: it would take the entries of another unit
    "a unit without connections": (mask((), (0, 1)), mask((0, 1), (2, 3)), 1.0, 1.0),
}


@pytest.mark.parametrize("case", CASES)
def test_precision_and_recall_are_those_of_the_best_matching(case: str) -> None:
    true, kept, precision, recall = CASES[case]
    assert recovery(true, kept) == (pytest.approx(precision), pytest.approx(recall))


def test_the_order_of_the_units_does_not_matter() -> None:
    random = np.random.default_rng(0)
    for units in (3, 6, 9):
        true, kept = random.random((10, 6)) < 0.3, random.random((10, units)) < 0.3
        found = recovery(true, kept)
        for _ in range(20):
            other = recovery(random.permutation(true, axis=1), random.permutation(kept, axis=1))
            assert other == found


# -- trials --------------------------------------------------------------------------------------


def student(schedule: dict[str, Any] | None = None, **sections: Any) -> Trial:
    settings: dict[str, Any] = {
        "data": TEACHER,
        "strategy": "hard_mask",
        "model": {"name": "mlp", "hidden": [6]},
        "pattern": {"name": "random", "sparsity": 0.75},
        "train": {"steps": 12, "batch_size": 50, "jit": False},
        "speed": {"rounds": 0},
        "objective": "test/loss",
        **({"schedule": schedule} if schedule else {}),
    }
    return make(**{**settings, **sections})


RIGL = {"name": "rigl", "frequency": 3}


def curve(result: TrialResult) -> list[dict[str, float]]:
    return [record["measures"] for record in json.loads(result.artifacts["schedule.json"])]


def test_a_student_with_the_mask_of_the_teacher_has_found_all() -> None:
    true = Teacher(inputs=8, units=4, connections=8).true_mask()
    kept = np.concatenate(
        [~true[:, :2], true[:, ::-1]], axis=1
    )  # two other units, and another order
    pattern = {"name": "explicit", "mask": kept.astype(int).tolist()}
    result = run_trial.run(student(pattern=pattern))
    assert (result.metrics[PRECISION], result.metrics[RECALL]) == (1.0, 1.0)
    assert "schedule.json" not in result.artifacts


@pytest.mark.parametrize("schedule", [RIGL, {"name": "gradual", "frequency": 3}])
def test_a_trial_records_what_its_masks_have_found_at_each_change(schedule: dict[str, Any]) -> None:
    trial = student(schedule)
    result = run_trial.run(trial)
    found = curve(result)
    loop = single_trial_loop(setup.start(trial))
    truth = Teacher(inputs=8, units=4, connections=8).true_mask()
    records = json.loads(result.artifacts["schedule.json"])
    for record, measures in zip(records, found, strict=True):
        loop.run(record["step"] + 1)
        (now,) = loop.plan.weights
        assert tuple(measures.values()) == recovery(truth, now.mask)
        assert all(0 <= value <= 1 for value in measures.values())
    assert len(found) > 2
    assert {key: result.metrics[key] for key in (PRECISION, RECALL)} == found[-1]


class BrokenOff(Exception):
    pass


def test_a_resumed_trial_has_the_same_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_loop, "CHUNK_SECONDS", 0.0)  # one step at a time
    trial = student(RIGL)
    whole = run_trial.run(trial)

    def emit(report: Report) -> None:
        if report.steps > 7:
            raise BrokenOff

    def kept() -> Checkpoints:
        return Checkpoints(str(tmp_path), trial.id, 1e-9)

    with pytest.raises(BrokenOff):
        run_trial.run(trial, emit, kept())
    reports: list[Report] = []
    resumed = run_trial.run(trial, reports.append, kept())
    assert reports[0].note == "resumed from step 7"
    assert curve(resumed) == curve(whole)
    assert len({tuple(point.values()) for point in curve(whole)}) > 1


@pytest.mark.parametrize(
    "sections",
    [
        {"data": "diabetes"},
        {"strategy": "dense"},
        # the first kernel is not masked
        {"model": {"name": "mlp", "hidden": [8, 8]}, "targets": ["hidden_2/kernel"]},
        # a first kernel of another shape
        {"model": {"name": "cnn1d", "channels": 4}},
    ],
    ids=lambda sections: str(sections)[:40],
)
def test_other_trials_have_no_recovery(sections: dict[str, Any]) -> None:
    assert PRECISION not in run_trial.run(student(**sections)).metrics


def test_the_picture_has_a_panel_of_its_own_for_the_recovery(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from matplotlib.figure import Figure

    titles: list[list[str]] = []
    saved = Figure.savefig

    def savefig(figure: Figure, *args: Any, **settings: Any) -> None:
        titles.append([axis.get_title(loc="left") for axis in figure.axes])
        saved(figure, *args, **settings)

    monkeypatch.setattr(Figure, "savefig", savefig)
    for data in (TEACHER, {"name": "diabetes"}):
        loop = single_trial_loop(setup.start(student(RIGL, data=data)))
        loop.run()
        assert loop.changes is not None
        assert schedule_plot.draw(loop.changes.records, 12)["schedule.png"]
    (of_teacher, of_other) = titles
    assert of_teacher == [*of_other, "recovery of the teacher's connections"]
