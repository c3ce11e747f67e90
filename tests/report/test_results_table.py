"""Tests of the results table: which trials share a row, the verdict, and what makes it red."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.config.variants import variants
from masksweep.sweeps.report.results_table import (
    any_control_held,
    as_markdown,
    as_text,
    mean_and_interval,
    rows,
    table,
)
from masksweep.sweeps.results import TrialResult
from tests.support.trials import trial

SGD = {"name": "sgd", "learning_rate": 0.1}


def outcomes(trials: list[Trial], **metrics: float) -> list[Outcome]:
    labels = variants(trials)
    return [
        Outcome(t, labels[t.id], "ok", TrialResult("ok", metrics={"test/accuracy": 0.5, **metrics}))
        for t in trials
    ]


def test_the_interval_is_students() -> None:
    mean, half = mean_and_interval([1.0, 2.0, 3.0])
    assert mean == 2
    assert half == pytest.approx(4.3027 * 1 / 3**0.5, rel=1e-4)
    assert mean_and_interval([1.0])[0] == 1


def test_only_seeds_share_a_row() -> None:
    both = [trial(seed=s, optimizer=o) for o in ("adam", SGD) for s in (0, 1)]
    assert [(r.pattern, r.counts) for r in rows(outcomes(both))] == [
        ("random 0.5, adam", "2/0/0"),
        ("random 0.5, sgd", "2/0/0"),
    ]
    assert [r.pattern for r in rows(outcomes(both[:2]))] == ["random 0.5"]


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"optimizer": {"name": "adam", "learning_rate": 0.5}}, "optimizer.learning_rate=0.5"),
        ({"data": "diabetes"}, "diabetes"),
        ({"targets": ["output/*"]}, "targets=['output/*']"),
        ({"train": {"epochs": 3, "batch_size": 100}}, "train.epochs=3"),
        ({"outputs_held": [1]}, "outputs_held=[1]"),
    ],
)
def test_what_tells_trials_apart_is_said(sections: dict[str, Any], told: str) -> None:
    base, other = trial(), trial(**sections)
    assert variants([base, other])[other.id] == told
    assert variants([other])[other.id] == ""


def test_columns_by_their_indices_have_no_sparsity_to_show() -> None:
    chosen = trial(pattern={"name": "columns", "indices": [0, 2]}, targets=["output/*"])
    assert chosen.sparsity is None
    assert chosen.pattern_label == "columns(indices=[0, 2])"


def test_a_leak_is_red_and_a_leak_of_the_control_is_not() -> None:
    leak = {"integrity/ok": 0.0, "integrity/peak_violations": 7.0}
    hold = {"integrity/ok": 1.0, "integrity/peak_violations": 0.0}
    (row,) = rows(outcomes([trial(strategy="projection")], **leak))
    assert (row.verdict, row.violated, row.as_expected) == ("LEAKS in 1 of 1", "7", False)
    (row,) = rows(outcomes([trial(strategy="init_only")], **leak))
    assert (row.verdict, row.as_expected) == ("leaks, as it must", True)
    (row,) = rows(outcomes([trial(strategy="init_only")], **hold))
    assert not row.as_expected
    assert any_control_held(outcomes([trial(strategy="init_only")], **hold))
    assert not any_control_held(outcomes([trial(strategy="init_only")], **leak))
    assert not any_control_held(outcomes([trial(strategy="projection")], **hold))


def test_a_control_that_no_gradient_reaches_is_inconclusive_and_no_alarm() -> None:
    still = {"integrity/ok": 1.0, "integrity/peak_violations": 0.0, "integrity/unreached": 1650.0}
    first, second = (trial(strategy="init_only", seed=s) for s in (0, 1))
    unreached = outcomes([first], **still, **{"integrity/reached": 0.0})
    (row,) = rows(unreached)
    assert (row.verdict, row.as_expected) == ("inconclusive", True)
    assert row.problem == ": no gradient reaches the 1,650 masked entries"
    assert not any_control_held(unreached)
    # a leak in another trial shows that the audit works; a control that is reached but holds is an
    # alarm
    leaking = outcomes([second], **{"integrity/ok": 0.0, "integrity/violations": 7.0})
    assert [r.verdict for r in rows([*unreached, *leaking])] == ["leaks, as it must"]
    reached = outcomes([second], **still, **{"integrity/reached": 1.0})
    (row,) = rows([*unreached, *reached])
    assert (row.verdict, row.as_expected) == ("HOLDS, must leak", False)
    assert any_control_held([*unreached, *reached])


def test_a_control_whose_audit_failed_without_a_leak_is_an_alarm() -> None:
    """If no weight moved, as with a learning rate of 0, the control did not leak."""
    metrics = {"integrity/ok": 0.0, "integrity/violations": 0.0, "integrity/moved": 0.0}
    control = outcomes([trial(strategy="init_only")], **metrics)
    assert [r.verdict for r in rows(control)] == ["HOLDS, must leak"]
    moved = outcomes([trial(strategy="init_only")], **metrics | {"integrity/output_drift": 0.1})
    assert [r.verdict for r in rows(moved)] == ["leaks, as it must"]


def test_the_worst_of_the_trials_counts() -> None:
    trials = [
        *outcomes([trial(seed=0)], **{"integrity/ok": 1.0, "integrity/peak_violations": 0.0}),
        *outcomes([trial(seed=1)], **{"integrity/ok": 0.0, "integrity/peak_violations": 3.0}),
    ]
    (row,) = rows(trials)
    assert (row.verdict, row.violated, row.as_expected) == ("LEAKS in 1 of 2", "3", False)


def test_failed_and_skipped_trials_are_counted() -> None:
    trials = [
        *outcomes([trial(seed=0)]),
        Outcome(trial(seed=1), "", "failed", reason="ValueError"),
        Outcome(trial(seed=2), "", "skipped", reason="cannot"),
    ]
    (row,) = rows(trials)
    assert row.counts == "1/1/1"
    assert not row.as_expected


def test_no_figure_is_cut_at_80_columns() -> None:
    planned = [trial(strategy=s, held="init") for s in ("dense", "init_only", "gradient_mask")]
    finished = outcomes(planned, **{"integrity/ok": 1.0, "integrity/peak_violations": 0.0})
    leak = {"integrity/ok": 0.0, "integrity/peak_violations": 123456.0}
    finished += outcomes([trial(strategy="projection", held="init")], **leak)
    console = Console(width=80, file=io.StringIO())
    console.print(table(finished))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "…" not in text
    assert "HOLDS, must leak" in text
    assert text.count("1/0/0") == 4
    assert "123,456" in text


def test_markdown_and_text_hold_the_same_cells() -> None:
    finished = outcomes([trial(), trial(seed=1)], **{"speed/ratio_to_dense": 1.5})
    assert "weights violated | verdict | ok/fail/skip |" in as_markdown(finished)
    for text in (as_markdown(finished), as_text(finished)):
        assert "50.0 ± 0.0" in text
        assert "1.50" in text
