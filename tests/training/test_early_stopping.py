"""Early stopping in whole trials: what is restored and recorded, and after an interruption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from masksweep.strategies import Invalid
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.results import Report
from masksweep.sweeps.training import loop, preflight, setup
from masksweep.sweeps.training.checkpoint import Checkpoints
from masksweep.sweeps.training.run_trial import run
from tests.support.trials import trial

TRAIN: dict[str, Any] = {"epochs": 20, "batch_size": 400, "jit": False}
STOPPING = {"patience": 2, "monitor": "validation/accuracy"}


def make(strategy: str = "weight_mask", **sections: Any) -> Trial:
    train = {**TRAIN, "early_stopping": STOPPING, **sections.pop("train", {})}
    base = {
        "strategy": strategy,
        "model": "logistic",
        "targets": ["*/kernel"],
        "optimizer": {"name": "sgd", "learning_rate": 4.0, "momentum": 0.9},
        "speed": {"rounds": 0},
    }
    return trial(**{**base, **sections, "train": train})


class BrokenOff(Exception):
    pass


def curve(reports: list[Report]) -> dict[int, dict[str, float]]:
    return {report.epoch: dict(report.metrics) for report in reports if report.metrics}


def test_the_weights_of_the_best_epoch_are_restored_and_held() -> None:
    reports: list[Report] = []
    result = run(make(), reports.append)
    metrics, epochs = result.metrics, curve(reports)
    steps, best_step = (int(metrics[f"early_stopping/{n}"]) for n in ("step", "best_step"))
    per_epoch = steps // result.epochs
    assert steps < per_epoch * TRAIN["epochs"]
    assert result.epochs == best_step // per_epoch + STOPPING["patience"]
    best = epochs[best_step // per_epoch]
    assert metrics["validation/accuracy"] == best["validation/accuracy"]
    assert metrics["validation/loss"] == best["validation/loss"]
    assert best["validation/accuracy"] >= max(m["validation/accuracy"] for m in epochs.values())
    assert metrics["integrity/ok"] == 1
    # the last epoch has its metrics in the result, with those of the training as they were
    assert len(epochs) == result.epochs - 1
    assert metrics["train/loss"] != epochs[result.epochs - 1]["train/loss"]


def test_the_best_weights_are_restored_after_the_last_step_too() -> None:
    spec = make(train={"early_stopping": 1000, "epochs": 7})
    reports: list[Report] = []
    metrics = run(spec, reports.append).metrics
    losses = [m["validation/loss"] for m in curve(reports).values()]
    assert metrics["early_stopping/step"] == 21
    assert metrics["early_stopping/best_step"] == 18
    assert metrics["validation/loss"] == min(losses)


def test_without_it_nothing_of_it_is_recorded() -> None:
    metrics = run(make(train={"early_stopping": None, "epochs": 1})).metrics
    assert not [name for name in metrics if name.startswith("early_stopping")]


@pytest.mark.parametrize("strategy", ["weight_mask", "sparse_values"])
def test_an_interrupted_trial_goes_on_to_the_same_bits(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)
    spec = make(strategy)
    whole = run(spec)
    best = int(whole.metrics["early_stopping/best_step"])
    assert best > 3
    # before the first epoch has ended, at the best one, within the next, and before the stop
    for after in (1, best, best + 1, int(whole.metrics["early_stopping/step"]) - 1):
        checkpoints = Checkpoints(str(tmp_path / str(after)), spec.id, 1e-9)

        def emit(report: Report, after: int = after) -> None:
            if report.steps > after:
                raise BrokenOff

        with pytest.raises(BrokenOff):
            run(spec, emit, checkpoints)
        again = run(spec, checkpoints=checkpoints)
        tag = "trial.weights_sha256"
        assert again.tags[tag] == whole.tags[tag], after
        for name in ("early_stopping/step", "early_stopping/best_step", "test/accuracy"):
            assert again.metrics[name] == whole.metrics[name]


def test_pruning_rounds_stop_early_too() -> None:
    pattern = {"name": "magnitude", "rounds": 3, "round": 1}

    def masks(**train: Any) -> Any:
        from masksweep.sweeps.training import iterative_pruning

        start = iterative_pruning.with_masks(setup.start(make(pattern=pattern, train=train)), None)
        return start.plan.weights[0].mask

    assert not np.array_equal(masks(), masks(early_stopping=None))


def test_data_without_validation_samples_are_refused_before_the_first_trial() -> None:
    spec = make(data={"name": "digits", "validation": 1e-9})
    with pytest.raises(Invalid, match=r"train\.early_stopping=.*digits has no validation samples"):
        preflight.check([make(train={"early_stopping": None}), spec], preflight.check_plans)


def test_it_runs_alone_in_a_sweep_of_packs() -> None:
    spec = make(launch={"pack": 4}, train={"jit": True})
    assert spec.width == 1
    assert "train.early_stopping" in spec.run_alone_reason
