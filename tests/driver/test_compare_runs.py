"""Tests of the comparison of a trial's second run with its record."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from masksweep.sweeps.driver.compare_runs import compare
from masksweep.sweeps.tracking.run_config import RecordedResults

RECORDED = RecordedResults(
    trial="t", run="r", code="1", status="ok", weights_sha256="ab",
    metrics={"test/loss": 0.5, "test/accuracy": 0.75, "integrity/ok": 1.0,
             "integrity/violations": 0.0, "train/loss": math.nan,
             "speed/step_ms": 1.0, "memory/peak_bytes": 7.0},
    curves={"train/loss": {1: 1.0, 2: 0.5}, "validation/loss": {1: 1.0, 2: 0.6}},
    environment={"python": "3.12", "tensorflow": "2.21"},
)  # fmt: skip


def with_metrics(**changed_metrics: float) -> RecordedResults:
    metrics = {name.replace("__", "/"): value for name, value in changed_metrics.items()}
    return replace(RECORDED, metrics={**RECORDED.metrics, **metrics})


def test_the_same_is_identical_whatever_its_speed_and_memory() -> None:
    now = with_metrics(speed__step_ms=2.0, memory__peak_bytes=8.0)
    verdict = compare(RECORDED, replace(now, run="another"))
    assert (verdict.agreement, verdict.is_same) == ("identical", True)
    assert verdict.explanation() == [
        "weights: the same digest",
        "metrics: the same",
        "curves: the same",
        "verdict: identical",
    ]


def test_a_record_without_audits_by_epoch_is_held_against_the_rest() -> None:
    now = with_metrics(audit__violations=0.0)
    now = replace(now, curves={**RECORDED.curves, "audit/violations": {1: 0.0, 2: 0.0}})
    assert compare(RECORDED, now).agreement == "identical"
    leaky = replace(now, curves={**RECORDED.curves, "audit/violations": {1: 0.0, 2: 9.0}})
    assert compare(now, leaky).agreement == "different"


@pytest.mark.parametrize(
    "now",
    [
        replace(RECORDED, weights_sha256="cd"),
        with_metrics(test__loss=0.5 + 1e-9),
        with_metrics(test__accuracy=0.747),
        replace(RECORDED, curves={**RECORDED.curves, "train/loss": {1: 1.0, 2: 0.5 + 1e-9}}),
    ],
)
def test_a_bit_makes_it_equal_and_not_identical(now: RecordedResults) -> None:
    verdict = compare(RECORDED, now)
    assert (verdict.agreement, verdict.is_same) == ("equal within tolerance", True)


@pytest.mark.parametrize(
    "name",
    ["sparsity/cut_off_units", "sparsity/cut_off_inputs", "integrity/reached", "flops/dense"],
)
def test_what_an_earlier_version_did_not_measure_is_no_difference(name: str) -> None:
    now = replace(RECORDED, metrics={**RECORDED.metrics, name: 3.0})
    assert compare(RECORDED, now).agreement == "identical"
    assert compare(replace(now, metrics={**now.metrics, name: 4.0}), now).agreement == "different"


@pytest.mark.parametrize(
    "now",
    [
        with_metrics(test__loss=0.502),
        with_metrics(train__loss=0.5),
        with_metrics(integrity__violations=1.0),
        with_metrics(integrity__ok=0.9999),
        with_metrics(test__accuracy=0.7),
        replace(RECORDED, metrics={k: v for k, v in RECORDED.metrics.items() if k != "test/loss"}),
        replace(RECORDED, curves={**RECORDED.curves, "train/loss": {1: 90.0, 2: 0.5}}),
        replace(RECORDED, curves={"train/loss": RECORDED.curves["train/loss"]}),
        replace(RECORDED, metrics={"test/loss": 0.5}),
        replace(RECORDED, trial="another"),
        replace(RECORDED, status="skipped", reason="refused"),
        replace(RECORDED, reason="refused otherwise"),
    ],
)
def test_more_than_rounding_is_different(now: RecordedResults) -> None:
    assert not compare(RECORDED, now).is_same


def test_it_says_where_the_curves_part_and_what_else_changed() -> None:
    curves = {"train/loss": {1: 1.0, 2: 0.7}, "validation/loss": {1: 1.0, 2: 0.7}}
    now = replace(
        with_metrics(test__loss=0.7),
        trial="another",
        weights_sha256="cd",
        code="2",
        curves=curves,
        environment={"python": "3.12", "keras": "3.15"},
    )
    verdict = compare(RECORDED, now)
    assert verdict.first_difference == (2, "train/loss")
    assert verdict.explanation() == [
        "weights: another digest",
        "test/loss: 0.5 recorded, 0.7 now",
        "curves: first differ at epoch 2 (train/loss)",
        "config: changed since, it is not the one that was recorded",
        "environment: tensorflow was 2.21, is -",
        "environment: code was 1, is 2",
        "environment: keras was -, is 3.15",
        "verdict: different",
    ]
