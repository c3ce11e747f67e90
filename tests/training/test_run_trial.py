"""One trial: its bits depend neither on earlier trials nor on the chunks of its training."""

from __future__ import annotations

import gc
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from tensorflow.python.framework.func_graph import FuncGraph

from masksweep.strategies import STRATEGIES, Invalid
from masksweep.strategies.core.audit import digest, violations
from masksweep.strategies.core.weights import values
from masksweep.strategies.plan import Plan
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.results import Diverged, Report, TrialResult
from masksweep.sweeps.training import loop, preflight, program_cache
from masksweep.sweeps.training.batches import order
from masksweep.sweeps.training.checkpoint import Checkpoints
from masksweep.sweeps.training.run_trial import run
from masksweep.sweeps.training.setup import program_for, shape, start
from masksweep.sweeps.training.steps import LossLimit, Steps
from tests.support.selection import by_default
from tests.support.trials import BASE, trial

COLUMNS: dict[str, Any] = {
    "pattern": {"name": "columns", "sparsity": 0.3},
    "held": "init",
    "targets": ["output/*"],
}


def make(**sections: Any) -> Trial:
    """A small trial that takes little time.

    It has no timed steps, which would also need a program of the dense control, and no XLA, which
    compiles for longer than such a trial trains. Tests of these give `speed` and `train.jit`.
    """
    train = {"jit": False, **sections.pop("train", BASE["train"])}
    return trial(**{"speed": {"rounds": 0}, "train": train, **sections})


XLA = {**BASE["train"], "jit": "auto"}


def sha(result: TrialResult) -> str:
    return result.tags["trial.weights_sha256"]


def traces() -> list[int]:
    return [p.loop.function.experimental_get_tracing_count() for p in program_cache.programs()]


@pytest.fixture(scope="module", autouse=True)
def _no_programs_of_other_files() -> None:
    """Those may have been traced more than once, as some tests of them do on purpose."""
    program_cache.clear_programs()


def sections_for(strategy: str) -> dict[str, Any]:
    sections = COLUMNS if strategy in ("var_list", "loss_mask") else {}
    return {"strategy": strategy, **({"pattern": "rows"} if strategy == "row_lookup" else sections)}


RUN = ["dense", "weight_mask", "hard_mask", "sparse_values", "sparse_tensor", "var_list"]
"""Strategies that run here by default, one for each way to hold a weight."""


@pytest.mark.parametrize("strategy", by_default(RUN, STRATEGIES))
def test_every_strategy_runs_and_a_second_mask_and_another_rate_compile_nothing(
    strategy: str,
) -> None:
    sections = {**sections_for(strategy), "speed": {"rounds": 1}}
    result = run(make(**sections))
    assert result.status == "ok"
    for name in ("test/loss", "test/accuracy", "validation/loss", "train/accuracy"):
        assert np.isfinite(result.metrics[name])
    assert result.metrics["speed/ratio_to_dense"] > 0
    match make(**sections).strategy.role:
        case "dense":
            assert not [name for name in result.metrics if name.startswith("integrity/")]
        case "control":
            assert result.metrics["integrity/ok"] == 0
            assert result.metrics["integrity/violations"] > 0
            assert result.metrics["integrity/first_violation_step"] == 1
        case "strategy":
            assert result.metrics["integrity/ok"] == 1
            assert result.metrics["integrity/peak_violations"] == 0
            assert result.metrics["integrity/moved"] > 0.5
    assert set(traces()) == {1}
    optimizer = {"name": "adam", "learning_rate": 0.02}
    again = run(make(**sections, seed=1, optimizer=optimizer))
    assert again.metrics["speed/compile_s"] == 0
    assert set(traces()) == {1}


def test_the_artifacts_alone_prove_the_verdict(tmp_path: Path) -> None:
    for strategy in ("weight_mask", "init_only"):
        spec = make(strategy=strategy)
        result = run(spec)
        path = tmp_path / "model.keras"
        path.write_bytes(result.artifacts["model.keras"])
        weights = values(keras.models.load_model(path))
        assert digest(weights) == sha(result)
        masks = np.load(io.BytesIO(result.artifacts["masks.npz"]), allow_pickle=False)
        wrong = sum(int(np.count_nonzero(weights[name][~masks[name]])) for name in masks.files)
        assert wrong == result.metrics["integrity/violations"]
        assert (wrong == 0) == (strategy == "weight_mask")


def test_what_the_masks_cut_off_is_measured() -> None:
    result = run(make(pattern={"name": "random", "sparsity": 0.97}, speed={"rounds": 0}))
    masks = np.load(io.BytesIO(result.artifacts["masks.npz"]), allow_pickle=False)
    kernels = [masks[name] for name in masks.files if name.endswith("kernel")]
    for axis, what in ((0, "units"), (1, "inputs")):
        cut = sum(int((~mask).all(axis=axis).sum()) for mask in kernels)
        assert cut == result.metrics[f"sparsity/cut_off_{what}"] > 0
    assert "sparsity/cut_off_units" not in run(make(strategy="dense")).metrics


@pytest.mark.parametrize(("rounds", "limits"), [(9, True), (4, False), (1, False), (0, False)])
def test_the_step_is_timed_with_an_interval_where_there_are_rounds_for_it(
    rounds: int, limits: bool
) -> None:
    result = run(make(speed={"rounds": rounds}))
    metrics = {name: v for name, v in result.metrics.items() if name.startswith("speed/")}
    assert ({"speed/ratio_low", "speed/ratio_high"} <= metrics.keys()) == limits
    assert ("speed/ratio_to_dense" in metrics) == (rounds > 0)
    assert ("speed/dense_to_dense" in metrics) == ("speed.noisy" in result.tags) == (rounds > 1)
    if limits:
        interval = metrics["speed/ratio_low"], metrics["speed/ratio_high"]
        assert interval[0] <= metrics["speed/ratio_to_dense"] <= interval[1]
        assert metrics["speed/dense_to_dense"] >= 1


@pytest.mark.slow
def test_two_processes_give_the_same_bits() -> None:
    script = (
        "import json, sys\n"
        "from masksweep.sweeps.config.trial import parse\n"
        "from masksweep.sweeps.training.process import prepare_process\n"
        "from masksweep.sweeps.training.run_trial import run\n"
        "prepare_process(1)\n"
        "print(run(parse(json.load(sys.stdin))).tags['trial.weights_sha256'])\n"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script],
            input=json.dumps(BASE),
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for _ in range(2)
    }
    assert digests == {sha(run(make(train=XLA)))}


@pytest.mark.parametrize(
    ("pattern", "format"),
    [
        (
            {"name": "random", "sparsity": 0.75},
            "compiled for hidden_1/kernel; dense for hidden_2/kernel",
        ),
        (
            {"name": "block", "sparsity": 0.75, "block": [16, 16]},
            "block for hidden_1/kernel; compact for hidden_2/kernel",
        ),
        ({"name": "columns", "sparsity": 0.5}, "compact"),
    ],
)
def test_the_chosen_format_is_in_the_plan_and_recorded(
    pattern: dict[str, Any], format: str
) -> None:
    sections = {"model": {"name": "mlp", "hidden": [1040, 16]}, "pattern": pattern}
    auto = make(strategy="sparse_tensor", **sections)
    (answer,) = preflight.check_plans([auto])
    assert answer.chosen == f"format: {format}"
    result = run(auto)
    assert result.metrics["integrity/ok"] == 1
    assert result.tags["strategy.format"] == format
    explicit = make(strategy={"name": "sparse_tensor", "format": "coo"}, **sections)
    assert preflight.check_plans([explicit])[0].chosen == ""


@pytest.mark.parametrize(
    ("hidden", "pattern", "jit", "is_compiled"),
    [
        ([12, 8], "random", "auto", True),  # kernels that are written out
        ([1040], "rows", "auto", True),
        ([1040], "random", "auto", False),  # Numba's products
        ([12, 8], "random", False, False),
    ],
)
def test_auto_compiles_with_xla_where_its_formats_do(
    hidden: list[int], pattern: str, jit: Any, is_compiled: bool
) -> None:
    model, train = {"name": "mlp", "hidden": hidden}, {**BASE["train"], "jit": jit}
    sections = {"model": model, "train": train, "pattern": {"name": pattern, "sparsity": 0.9}}
    trial = make(**sections, strategy="sparse_tensor")
    assert shape(start(trial)).jit == is_compiled
    assert not trial.jit  # the identity does not depend on masks


def test_trials_whose_masks_have_other_formats_do_not_share_a_program() -> None:
    """A random mask may have blocks by chance; the same trial must always have the same bits."""
    blocks = {"name": "block", "sparsity": 0.75, "block": [16, 16]}
    sections = {"model": {"name": "mlp", "hidden": [1040]}, "strategy": "sparse_tensor"}
    program_cache.clear_programs()
    fresh = sha(run(make(**sections, pattern=blocks)))
    program_cache.clear_programs()
    run(make(**sections, pattern={"name": "random", "sparsity": 0.75}))
    assert sha(run(make(**sections, pattern=blocks))) == fresh


def test_rows_and_columns_of_the_same_counts_do_not_share_a_program() -> None:
    sections = {"model": {"name": "mlp", "hidden": [64]}, "strategy": "sparse_tensor"}
    for pattern in ("rows", "columns"):
        result = run(make(**sections, pattern={"name": pattern, "sparsity": 0.5}))
        assert result.metrics["integrity/ok"] == 1


@pytest.mark.parametrize("format", by_default(["auto"], ["auto", "coo", "lookup", "compiled"]))
def test_sparse_kernels_of_convolutions_hold_and_come_close_to_masked_ones(format: str) -> None:
    kernels = {"model": "cnn1d", "targets": ["*/kernel"]}
    sparse = run(make(**kernels, strategy={"name": "sparse_tensor", "format": format}))
    assert sparse.metrics["integrity/ok"] == 1
    loss = run(make(**kernels, strategy="weight_mask")).metrics["train/loss"]
    assert sparse.metrics["train/loss"] == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize(
    "strategy", by_default(["sparse_values"], ["projection", "sparse_values", "sparse_tensor"])
)
def test_a_reused_program_gives_the_same_bits_as_a_fresh_one(strategy: str) -> None:
    program_cache.clear_programs()
    fresh = sha(run(make(strategy=strategy, train=XLA)))
    other = sha(run(make(strategy=strategy, train=XLA, seed=1)))
    assert sha(run(make(strategy=strategy, train=XLA))) == fresh != other


@pytest.mark.slow  # XLA writes all that it compiles
def test_a_process_loads_and_compiles_no_more_than_it_needs(tmp_path: Path) -> None:
    script = (
        "import json, sys\n"
        "from masksweep.sweeps.training.process import prepare_process\n"
        "prepare_process(1)\n"
        # loaded by Keras alone, and still there for others: the trials' data are of scikit-learn
        "assert not {'matplotlib', 'pandas', 'sklearn'} & set(sys.modules)\n"
        "from masksweep.sweeps.training import loop, run_trial\n"
        "from masksweep.sweeps.config.trial import parse\n"
        "loop.CHUNK_SECONDS = 1e-3\n"
        "config = json.load(sys.stdin)\n"
        "for seed in (0, 1):\n"
        "    run_trial.run(parse({**config, 'seed': seed}))\n"
    )
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        input=json.dumps(BASE),
        env={**os.environ, "XLA_FLAGS": f"--xla_dump_to={tmp_path}"},
        capture_output=True,
        text=True,
        check=True,
    )
    modules = [p.name for p in tmp_path.glob("*inference__train*.before_optimizations.txt")]
    assert len(modules) == 2, modules  # weight_mask, and the dense control


@pytest.mark.parametrize(
    "model", [{"name": "mlp", "hidden": [12], "dropout": 0.2, "batch_norm": True}, "cnn1d"]
)
def test_neither_chunks_nor_audits_change_a_bit(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(make(model=model, train=XLA))
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)  # one step at a time
    single_steps = run(make(model=model, train=XLA))
    assert sha(single_steps) == sha(whole)
    names = ("train/loss", "validation/loss", "test/accuracy", "integrity/moved")
    assert [single_steps.metrics[m] for m in names] == [whole.metrics[m] for m in names]
    assert sha(run(make(model=model, train=XLA, audit={"every": 7}))) == sha(whole)


def test_the_last_step_is_audited_whatever_the_interval() -> None:
    leaking = {"strategy": "init_only", "train": {"steps": 5, "batch_size": 100}}
    result = run(make(**leaking, audit={"every": 1000}))
    assert result.metrics["integrity/first_violation_step"] == 5
    result = run(make(**leaking, audit={"every": 3}))
    assert result.metrics["integrity/first_violation_step"] == 3


def test_curves_come_by_epoch_and_the_last_is_the_results_own() -> None:
    reports: list[Report] = []
    result = run(make(train={"epochs": 3, "batch_size": 100}), reports.append)
    names = {f"{part}/{kind}" for part in ("train", "validation") for kind in ("loss", "accuracy")}
    names |= {"audit/violations", "audit/drift"}
    assert [(r.epoch, r.steps, set(r.metrics)) for r in reports if r.metrics] == [
        (1, 12, names),
        (2, 24, names),
    ]
    assert reports[-1] == Report(steps=36, total=36, epoch=3)
    assert [r.steps for r in reports] == sorted({r.steps for r in reports})
    assert result.epochs == 3
    assert names <= set(result.metrics)


def test_what_the_audits_of_each_epoch_saw() -> None:
    reports: list[Report] = []
    # 12 steps an epoch; the audits are at step 20 and at the last step, 36
    settings: dict[str, Any] = {"strategy": "init_only", "audit": {"every": 20}}
    settings["train"] = {"epochs": 3, "batch_size": 100}
    result = run(make(**settings), reports.append)
    violations_by_epoch = [r.metrics.get("audit/violations") for r in reports if r.metrics]
    assert violations_by_epoch[0] is None
    assert violations_by_epoch[1]
    assert max(violations_by_epoch[1], result.metrics["audit/violations"]) == peak(result)
    assert result.metrics["audit/drift"] == result.metrics["integrity/peak_drift"]
    assert {"integrity.png", "weights/hidden_1_kernel.png"} <= set(result.artifacts)


def peak(result: Any) -> float:
    return float(result.metrics["integrity/peak_violations"])


def diverged(trial: Any, checkpoints: Checkpoints | None = None) -> tuple[str, list[Report]]:
    """The error message of a trial that ends early, and its reports with metrics."""
    reports: list[Report] = []
    with pytest.raises(Diverged) as caught:
        run(trial, reports.append, checkpoints)
    return str(caught.value), [r for r in reports if r.metrics]


EXPLODING = {
    "data": "diabetes",  # epochs of 15 steps
    "objective": "test/mse",
    "model": "logistic",
    "targets": ["output/kernel"],
    "optimizer": {"name": "sgd", "learning_rate": 0.5},
    "train": {"epochs": 10, "batch_size": 20},
}


def test_a_trial_whose_loss_explodes_ends_early_with_its_curve() -> None:
    message, (first, second) = diverged(make(**EXPLODING))
    match = re.fullmatch(
        r"diverged: train/loss (\S+) at step (\d+), (\S+) before training", message
    )
    assert match
    loss, step, before = map(float, match.groups())
    assert loss > 1000 > before
    assert 15 < step == second.steps < 30
    assert first.metrics.keys() > {"train/loss", "validation/loss"}
    assert second.metrics == {"train/loss": pytest.approx(loss, rel=0.1)}


@pytest.mark.parametrize("jit", [True, False])
def test_a_trial_whose_loss_is_no_number_ends_early(jit: bool) -> None:
    optimizer = {"name": "sgd", "learning_rate": 1e38}
    train = {"epochs": 2, "batch_size": 100, "jit": jit}
    message, (report,) = diverged(make(optimizer=optimizer, train=train))
    loss = report.metrics["train/loss"]
    assert not np.isfinite(loss)
    assert message == f"diverged: train/loss is {loss} at step {report.steps}"
    assert report.steps < 12


@pytest.mark.parametrize("strategy", ["dense", "weight_mask"])
def test_a_trial_whose_last_update_makes_nan_has_diverged(strategy: str) -> None:
    """The loss of a step is computed before its update, so it does not show this."""
    optimizer = {"name": "sgd", "learning_rate": 1e25}
    train = {"steps": 1, "batch_size": 100, "jit": False}
    model = {"name": "mlp", "hidden": [12, 8]}
    trial = make(strategy=strategy, model=model, optimizer=optimizer, train=train)
    message, _ = diverged(trial)
    assert message == "diverged: the outputs are NaN after step 1"


def test_neither_chunks_nor_resuming_change_where_a_trial_ends_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exploding = make(**EXPLODING)
    message, reports = diverged(exploding)
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)
    checkpoints = [Checkpoints(str(tmp_path), exploding.id, 1e-9) for _ in range(2)]
    assert diverged(exploding, checkpoints[0]) == (message, reports)
    resumed_message, resumed_reports = diverged(exploding, checkpoints[1])
    assert resumed_message == message
    assert [(r.epoch, r.metrics) for r in resumed_reports] == [
        (r.epoch, r.metrics) for r in reports
    ]
    newest = max((tmp_path / exploding.id).iterdir())
    assert newest.name == f"{reports[-1].steps - 1:012d}.checkpoint"


def test_steps_that_are_timed_go_on_whatever_the_loss() -> None:
    first = start(make(optimizer={"name": "sgd", "learning_rate": 1e38}))
    x, y = first.data.train
    rows = order(first.trial, len(x), 0)
    (progress,) = program_for(first).run(x, y, rows, Steps(0, 20))
    assert progress.steps == 20
    assert np.isnan(progress.loss)


def test_a_limit_is_for_the_whole_epochs_mean() -> None:
    first = start(make(optimizer={"name": "sgd", "learning_rate": 0.01}))
    x, y = first.data.train
    rows = order(first.trial, len(x), 0)  # of 12 steps
    for begin in (3, 12 + 3):
        for loss, steps in ((2999.0, 5), (3001.0, 0)):
            limit = LossLimit(loss, 1000.0)
            (progress,) = program_for(first).run(x, y, rows, Steps(begin, 5), [limit])
            assert progress.steps == steps


def test_a_trial_that_is_not_active_makes_no_step() -> None:
    first = start(make())
    x, y = first.data.train
    rows = order(first.trial, len(x), 0)
    limit = LossLimit(active=False)
    (progress,) = program_for(first).run(x, y, rows, Steps(0, 5), [limit])
    assert progress.steps == 0


def test_steps_may_end_within_an_epoch() -> None:
    result = run(make(train={"steps": 20, "batch_size": 100}))
    assert result.epochs == 2  # 12 steps an epoch


def test_strategies_start_from_the_same_weights_masks_and_data_order() -> None:
    first_trial, second_trial = make(strategy="projection"), make(strategy="gradient_mask")
    first, second = start(first_trial), start(second_trial)
    assert digest(first.weights) == digest(second.weights)
    assert digest(first.weights) != digest(start(make(strategy="projection", seed=1)).weights)
    for a, b in zip(first.plan.weights, second.plan.weights, strict=True):
        assert (a.mask == b.mask).all()
    assert sha(run(first_trial)) == sha(run(second_trial))


def test_a_refused_plan_is_skipped_with_the_reason() -> None:
    result = run(make(strategy="var_list"))
    assert result.status == "skipped"
    assert "whole outputs" in result.reason
    assert not result.metrics


def test_regression_is_measured_as_such() -> None:
    result = run(make(data="diabetes", objective="test/mse"))
    assert result.metrics["test/mse"] == pytest.approx(result.metrics["test/loss"])
    assert "test/accuracy" not in result.metrics
    assert result.metrics["integrity/ok"] == 1


@pytest.mark.parametrize("strategy", ["init_only", "weight_mask"])
def test_where_nothing_is_masked_there_is_no_verdict(strategy: str) -> None:
    result = run(make(strategy=strategy, pattern={"name": "random", "sparsity": 0.0}))
    assert "integrity/ok" not in result.metrics
    assert result.metrics["sparsity/achieved"] == 0


def test_a_held_output_that_moves_fails_the_audit_although_its_weights_stand() -> None:
    columns = {"name": "columns", "indices": [0]}
    held = {"targets": ["output/*"], "held": "init", "pattern": columns, "outputs_held": [0]}
    moving = run(make(strategy="gradient_mask", **held))
    assert moving.metrics["integrity/violations"] == 0
    assert moving.metrics["integrity/output_drift"] > 0
    assert moving.metrics["integrity/ok"] == 0
    still = run(make(strategy="gradient_mask", **held, trainable=["output/*"]))
    assert still.metrics["integrity/output_drift"] == 0
    assert still.metrics["integrity/ok"] == 1


def test_ema_is_written_at_the_end_and_audited_after_it() -> None:
    optimizer = {"name": "adam", "learning_rate": 0.01}
    held = {"strategy": "projection", "held": {"name": "constant", "value": 0.5}}
    averaged = run(make(**held, optimizer={**optimizer, "use_ema": True}))
    assert averaged.metrics["integrity/ok"] == 1
    assert sha(averaged) != sha(run(make(**held, optimizer=optimizer)))


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"train": {"batch_size": 5000}}, "train.batch_size"),
        ({"targets": ["nope"]}, "targets"),
        ({"model": "logistic"}, "targets"),
        ({"outputs_held": [10]}, "outputs_held"),
        ({"pattern": {"name": "explicit", "mask": [[1]]}, "targets": ["output/kernel"]}, "mask"),
        ({"pattern": {"name": "columns", "indices": [10]}, "targets": ["output/*"]}, "indices"),
        ({"pattern": {"name": "n_m", "n": 1, "m": 7}}, "pattern.m"),
        ({"trainable": ["nope"]}, "trainable"),
    ],
)
def test_what_does_not_fit_the_model_is_named(sections: dict[str, Any], key: str) -> None:
    with pytest.raises(Invalid) as caught:
        run(make(**sections))
    assert key in caught.value.key


def test_violations_are_none_for_an_empty_plan() -> None:
    assert violations({}, Plan()) == (0, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["gradient_mask", "var_list"])
def test_a_program_that_is_let_go_leaves_nothing_behind(strategy: str) -> None:
    """A `tf.custom_gradient` would fail: TensorFlow keeps its graph and variables for ever."""
    graph_counts = []
    for _ in range(3):
        program_cache.clear_programs()
        run(make(**sections_for(strategy), train={"steps": 2}, speed={"rounds": 0}))
        program_cache.clear_programs()
        gc.collect()
        graph_counts.append(sum(isinstance(o, FuncGraph) for o in gc.get_objects()))
    assert graph_counts[1] == graph_counts[2]
