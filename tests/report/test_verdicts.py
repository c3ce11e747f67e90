"""Tests of the text after a verdict: which trial is named, and with which cause."""

from __future__ import annotations

from typing import Any

import pytest

from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.report.results_table import rows
from masksweep.sweeps.report.verdicts import describe_problem
from masksweep.sweeps.results import TrialResult
from tests.support.trials import trial


def ended(seed: int, ok: float, strategy: str = "gradient_mask", **metrics: float) -> Outcome:
    """Returns a trial with the verdict `ok` and other metrics. `through=1` gives it a cause."""
    tags = {"integrity.through": "decay, slots"} if metrics.pop("through", 0) else {}
    audit = {"integrity/ok": ok} | {f"integrity/{k}": v for k, v in metrics.items()}
    return Outcome(
        trial(strategy=strategy, seed=seed),
        "",
        "ok",
        TrialResult("ok", metrics=audit, tags=tags),
    )


def failed(seed: int, reason: str) -> Outcome:
    return Outcome(trial(strategy="gradient_mask", seed=seed), "", "failed", reason=reason)


NAME = "gradient_mask, random 0.5, seed 1"


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"violations": 2, "through": 1}, f": {NAME}, through decay, slots"),
        ({"peak_violations": 2}, f": {NAME}"),
        ({"violations": 0, "peak_violations": 0, "moved": 0}, f": {NAME}, nothing moved"),
        ({"violations": 0, "output_drift": 0.1}, f": {NAME}, a held output moved"),
        (
            {"violations": 0, "frozen_violations": 2},
            f": {NAME}, weights or statistics outside of trainable moved",
        ),
        (
            {"violations": 0, "peak_violations": 0, "moved": 1},
            f": {NAME}, what was saved differs",
        ),
    ],
)
def test_the_first_that_leaks_is_named_with_its_cause(metrics: Any, said: str) -> None:
    trials = [ended(0, 1), ended(1, 0, **metrics), ended(2, 0, violations=9)]
    assert describe_problem(trials) == said


def test_a_control_that_holds_is_named() -> None:
    trials = [ended(0, 0, "init_only", violations=7, through=1), ended(1, 1, "init_only")]
    assert describe_problem(trials) == ": init_only, random 0.5, seed 1"
    assert describe_problem(trials[:1]) == ""


def test_a_trial_that_failed_is_named_after_one_that_leaks() -> None:
    assert describe_problem([ended(0, 1), failed(1, "diverged")]) == f"; failed: {NAME}, diverged"
    failed_and_leaking = [failed(0, "diverged"), ended(1, 0, violations=1)]
    assert describe_problem(failed_and_leaking) == f": {NAME}"
    (row,) = rows([ended(0, 1), failed(1, "word " * 100)])
    assert not row.as_expected
    assert row.problem.startswith(f"; failed: {NAME}, word word")
    assert row.problem.endswith(" ...")
    assert len(row.problem) < 130


def test_nothing_amiss_names_nothing() -> None:
    skipped = Outcome(trial(strategy="var_list"), "", "skipped", reason="no whole outputs")
    dense = Outcome(trial(strategy="dense"), "", "ok", TrialResult("ok"))
    assert (
        describe_problem([ended(0, 1)])
        == describe_problem([skipped])
        == describe_problem([dense])
        == describe_problem([])
        == ""
    )
