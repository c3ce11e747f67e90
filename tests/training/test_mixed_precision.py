"""Whole trials whose layers compute with 16 bits."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from masksweep.strategies import STRATEGIES, Invalid
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.results import Report, TrialResult
from masksweep.sweeps.training import loop, pack
from masksweep.sweeps.training.checkpoint import Checkpoints
from masksweep.sweeps.training.run_trial import run
from masksweep.sweeps.training.state import PackMember
from tests.support.selection import by_default
from tests.support.trials import BASE, trial

COLUMNS = {"pattern": {"name": "columns", "sparsity": 0.3}, "held": "init"}


def make(policy: str | None, strategy: str = "weight_mask", **sections: Any) -> Trial:
    train = {**BASE["train"], "epochs": 1, "jit": False, "mixed_precision": policy}
    train |= sections.pop("train", {})
    by_columns = COLUMNS if strategy in ("var_list", "loss_mask") else {}
    if strategy == "row_lookup":
        by_columns = {"pattern": "rows"}
    base = {"strategy": strategy, "model": "logistic", "targets": ["*/kernel"]}
    return trial(**{**base, "speed": {"rounds": 0}, **by_columns, **sections, "train": train})


def sha(result: Any) -> str:
    assert isinstance(result, TrialResult), result
    return result.tags["trial.weights_sha256"]


FLOAT16 = [(strategy, "mixed_float16") for strategy in STRATEGIES]
BFLOAT16 = [(strategy, "mixed_bfloat16") for strategy in STRATEGIES]


@pytest.mark.parametrize(
    ("strategy", "policy"),
    by_default([*FLOAT16, ("hard_mask", "mixed_bfloat16")], [*FLOAT16, *BFLOAT16]),
)
def test_every_strategy_holds_or_leaks_as_it_must(policy: str, strategy: str) -> None:
    result = run(make(policy, strategy, train={"metrics": ["auc"], "steps": 4}))
    assert 0 < result.metrics["test/auc"] < 1
    match STRATEGIES[strategy].role:
        case "control":
            assert result.metrics["integrity/ok"] == 0
            assert result.tags["integrity.through"] == "gradient"
        case "strategy":
            assert result.metrics["integrity/ok"] == 1
            assert result.metrics["integrity/moved"] > 0.5


def test_the_saved_model_has_the_policy_and_weights_of_32_bits(tmp_path: Path) -> None:
    result, single = run(make("mixed_bfloat16")), run(make(None))
    (tmp_path / "model.keras").write_bytes(result.artifacts["model.keras"])
    model = keras.models.load_model(tmp_path / "model.keras")
    assert model.layers[-1].dtype_policy.name == "mixed_bfloat16"
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    assert np.load(io.BytesIO(result.artifacts["masks.npz"])).files
    assert sha(result) != sha(single)
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_an_interrupted_trial_goes_on_to_the_same_bits(
    policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BrokenOff(Exception):
        pass

    def emit(report: Report) -> None:
        if report.steps > 5:
            raise BrokenOff

    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)
    spec = make(policy)
    checkpoints = Checkpoints(str(tmp_path), spec.id, 1e-9)
    with pytest.raises(BrokenOff):
        run(spec, emit, checkpoints)
    assert sha(run(spec, checkpoints=checkpoints)) == sha(run(spec))


def test_trials_of_bfloat16_run_side_by_side_and_those_of_float16_alone(tmp_path: Path) -> None:
    packs = {"launch": {"pack": 2}, "train": {"jit": True}}
    assert "mixed_float16" in make("mixed_float16", **packs).run_alone_reason
    specs = [make("mixed_bfloat16", seed=seed, **packs) for seed in (0, 1)]
    members = [
        PackMember(spec, lambda report: None, Checkpoints(str(tmp_path), spec.id, 60))
        for spec in specs
    ]
    for seed, packed in enumerate(pack.run(members)):
        assert isinstance(packed, TrialResult), packed
        assert "trial.alone" not in packed.tags
        assert packed.metrics["integrity/ok"] == 1
        alone = run(make("mixed_bfloat16", seed=seed))
        assert packed.metrics["test/loss"] == pytest.approx(alone.metrics["test/loss"], abs=0.02)


def test_a_regression_and_a_network_from_a_file(tmp_path: Path) -> None:
    result = run(make("mixed_float16", data="diabetes"))
    assert result.metrics["test/mse"] == pytest.approx(result.metrics["test/loss"], rel=1e-5)
    path = tmp_path / "net.keras"
    keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)]).save(path)
    with pytest.raises(Invalid, match="must be null with model=keras_file"):
        make("mixed_float16", model={"name": "keras_file", "path": str(path)})
