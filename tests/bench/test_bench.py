"""Tests of `masksweep bench`: which cases it times, how, and the files and runs that it writes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from mlflow import MlflowClient

from masksweep.strategies import Invalid
from masksweep.strategies.core.training import Training
from masksweep.strategies.core.weights import describe, make_plan, values
from masksweep.strategies.dense import Dense
from masksweep.strategies.held.zero import Zero
from masksweep.strategies.patterns.columns import Columns
from masksweep.strategies.patterns.random import Random
from masksweep.strategies.plan import Plan
from masksweep.strategies.registry import STRATEGIES
from masksweep.strategies.sparse_tensor import SparseTensor
from masksweep.strategies.var_list import VarList
from masksweep.strategies.weight_mask import WeightMask
from masksweep.sweeps.bench import cases, driver, fits, formats, peers, report, timing, trials
from masksweep.sweeps.bench.cases import SIZES, Case, Size
from masksweep.sweeps.bench.controls import FusedAdam
from masksweep.sweeps.cli import bench
from masksweep.sweeps.components.models.mlp import MLP
from masksweep.sweeps.components.optimizers.adam import Adam
from masksweep.sweeps.training import process
from masksweep.sweeps.training.timing import time_in_turn

TINY = Size("S", 12, (16, 8), 4)
KEYS = {
    "size", "strategy", "format", "pattern", "sparsity", "step_ms", "dense_ms", "ratio_to_dense",
    "ratio_low", "ratio_high", "ratio_same_compiler",
}  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sizes", "S,XL"], "--sizes=XL: must be of S, M, L"),
        (["--sizes", ""], "--sizes=: must be of S, M, L"),
        (["--strategies", "dense"], "--strategies=dense: must be of gradient_mask"),
        (["--sparsities", ".5,1"], "--sparsities=.5,1: numbers in (0, 1)"),
        (["--sparsities", "half"], "--sparsities=half: numbers in (0, 1)"),
        (["--threads", "0"], "--threads=0: must be 1 or more"),
        (["--json", "no/such/folder.json"], "--json=no/such/folder.json: must be a .json file"),
        (["--json", "bench.txt"], "--json=bench.txt: must be a .json file"),
        (["--quick"], "unrecognized arguments: --quick"),
        (["--trials", "--sizes", "S"], "--trials=True: without --sizes"),
        (["--trials", "--peers"], "--trials=True: without --sizes"),
        (["--fit", "--sparsities", ".5"], "--fit=True: without --sizes"),
        (["--fit", "--trials"], "--fit=True: without --trials"),
    ],
)
def test_bad_input_is_refused(arguments: list[str], said: str) -> None:
    with pytest.raises(Invalid) as refused:
        bench.parse_options(arguments)
    assert said in str(refused.value)


def test_peers_that_are_not_there_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    with pytest.raises(Invalid, match="none is installed: torch, sparselab, jax"):
        bench.parse_options(["--peers"])
    assert peers.cases(SIZES["S"], [0.9], 1) == []


def test_bad_input_ends_before_tensorflow_starts() -> None:
    code = (
        "import sys; from masksweep.sweeps.cli.main import main;"
        "code = main(['bench', '--sizes', 'Q']);"
        "sys.exit(code if 'tensorflow' not in sys.modules else 99)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 2
    assert process.stderr == "masksweep: --sizes=Q: must be of S, M, L\n"


def test_every_strategy_and_format_is_timed_on_what_can_change_its_time() -> None:
    kinds = list(cases.timed_strategies().values())
    assert set(cases.timed_strategies()) == set(STRATEGIES) - {"dense"}
    all_cases = cases.cases(TINY, kinds, [0.5, 0.9])
    case_keys = {(c.strategy.name, c.format, c.pattern.name, c.sparsity) for c in all_cases}
    assert len(case_keys) == len(all_cases)
    assert {name for name, *_ in case_keys} == set(cases.timed_strategies())
    for name, kind in [("weight_mask", "where"), ("weight_mask", "product")]:
        patterns = {(p, s) for n, f, p, s in case_keys if (n, f) == (name, kind)}
        assert patterns == {("random", 0.5), ("random", 0.9)}
    for kind in ("auto", "coo", "lookup", "compiled", "block", "compact", "dense"):
        patterns = {p for n, f, p, s in case_keys if (n, f, s) == ("sparse_tensor", kind, 0.9)}
        assert patterns == {"random", "rows", "columns", "block"}
    assert ("sparse_tensor", "coo", "n_m", 0.5) in case_keys
    assert ("var_list", "with biases", "columns", 0.9) in case_keys
    loss_mask_cases = {(p, s) for n, _, p, s in case_keys if n == "loss_mask"}
    assert loss_mask_cases == {("columns", 0.5), ("columns", 0.9)}
    assert not cases.cases(TINY, [STRATEGIES["loss_mask"]], [0.99])  # masks all ten outputs


def test_stretches_take_turns_and_are_long_enough() -> None:
    calls: list[tuple[str, int]] = []

    def run(name: str, seconds: float) -> Any:
        def steps(count: int) -> None:
            calls.append((name, count))
            # processor time: on a busy machine the wall-clock time is longer
            end = seconds * count + time.process_time()
            while time.process_time() < end:
                pass

        return steps

    round_times = time_in_turn([run("slow", 0.04), run("quick", 0.002)], 4)
    assert [len(times) for times in round_times] == [2, 2, 2, 2]
    last = calls[-8:]
    assert [name for name, _ in last] == ["slow", "quick"] * 4
    assert all(count == 1 for name, count in last if name == "slow")
    assert all(count >= 8 for name, count in last if name == "quick")
    assert all(slow >= 0.04 and quick >= 0.002 for slow, quick in round_times)


def test_the_fused_control_trains_as_keras_adam_does() -> None:
    keras.utils.set_random_seed(0)
    model = MLP(hidden=(16, 8)).build((12,), 10)
    rng = np.random.default_rng(0)
    x, y = (
        tf.constant(rng.standard_normal((32, 12), np.float32)),
        tf.constant(rng.integers(0, 10, 32)),
    )
    start, final_weights = list(values(model).values()), []
    for optimizer in (FusedAdam(0.01), Adam(0.01)):
        for variable, value in zip(model.trainable_variables, start, strict=True):
            variable.assign(value)  # training changes the model's own variables
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        training = Training(model, Dense(), Plan(), optimizer=optimizer.build(), loss=loss)
        step = tf.function(training.step, autograph=False)
        for _ in range(20):
            step(x, y)
        final_weights.append([np.asarray(v) for v in training.effective()])
    for fused, plain, before in zip(*final_weights, start, strict=True):
        np.testing.assert_allclose(fused, plain, atol=1e-4)
        assert np.abs(fused - before).max() > 0.05


# not auto: it takes compact here, whose kernel has the shape of the layer's own and so is that one
@pytest.mark.parametrize("strategy", [VarList(), *map(SparseTensor, ("coo", "lookup", "compiled"))])
def test_what_the_other_layers_have_learned_or_were_given_stays(strategy: Any) -> None:
    """A clone of the model would lose the statistics, and could not copy the Lambda layer."""
    normalize = keras.layers.Normalization()
    normalize.adapt(np.random.default_rng(0).normal(5, 3, (100, 20)))
    double = keras.layers.Lambda(lambda x: 2 * x)
    layers = [keras.Input((20,)), normalize, double, keras.layers.Dense(8), keras.layers.Dense(2)]
    model = keras.Sequential(layers)
    plan = make_plan(
        describe(model), values(model), masks=Columns(0.0).from_weights, held=Zero().values
    )
    loss = keras.losses.MeanSquaredError()
    x = tf.constant(np.random.default_rng(1).normal(5, 3, (4, 20)), tf.float32)
    kernel, expected = model.layers[-2].kernel, model(x)
    start = kernel.numpy()
    training = Training(model, strategy, plan, optimizer=keras.optimizers.SGD(), loss=loss)
    np.testing.assert_allclose(training.forward(x, training=False)[0], expected, atol=1e-5)
    kernel.assign(start + 1)  # outside of the training, the layer computes with its own kernel
    assert not np.allclose(training.forward(x, training=False)[0], model(x), atol=0.1)


def test_a_case_that_is_refused_or_too_large_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    bench_setup = timing.BenchSetup(TINY)
    refused = timing.measure(bench_setup, Case(TINY, VarList(), Random(0.9), 0.9))
    assert isinstance(refused, timing.Untimed)
    assert "whole outputs" in refused.reason
    memory = type("Memory", (), {"available": 1000})
    monkeypatch.setattr(timing.psutil, "virtual_memory", lambda: memory)
    large = timing.measure(bench_setup, Case(TINY, SparseTensor("coo"), Random(0.9), 0.9))
    assert isinstance(large, timing.Untimed)
    assert "are free" in large.reason
    assert not large.failed


def test_a_case_that_fails_says_so_and_takes_no_other_with_it() -> None:
    bench_setup = timing.BenchSetup(TINY)
    broken = timing.measure(bench_setup, Case(TINY, WeightMask(), Columns(0.5, indices=(99,)), 0.5))
    assert isinstance(broken, timing.Untimed)
    assert broken.failed
    assert "99" in broken.reason
    assert isinstance(
        timing.measure(bench_setup, Case(TINY, WeightMask(), Random(0.5), 0.5)), timing.Row
    )


def test_ratios_are_to_the_faster_control_and_to_the_one_compiled_alike() -> None:
    def takes(seconds: float) -> Any:
        return lambda count: time.sleep(seconds * count)

    bench_setup = timing.BenchSetup(TINY)
    bench_setup.controls, bench_setup.fastest_control = (takes(0.02), takes(0.04)), 0
    label = Case(TINY, WeightMask(), Random(0.5), 0.5).label
    for xla, alike in [(False, 1.5), (True, 0.75)]:
        row = timing._row(label, takes(0.03), bench_setup, xla)
        assert row.ratio_to_dense == pytest.approx(1.5, rel=0.2)
        assert row.ratio_same_compiler == pytest.approx(alike, rel=0.2)
        assert row.ratio_low is not None
        assert row.ratio_high is not None
        assert row.ratio_low <= row.ratio_to_dense <= row.ratio_high
    assert timing._row(label, takes(0.03), bench_setup).ratio_same_compiler is None


@pytest.mark.parametrize("library", list(peers.FORMATS))
def test_a_peer_trains_in_its_own_process_or_says_why_not(library: str) -> None:
    for format_name in peers.FORMATS[library]:
        case = peers.PeerCase(TINY, library, format_name, 0.0 if format_name == "dense" else 0.5, 1)
        if find_spec(library):
            with peers.train_in_child(case) as run:
                run(3)
        else:
            needed = {"sparselab": ("torch", "sparselab")}.get(library, (library,))
            missing = next(name for name in needed if not find_spec(name))
            message = f"ModuleNotFoundError: No module named '{missing}'"
            with pytest.raises(RuntimeError, match=message), peers.train_in_child(case):
                pass


@pytest.mark.slow
def test_the_plot_has_one_line_of_each_strategy_and_those_of_others() -> None:
    def row(strategy: str, format: str, pattern: str) -> timing.Row:
        label = {"size": "S", "strategy": strategy, "format": format, "pattern": pattern}
        times = dict.fromkeys(("step_ms", "dense_ms", "ratio_to_dense"), 1.0)
        none = dict.fromkeys(("ratio_low", "ratio_high", "ratio_same_compiler"))
        return timing.Row(**label, sparsity=0.5, **times, **none)

    kept = [
        row("torch", "dense", "-"),
        row("torch", "csr", "random"),
        row("sparse_tensor", "auto", "random"),
        row("sparse_tensor", "coo", "random"),
        row("var_list", "-", "columns"),
        row("weight_mask", "where", "random"),
    ]
    others = [
        row("sparse_tensor", "auto", "rows"),
        row("sparse_tensor", "lookup", "random"),
        row("var_list", "with biases", "columns"),
        row("weight_mask", "product", "random"),
    ]
    assert report.drawn([*kept, *others]) == kept


def test_a_bench_leaves_a_table_a_plot_a_file_and_a_run(tmp_path: Path) -> None:
    arguments = ["--sizes", "S", "--strategies", "var_list", "--sparsities", ".9"]
    process = subprocess.run(
        [sys.executable, "-m", "masksweep.sweeps.cli", "bench", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert process.returncode == 0, process.stderr
    assert "var_list with biases" in process.stdout
    assert all(len(line) <= 80 for line in process.stdout.splitlines())
    results = json.loads((tmp_path / "bench.json").read_text())
    assert {"python", "processor", "intra_op_threads"} <= results["environment"].keys()
    assert all(row.keys() == KEYS for row in results["rows"])
    timed = [(row["strategy"], row["format"], row["pattern"]) for row in results["rows"]]
    assert timed == [
        ("var_list", "-", "columns"),
        ("var_list", "with biases", "columns"),
    ]
    for row in results["rows"]:
        assert row["ratio_low"] <= row["ratio_to_dense"] <= row["ratio_high"]
    assert set(results["controls"]["S"]) == set(timing.CONTROL_NAMES)
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("masksweep")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("bench", "FINISHED")
    assert "var_list with biases" in run.data.tags["mlflow.note.content"]
    assert {f.path for f in client.list_artifacts(run.info.run_id)} == {"bench.json", "bench.png"}
    (point,) = client.get_metric_history(run.info.run_id, "ratio/S/var_list/columns")
    assert (point.step, point.value) == (900, results["rows"][-2]["ratio_to_dense"])


@pytest.mark.slow
def test_what_was_measured_outlives_an_interruption(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    arguments = ["--sizes", "S", "--strategies", "weight_mask,projection", "--sparsities", ".5,.9"]
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "masksweep.sweeps.cli",
            "bench",
            *arguments,
            "--json",
            str(path),
        ],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "x dense" in line:
                process.send_signal(signal.SIGINT)
                break
        process.stderr.read()
    assert process.returncode == 130
    assert 1 <= len(json.loads(path.read_text())["rows"]) < 6


def test_a_driver_that_dies_is_told(tmp_path: Path) -> None:
    recording = driver.Driver(tmp_path)
    recording.tell("log", lambda: None)
    with pytest.raises(AttributeError, match="pickle"):
        recording.end_sweep()
    recording._child._process.kill()
    for _ in range(100):  # more than a pipe's buffer holds; the dead process reads nothing
        recording.tell("log", "x" * 10_000)
    with pytest.raises(RuntimeError, match="the driver has died"):
        recording.end_sweep()
    recording.close()


def test_the_table_groups_what_was_not_timed() -> None:
    from rich.console import Console

    results = report.BenchResults({}, {"S": {"one": 1.0, "other": 2.0}})
    for pattern in ("random", "rows"):
        for sparsity in (0.5, 0.9):
            results.add(timing.Untimed("S", "var_list", "-", pattern, sparsity, "no"))
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(report.all_tables(results))
    assert "not timed: var_list on random, rows (S): no" in console.export_text()


def test_fit_is_timed_beside_the_plain_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def network() -> Any:
        ends = keras.Input((5,)), keras.layers.Dense(10, name="output")
        return keras.Sequential([ends[0], keras.layers.Dense(4, name="hidden"), ends[1]])

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fits, "_networks", lambda: {"tiny": (network, (5,))})
    monkeypatch.setattr(fits, "ROUNDS", 2)
    monkeypatch.setattr(fits, "STEPS", 1)
    monkeypatch.setattr(process, "prepare_process", lambda threads: None)  # done in conftest
    assert bench.bench(["--fit", "--json", "fit.json"]) == 0
    costs = {c["what"]: c for c in json.loads(Path("fit.json").read_text())["fit"]}
    named = {f"tiny: {name}" for name in cases.timed_strategies()} - {"tiny: loss_mask"}
    assert costs.keys() == {"tiny: plain", *named}
    assert costs["tiny: plain"]["ratio"] == 1
    assert all(0 < c["low"] <= c["ratio"] <= c["high"] for c in costs.values())
    assert "tiny: weight_mask" in capsys.readouterr().out


@pytest.mark.slow
def test_whole_trials_are_timed_beside_keras_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trials, "PACK_WIDTH", 2)
    monkeypatch.setattr(trials, "ROUNDS", 2)
    monkeypatch.setattr(trials, "DIGITS", trials.Net("tiny", (3,), 1))
    monkeypatch.setattr(trials, "SIZE_S", trials.Net("drawn", (3,), 1, 5))
    monkeypatch.setattr(process, "prepare_process", lambda threads: None)  # done in conftest
    assert bench.bench(["--trials", "--json", "costs.json"]) == 0
    costs = {c["what"]: c for c in json.loads(Path("costs.json").read_text())["trials"]}
    assert {
        "tiny: keras.fit",
        "tiny: training, pack of 2, compiled again",
        "tiny: whole trial, pack of 2, program reused",
        "drawn: training alone, program reused",
        "tiny: a step, audit.every=10, pack of 2",
        "recording a trial of 5 s in SQLite",
    } <= costs.keys()
    assert costs["tiny: keras.fit"]["ratio"] == 1
    for cost in costs.values():
        assert cost["low"] <= cost["ratio"] <= cost["high"]
        assert cost["seconds"] > 0
    recording = costs["recording a trial of 5 s in SQLite"]
    assert recording["ratio"] == pytest.approx(recording["seconds"] / 5, rel=0.5)
    assert "whole trial, pack of 2" in capsys.readouterr().out
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("masksweep")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert "whole trial, pack of 2" in run.data.tags["mlflow.note.content"]
    assert run.data.metrics["tiny_keras.fit"] == 1


@pytest.mark.parametrize(("pattern", "units"), [(Random(0.5), False), (Columns(0.5), True)])
def test_the_formats_of_one_layer_are_timed(pattern: Any, units: bool) -> None:
    mask = pattern.masks({"layer/kernel": (8, 6)}, 0)["layer/kernel"]
    times = formats._time(mask, batch_size=3)
    assert {"coo", "lookup", "compiled", "dense"} <= times.keys()
    assert ("compact" in times) is units
    assert min(times.values()) > 0


def test_the_fused_update_has_other_bits_than_keras() -> None:
    """That is why trials do not use it."""
    generator = np.random.default_rng(0)
    start, gradient = generator.normal(size=(2, 50, 40)).astype(np.float32)
    ends = []
    for kind in (Adam, FusedAdam):
        optimizer, variable = kind().build(), keras.Variable(start)
        optimizer.apply([tf.constant(gradient)], [variable])
        ends.append(variable.numpy())
    np.testing.assert_allclose(*ends, atol=1e-6)
    assert 0.1 < np.mean(ends[0] != ends[1]) < 0.9
