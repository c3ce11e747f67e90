"""Tells a control whose entries no gradient can move from a control that is broken."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from masksweep.strategies.binding import Binding
from masksweep.strategies.init_only import InitOnly
from masksweep.sweeps.cli.main import main
from masksweep.sweeps.composing import command_line
from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.report.verdicts import control_held, is_inconclusive
from masksweep.sweeps.results import TrialResult
from masksweep.sweeps.tracking import resume
from masksweep.sweeps.training.run_trial import run
from tests.support.trials import trial

DEAD: dict[str, Any] = {
    "strategy": "init_only",
    "pattern": {"name": "columns", "sparsity": 0.5},
    "targets": ["hidden_1/kernel", "hidden_1/bias"],
    "train": {"epochs": 2, "batch_size": 100, "jit": False},
    "speed": {"rounds": 0},
}
UNITS, INPUTS = 6, 64
"""Number of masked units in the first hidden layer, and of the inputs of each unit."""


def ended(spec: Trial) -> tuple[TrialResult, Outcome]:
    result = run(spec)
    return result, Outcome(spec, "", "ok", result)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_relu_unit_that_is_zeroed_whole_is_reached_by_no_gradient(seed: int) -> None:
    result, outcome = ended(trial(**DEAD, seed=seed))
    assert result.metrics["integrity/violations"] == 0
    assert result.metrics["integrity/reached"] == 0
    assert result.metrics["integrity/unreached"] == UNITS * (INPUTS + 1)
    assert is_inconclusive(outcome)
    assert not control_held(outcome)


@pytest.mark.parametrize(
    "other",
    [
        {"pattern": "random", "targets": ["hidden_1/kernel"]},
        {"model": {"name": "mlp", "hidden": [12, 8], "activation": "elu"}},
        {"held": "init"},
    ],
    ids=str,
)
def test_a_control_that_leaks_is_not_asked(other: dict[str, Any]) -> None:
    result, outcome = ended(trial(**{**DEAD, **other}))
    assert result.metrics["integrity/violations"] > 0
    assert "integrity/reached" not in result.metrics
    assert not control_held(outcome)
    assert not is_inconclusive(outcome)


@pytest.mark.slow  # compiles a pack
def test_in_a_pack_it_says_the_same() -> None:
    from masksweep.sweeps.training import pack
    from masksweep.sweeps.training.checkpoint import Checkpoints
    from masksweep.sweeps.training.state import PackMember

    pack_sections = {**DEAD, "train": {"epochs": 2, "batch_size": 100}, "launch": {"pack": 2}}
    trials = [trial(**pack_sections, seed=s) for s in (0, 1)]
    members = [
        PackMember(t, lambda report: None, Checkpoints("memory://reach", t.id, 60)) for t in trials
    ]
    for result in pack.run(members):
        assert isinstance(result, TrialResult)
        assert result.metrics["integrity/reached"] == 0
        assert result.metrics["integrity/unreached"] == UNITS * (INPUTS + 1)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Breaks the control: it masks the gradients, so its held entries cannot move."""

    def bind(self: InitOnly) -> Binding:
        return Binding(
            init=lambda w, m, h: tf.where(m, w, h),
            gradients=lambda g, m: tf.where(m, g, tf.zeros_like(g)),
        )

    from masksweep.sweeps.training import program_cache

    program_cache.clear_programs()
    monkeypatch.setattr(InitOnly, "bind", bind)
    yield
    program_cache.clear_programs()


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize(
    "other",
    [{}, {"pattern": "random", "targets": ["hidden_1/kernel"]}, {"held": "init"}],
    ids=["dead", "random", "init"],
)
def test_a_control_that_is_broken_is_an_alarm_where_gradients_reach(other: dict[str, Any]) -> None:
    result, outcome = ended(trial(**{**DEAD, **other}))
    assert result.metrics["integrity/violations"] == 0
    assert result.metrics["integrity/held_gradient"] == 0  # as the broken control reports
    if not other:  # no entry can move here, so the broken control looks like a correct one
        assert is_inconclusive(outcome)
        return
    assert result.metrics["integrity/reached"] > 0
    assert control_held(outcome)
    assert not is_inconclusive(outcome)


@pytest.mark.usefixtures("broken")
def test_a_few_reached_entries_among_dead_ones_are_enough_for_the_alarm() -> None:
    mask = np.ones((INPUTS, 12), int)
    mask[:, 0] = 0  # a dead unit: its bias starts at 0
    mask[20, 1] = 0
    pattern = {"name": "explicit", "mask": mask.tolist()}
    result, outcome = ended(trial(**{**DEAD, "targets": ["hidden_1/kernel"], "pattern": pattern}))
    assert result.metrics["integrity/reached"] == 1
    assert result.metrics["integrity/unreached"] == INPUTS
    assert control_held(outcome)


def test_weights_that_do_not_train_are_not_reached() -> None:
    sections = {**DEAD, "pattern": "random", "trainable": ["output/*"]}
    result, outcome = ended(trial(**sections))
    assert result.metrics["integrity/reached"] == 0
    assert is_inconclusive(outcome)


@pytest.mark.usefixtures("hydra_restore_singletons")
@pytest.mark.parametrize(
    ("reached", "exit_code", "words"),
    [
        (0.0, 0, "inconclusive: no gradient reaches the 50 masked"),
        (1.0, 1, "init_only HOLDS: no verdict can be trusted"),
    ],
)
def test_the_exit_code_of_a_sweep_goes_by_whether_anything_reached_its_control(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    empty_store: Path,
    reached: float,
    exit_code: int,
    words: str,
) -> None:
    """The sweep's trials are already recorded as done, so nothing is trained."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, "mlflow.db")
    arguments = ["strategy=init_only,weight_mask", "sweep.name=still"]
    jobs = command_line.compose_plan(arguments)
    with resume.open_sweep(jobs, "still", rerun=False) as (planned, recorder, _):
        recorder.start_sweep("", [])
        recorder.sender.start()
        for plan in planned:
            metrics = {"integrity/ok": 1.0, "integrity/violations": 0.0, "test/accuracy": 0.5}
            if plan.trial.strategy.role == "control":
                metrics |= {"integrity/reached": reached, "integrity/unreached": 50.0 - reached}
            recorder.start_trial(plan.trial, plan.name)
            recorder.end_trial(plan.trial, TrialResult("ok", metrics=metrics))
        recorder.end_sweep("FINISHED", "", {})
        assert recorder.sender.finish(120)
    assert main(["run", *arguments]) == exit_code
    assert words in " ".join(capsys.readouterr().out.split())
