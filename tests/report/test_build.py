"""Tests of the counts and report files of a sweep's parent run."""

from __future__ import annotations

from typing import Any

import pytest

from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.report import build, plots
from masksweep.sweeps.results import TrialResult
from tests.support.trials import trial


def outcome(strategy: str, ok: float | None, status: Any = "ok") -> Outcome:
    metrics = {} if ok is None else {"integrity/ok": ok, "integrity/violations": 3 * (1 - ok)}
    return Outcome(trial(strategy=strategy), "", status, TrialResult("ok", metrics=metrics))


def test_a_control_that_leaks_is_none_of_those_that_do() -> None:
    outcomes = [
        outcome("weight_mask", 1.0),
        outcome("gradient_mask", 0.0),
        outcome("init_only", 0.0),
        Outcome(
            trial(strategy="sparse_values"),
            "",
            "ok",
            TrialResult("ok", metrics={"integrity/ok": 0.0, "integrity/moved": 0.0}),
        ),
        outcome("dense", None),
        outcome("projection", None, "failed"),
        outcome("var_list", None, "skipped"),
    ]
    assert build.count_trials(outcomes) == {
        "trials/ok": 5,
        "trials/failed": 1,
        "trials/skipped": 1,
        "trials/leaking": 1,
    }


def test_a_report_that_fails_takes_nothing_with_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise MemoryError("no room")

    texts = "mine", "Does it hold?", "masksweep run"
    outcomes = [outcome("weight_mask", 1.0)]
    assert b"Does it hold?" in build.build_report(*texts, outcomes, {})["report/report.html"]
    monkeypatch.setattr(plots, "draw_plots", broken)
    assert build.build_report(*texts, outcomes, {}) == {}
    assert "no report was made: MemoryError('no room')" in capsys.readouterr().err
    assert build.build_report(*texts, [], {}) == {}
