"""Tests of the plan of a sweep, before any trial runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from masksweep.sweeps.composing.command_line import compose_plan
from masksweep.sweeps.config.plan import (
    PlannedTrial,
    print_plan,
    recordable_overrides,
    sort_by_program,
    with_answers,
)
from masksweep.sweeps.config.variants import variants
from masksweep.sweeps.results import PreflightAnswer
from tests.support.data_files import write_npz
from tests.support.trials import trial

pytestmark = pytest.mark.usefixtures("hydra_restore_singletons")


def test_a_trial_knows_the_parts_that_it_belongs_to() -> None:
    parts = "++sweep.parts={a:{strategy:[dense,projection]},b:{strategy:dense,held:init}}"
    assert [(p.trial.strategy.name, sorted(p.parts)) for p in compose_plan([parts])] == [
        ("dense", ["a", "b"]),  # dense has no masks, so `held` makes no difference
        ("projection", ["a"]),
    ]


def test_trials_of_one_program_run_one_after_another() -> None:
    def plan_of(strategy: str, seed: int, rate: float = 0.1, steps: int = 5) -> PlannedTrial:
        planned_trial = trial(
            strategy=strategy,
            seed=seed,
            optimizer={"name": "sgd", "learning_rate": rate},
            train={"steps": steps, "batch_size": 100},
        )
        return PlannedTrial(planned_trial, [])

    a, b, c, d = (
        plan_of("projection", 0),
        plan_of("hard_mask", 0),
        plan_of("projection", 1, rate=0.2),
        plan_of("hard_mask", 0, steps=9),
    )
    assert sort_by_program([a, b, c, d]) == [a, c, b, d]
    other = PlannedTrial(trial(strategy="projection", model={"name": "mlp", "hidden": [3]}), [])
    assert sort_by_program([a, other, c]) == [a, c, other]


def test_where_trials_run_is_not_told_but_how_many_side_by_side_is() -> None:
    public_overrides = ["launch.pack=4", "++launch.pack=8", "seed=1"]
    hidden = ["launch.address=auto", "launch.packs=4", "tracking.uri=x", "checkpoint.path=y"]
    assert recordable_overrides([*public_overrides, *hidden]) == public_overrides


def test_a_plan_says_the_task_of_data_from_files_and_tells_files_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [write_npz(tmp_path / f"{i}.npz", x_test=np.full((10, 4), i)) for i in range(2)]
    paths.append(write_npz(tmp_path / "2.npz", y_train=np.ones(40), y_test=np.ones(10)))
    trials = [trial(data={"name": "npz", "path": path}) for path in paths]
    labels = [variants(trials)[t.id] for t in trials]
    digests = [f"data.path=sha256:{str(t.data.digest)[:8]}" for t in trials]
    tasks = ["classification", "classification", "regression"]
    expected = [f"data.task={task}, {d}" for d, task in zip(digests, tasks, strict=True)]
    assert labels == expected
    print_plan([PlannedTrial(t, []) for t in trials], as_json=False)
    lines = capsys.readouterr().out.splitlines()[3:-1]
    pairs = zip(paths, tasks, strict=True)
    assert lines == [f"data=npz data.path={path}: {task}" for path, task in pairs]


def test_a_plan_says_what_runs_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    base = ["strategy=gradient_mask,sparse_tensor", "seed=0,1,2"]
    print_plan(compose_plan([*base, "launch.pack=2"]), as_json=False)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "side by side: 2 packs of at most 2, 3 trials alone"
    print_plan(compose_plan(base), as_json=False)
    assert capsys.readouterr().out.splitlines()[-1] == "6 trials: 6 to run"


def test_a_plan_says_what_is_cut_off_refused_and_chosen(
    capsys: pytest.CaptureFixture[str],
) -> None:
    planned = [PlannedTrial(trial(seed=s), []) for s in (0, 1, 2)]
    answers = {
        planned[0].trial.id: PreflightAnswer(cut_off="hidden_1/kernel 53 of 100 units"),
        planned[1].trial.id: PreflightAnswer("no whole outputs"),
        planned[2].trial.id: PreflightAnswer(chosen="format: block"),
    }
    print_plan(with_answers(planned, answers), as_json=False)
    one, two, three, _ = capsys.readouterr().out.splitlines()
    assert one.endswith("weight_mask, random 0.5, seed 0  cut off: hidden_1/kernel 53 of 100 units")
    assert two.endswith("seed 1  skipped: no whole outputs")
    assert three.endswith("seed 2  format: block")


def test_schedules_are_told_apart_by_their_names() -> None:
    warm = {"name": "cosine", "warmup_steps": 5}
    optimizers = [{"name": "sgd", "schedule": schedule} for schedule in (None, "step", warm)]
    optimizers[1]["schedule"] = {"name": "step", "boundaries": [3]}
    trials = [trial(optimizer=optimizer) for optimizer in optimizers]
    assert [*variants(trials).values()] == [
        "",
        "optimizer.schedule=step(boundaries=[3])",
        "optimizer.schedule=cosine(warmup_steps=5)",
    ]
