"""Schedules of the learning rate in whole trials: alone, in a pack, and after an interruption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from masksweep.strategies import Invalid
from masksweep.sweeps.config.plan import PlannedTrial, group_into_packs, sort_by_program
from masksweep.sweeps.config.trial import Trial, parse
from masksweep.sweeps.results import Report, TrialResult
from masksweep.sweeps.training import loop, pack, preflight, program_cache
from masksweep.sweeps.training.checkpoint import Checkpoints
from masksweep.sweeps.training.run_trial import run
from masksweep.sweeps.training.state import PackMember
from masksweep.sweeps.training.vectorized import PackedProgram
from tests.support.selection import by_default
from tests.support.trials import BASE, trial

WARM_COSINE = {"name": "cosine", "warmup_steps": 5, "alpha": 0.1}
STEP = {"name": "step", "boundaries": [3, 9], "factor": 0.5, "warmup_steps": 4}


def make(schedule: Any, width: int = 1, rate: float = 0.1, **sections: Any) -> Trial:
    optimizer = {"name": "sgd", "learning_rate": rate, "schedule": schedule}
    train = {**BASE["train"], "jit": width > 1, **sections.pop("train", {})}
    launch, speed = {"pack": width}, {"rounds": 0}
    sections = {"model": "logistic", **sections, "optimizer": optimizer}
    return trial(train=train, launch=launch, speed=speed, targets=["*/kernel"], **sections)


def sha(result: Any) -> str:
    assert isinstance(result, TrialResult), result
    return result.tags["trial.weights_sha256"]


@pytest.mark.parametrize("schedule", by_default([WARM_COSINE], [WARM_COSINE, STEP]), ids=str)
def test_trials_of_several_rates_run_side_by_side(schedule: Any, tmp_path: Path) -> None:
    rates = (0.1, 0.3)
    members = [
        PackMember(spec, lambda report: None, Checkpoints(str(tmp_path), spec.id, 60))
        for spec in (make(schedule, 2, rate) for rate in rates)
    ]
    program_cache.clear_programs()
    for rate, packed in zip(rates, pack.run(members), strict=True):
        assert isinstance(packed, TrialResult), packed
        assert "trial.alone" not in packed.tags
        alone = run(make(schedule, rate=rate))
        for name in ("train/loss", "test/loss"):
            assert packed.metrics[name] == pytest.approx(alone.metrics[name], abs=1e-4)
    assert sum(isinstance(p, PackedProgram) for p in program_cache.programs()) == 1


class BrokenOff(BaseException):
    pass


@pytest.mark.parametrize("width", [1, 2])
def test_an_interrupted_trial_goes_on_to_the_same_bits(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 1e-9)
    spec = make(WARM_COSINE, width)

    def training(folder: str, break_at: int | None = None) -> Any:
        def emit(report: Report) -> None:
            if break_at is not None and report.steps > break_at:
                raise BrokenOff

        member = PackMember(spec, emit, Checkpoints(str(tmp_path / folder), spec.id, 1e-9))
        return pack.run([member])[0]

    whole = training("whole")
    for break_at in (3, 8):  # within the warm-up, and after it
        with pytest.raises(BrokenOff):
            training("broken", break_at)
    assert sha(training("broken")) == sha(whole)


def test_schedules_of_other_rates_do_not_share_a_program_alone() -> None:
    shas = {sha(run(make("cosine", rate=rate))) for rate in (0.01, 0.02, 0.01)}
    assert len(shas) == 2
    assert sha(run(make(None))) not in shas


def test_packs_are_planned_over_rates() -> None:
    trials = [make("cosine", 2, rate) for rate in (0.01, 0.02)] + [make("exponential", 2, 0.01)]
    groups = group_into_packs([PlannedTrial(spec, ()) for spec in trials])
    assert [[p.trial.optimizer.learning_rate for p in group] for group in groups] == [
        [0.01, 0.02],
        [0.01],
    ]


@pytest.mark.parametrize(
    ("schedule", "width", "expected"),
    [("cosine", 1, [0.1, 0.1, 0.2]), ("cosine", 2, [0.1, 0.2, 0.1]), (None, 1, [0.1, 0.2, 0.1])],
)
def test_trials_of_one_program_run_one_after_another(
    schedule: str | None, width: int, expected: list[float]
) -> None:
    trials = [make(schedule, width, rate, seed=i) for i, rate in enumerate((0.1, 0.2, 0.1))]
    ordered = sort_by_program([PlannedTrial(spec, ()) for spec in trials])
    assert [p.trial.optimizer.learning_rate for p in ordered] == expected


def test_a_schedule_is_recorded_with_its_settings_and_read_again() -> None:
    spec = make(STEP)
    section = spec.resolved()["optimizer"]["schedule"]
    assert section == STEP
    assert parse(spec.resolved()).id == spec.id != make({**STEP, "boundaries": [3, 8]}).id
    assert make("constant").id == make(None).id == make({"name": "constant"}).id
    assert make({"name": "cosine", "alpha": 0}).id == make("cosine").id


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (
            {"name": "cosine", "warmup_steps": 30},
            "optimizer.schedule.warmup_steps=30: must be below 24, the training steps",
        ),
        (
            {"name": "step", "boundaries": [3, 40], "warmup_steps": 3},
            r"optimizer.schedule.boundaries=\[3, 40\]: must be below 21, the training steps after",
        ),
    ],
)
def test_a_schedule_must_fit_the_training(schedule: Any, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        preflight.check([make(None), make(schedule)], preflight.check_plans)
    preflight.check([make(None), make(schedule, train={"epochs": 9})], preflight.check_plans)
