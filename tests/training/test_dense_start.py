"""Trials that train the dense model first, and mask it then, as for pruning."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from masksweep.strategies.core.audit import same_bits, same_weights
from masksweep.sweeps.common.storage import Folder
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.results import TrialResult
from masksweep.sweeps.training import dense_start, pack, preflight, saved_weights
from masksweep.sweeps.training.checkpoint import Checkpoints
from masksweep.sweeps.training.dense_start import dense_trial
from masksweep.sweeps.training.run_trial import build_start, run
from masksweep.sweeps.training.setup import TrialStart
from masksweep.sweeps.training.state import PackMember
from tests.support.trials import trial

MODEL = {"name": "mlp", "hidden": [12, 8], "batch_norm": True, "dropout": 0.2}
TRAIN = {"batch_size": 100, "jit": False}


def make(epochs: int = 0, start: dict[str, Any] | None = None, **sections: Any) -> Trial:
    base = {"model": MODEL, "train": {**TRAIN, "epochs": epochs}, "speed": {"rounds": 0}}
    return trial(**{**base, "start": start or {}, **sections})


def started(given: Trial, folder: Folder | None = None) -> TrialStart:
    start = build_start(given, folder)
    assert isinstance(start, TrialStart)
    return start


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_weights, "_kept", OrderedDict())


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Trial]:
    """The dense trials that are trained for a start, in order."""
    trials: list[Trial] = []
    original = dense_start.single_trial_loop

    def noting(start: TrialStart) -> Any:
        trials.append(start.trial)
        return original(start)

    monkeypatch.setattr(dense_start, "single_trial_loop", noting)
    return trials


def test_a_start_is_the_end_of_a_dense_trial() -> None:
    """To the bit, with its moving statistics and averages: the scores are the same too."""
    averaging = {"name": "adam", "learning_rate": 0.01, "use_ema": True, "ema_momentum": 0.9}
    dense = run(make(2, strategy="dense", optimizer=averaging))
    unmasked = run(make(strategy="dense", optimizer=averaging, start={"epochs": 2}))
    names = {"test/loss", "test/accuracy", "validation/loss"}
    assert unmasked.tags["trial.weights_sha256"] == dense.tags["trial.weights_sha256"]
    assert {n: unmasked.metrics[n] for n in names} == {n: dense.metrics[n] for n in names}


def test_the_dense_trial_is_one_that_anyone_can_run() -> None:
    start = {"epochs": 2, "learning_rate": 0.1}
    masked = make(start=start, strategy="sparse_tensor")
    rate = {"name": "adam", "learning_rate": 0.1}
    assert dense_trial(masked).id == make(2, strategy="dense", optimizer=rate).id
    assert masked.id != make(start={"epochs": 2}, strategy="sparse_tensor").id
    assert masked.id != make(strategy="sparse_tensor").id
    compiled = {"train": {**TRAIN, "jit": True}, "start": start}
    packed = make(**compiled, launch={"pack": 4})
    assert dense_trial(packed).id == dense_trial(make(**compiled)).id
    assert packed.id != make(**compiled).id
    steps = make(start=start, train={**TRAIN, "steps": 30, "switch_at": 3})
    assert dense_trial(steps).id == dense_trial(masked).id
    settings = {"train": {**TRAIN, "epochs": 4, "early_stopping": 2}, "start": start}
    ends = trial(
        model=MODEL, speed={"rounds": 0}, optimizer=rate | {"schedule": "cosine"}, **settings
    )
    assert dense_trial(ends).id == dense_trial(masked).id


def test_the_smallest_of_the_trained_weights_are_masked_and_held() -> None:
    pruned = make(1, start={"epochs": 1}, pattern={"name": "smallest", "sparsity": 0.8})
    start, dense = started(pruned), started(make(strategy="dense", start={"epochs": 1}))
    for masked in start.plan.weights:
        sizes = np.abs(dense.weights[masked.weight.name])
        assert sizes[masked.mask].min() >= sizes[~masked.mask].max()
    result = run(pruned)
    assert result.metrics["integrity/ok"] == 1
    assert result.metrics["integrity/moved"] > 0.9
    assert result.metrics["sparsity/achieved"] == pytest.approx(0.8, abs=0.01)


def test_the_trials_of_a_seed_share_the_dense_training(
    tmp_path: Path, trained: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(str(tmp_path), "rounds")
    first = started(make(start={"epochs": 1}), folder)
    for other in ({"strategy": "projection"}, {"pattern": "smallest"}, {"strategy": "dense"}):
        start = started(make(start={"epochs": 1}, **other), folder)
        assert same_weights(start.weights, first.weights)
    assert len(trained) == 1
    monkeypatch.setattr(saved_weights, "_kept", OrderedDict())  # as in another process
    start = started(make(start={"epochs": 1}, strategy="hard_mask"), folder)
    assert same_weights(start.weights, first.weights)
    assert all(same_bits(a, b) for a, b in zip(start.state, first.state, strict=True))
    assert len(trained) == 1
    started(make(start={"epochs": 1}, seed=1), folder)
    assert len(trained) == 2


def test_tickets_rewind_to_the_dense_start(trained: list[Trial], tmp_path: Path) -> None:
    magnitude = {"name": "magnitude", "round": 1, "rounds": 3, "found_with": {"train": TRAIN}}
    ticket = make(1, start={"epochs": 1}, pattern=magnitude, strategy="projection")
    start = started(ticket, Folder(str(tmp_path), "rounds"))
    dense = started(make(strategy="dense", start={"epochs": 1}))
    assert same_weights(start.weights, dense.weights)
    assert len(trained) == 1
    assert start.plan.sparsity == pytest.approx(0.5, abs=0.01)


@pytest.mark.slow  # compiles two packs
def test_packs_start_there_too(tmp_path: Path) -> None:
    packed = [
        make(seed=s, start={"epochs": 1}, train={**TRAIN, "jit": True}, launch={"pack": 2})
        for s in (0, 1)
    ]
    members = [PackMember(t, lambda r: None, Checkpoints(str(tmp_path), t.id, 60)) for t in packed]
    for result in pack.run(members):
        assert isinstance(result, TrialResult)
        assert result.metrics["test/accuracy"] > 0.3


def test_a_dense_training_that_diverges_ends_the_trial() -> None:
    rate = {"name": "sgd", "learning_rate": 1e30}
    with pytest.raises(Exception, match="diverged: train/loss"):
        run(make(start={"epochs": 1}, optimizer=rate))


@pytest.mark.parametrize(("pattern", "known"), [("smallest", False), ("random", True)])
def test_what_the_preflight_can_know(pattern: str, known: bool) -> None:
    sections = {"pattern": {"name": pattern, "sparsity": 0.99}, "start": {"epochs": 1}}
    (answer,) = preflight.check_plans([make(**sections)])
    assert bool(answer.cut_off) == known
