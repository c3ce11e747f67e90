"""End-to-end tests of a sweep, started as a user does: the table, the store, MLflow's pages."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from mlflow import MlflowClient
from mlflow.entities import Run

from masksweep.sweeps import report
from masksweep.sweeps.cli.ui import port_problem
from masksweep.sweeps.common.signals import SignalHandler
from masksweep.sweeps.config.plan import PlannedTrial
from masksweep.sweeps.driver.sweep import SweepRun
from masksweep.sweeps.launch.cluster import Spec
from masksweep.sweeps.launch.engine import Engine
from masksweep.sweeps.launch.job import Emit, Job
from masksweep.sweeps.launch.worker import Task
from masksweep.sweeps.tracking import resume, run_config
from masksweep.sweeps.training import weight_images
from tests.support.extras import missing, module
from tests.support.sweep_process import clean_env, local_store, stop_alone
from tests.support.trials import trial

ARGUMENTS = [
    "strategy=dense,init_only,weight_mask,var_list",
    "seed=0,1",
    "data=digits",
    "model.hidden=[12]",
    "train.epochs=2",
    "train.jit=false",
    "speed.rounds=6",
    "sweep.name=small",
    "sweep.question=which of them holds",
]
TRIAL_METRICS = {
    *(f"{part}/{m}" for part in ("train", "validation", "test") for m in ("loss", "accuracy")),
    *(f"speed/{m}" for m in ("step_ms", "dense_step_ms", "ratio_to_dense", "samples_per_s")),
    *(f"speed/{m}" for m in ("ratio_low", "ratio_high", "dense_to_dense")),
    "speed/compile_s",
    "memory/parameters_bytes",
    "memory/optimizer_bytes",
    "memory/peak_bytes",
    "flops/dense",
    "flops/training",
    "flops/training_ratio",
}
MASKED_METRICS = {
    *(f"integrity/{m}" for m in ("ok", "violations", "peak_violations", "max_drift")),
    *(f"integrity/{m}" for m in ("peak_drift", "slot_leak", "moved", "agreement")),
    "sparsity/achieved",
    "flops/masked",
    "flops/step_ratio",
}


@dataclass
class Ran:
    """A finished sweep: its folder, its process, and its runs in the store."""

    folder: Path
    done: subprocess.CompletedProcess[str]

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")

    @property
    def parent(self) -> Run:
        (run,) = self.runs("tags.`sweep.name` = 'small' and tags.mlflow.note.content != ''")
        return run

    def runs(self, query: str) -> list[Run]:
        experiment = self.client.get_experiment_by_name("masksweep")
        assert experiment is not None
        return list(self.client.search_runs([experiment.experiment_id], query))

    @property
    def id(self) -> str:
        return self.parent.data.tags["sweep.id"]

    @property
    def children(self) -> list[Run]:
        return self.runs(f"tags.mlflow.parentRunId = '{self.parent.info.run_id}'")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("sweep")
    done = subprocess.run(
        [sys.executable, "-m", "masksweep.sweeps.cli", "run", *ARGUMENTS],
        cwd=folder,
        capture_output=True,
        text=True,
        env=clean_env(),
    )
    assert done.returncode == 0, done.stderr
    return Ran(folder, done)


def test_the_table_has_a_row_for_each_strategy_and_says_how_to_go_on(ran: Ran) -> None:
    lines = ran.done.stdout.splitlines()
    table, comparison = ran.done.stdout.split("p (Bonferroni)")
    rows = {line.split()[0]: line for line in table.splitlines() if line.strip()}
    assert "control" in rows["dense"]
    assert "leaks, as it must" in rows["init_only"]
    assert "holds" in rows["weight_mask"]
    assert " ± " in rows["weight_mask"]
    assert rows["dense"].endswith("2/0/0")
    assert rows["var_list"].endswith("0/0/2")
    # a second table has the difference to the dense control, paired by seed
    assert "test accuracy minus dense" in table
    assert {"init_only", "weight_mask"} <= {
        line.split()[0] for line in comparison.splitlines() if line
    }
    assert "Noise: two dense trials that differ in their seed alone" in comparison
    assert lines[-1] == "Open the results with: masksweep ui   (sweep 'small')"


def test_a_finished_sweep_is_shown_where_its_trials_could_not_run(ran: Ran) -> None:
    """For example on a machine with fewer cores. If trials are to run there, they are refused."""
    command = [
        sys.executable,
        "-m",
        "masksweep.sweeps.cli",
        "run",
        *ARGUMENTS,
        "resources.num_cpus=9999",
    ]
    options: Any = {"capture_output": True, "text": True, "env": clean_env()}
    same = subprocess.run(command, cwd=ran.folder, **options)
    assert same.returncode == 0, same.stderr
    assert "8 trials: 6 done, 2 skipped" in same.stderr or "8 done" in same.stderr
    larger = subprocess.run([*command, "seed=0,1,2"], cwd=ran.folder, **options)
    assert larger.returncode == 2
    assert "resources.num_cpus=9999" in larger.stderr


def test_progress_is_plain_lines_where_there_is_no_terminal(ran: Ran) -> None:
    lines = ran.done.stderr.splitlines()
    assert [line for line in lines if line.startswith("[8/8] ")]
    assert "\x1b" not in ran.done.stderr + ran.done.stdout
    assert all(line.startswith("[") or line.endswith("...") for line in lines), lines


def test_every_trial_is_a_child_run_with_all_that_applies(ran: Ran) -> None:
    assert ran.parent.info.status == "FINISHED"
    assert len(ran.children) == 8
    for run in ran.children:
        tags, metrics = run.data.tags, set(run.data.metrics)
        assert run.info.status == "FINISHED"
        assert tags["sweep.name"] == "small"
        assert len(tags["trial.id"]) == 64
        assert tags["trial.seed"] in ("0", "1")
        assert run.data.params["strategy"] == tags["trial.strategy"]
        match tags["trial.strategy"]:
            case "var_list":
                assert tags["trial.status"] == "skipped"
                assert "whole outputs" in tags["trial.reason"]
                assert not metrics
                continue
            case "dense":
                assert tags["trial.pattern"] == "-"
                assert metrics == TRIAL_METRICS
            case strategy:
                assert metrics >= TRIAL_METRICS | MASKED_METRICS
                assert tags["trial.sparsity"] == "0.9"
                held = run.data.metrics["integrity/ok"]
                assert held == (strategy == "weight_mask")
                assert (run.data.metrics["integrity/violations"] > 0) == (not held)
        assert len(tags["trial.weights_sha256"]) == 64
        assert run.inputs.dataset_inputs[0].dataset.name == "digits"


def test_curves_have_one_point_an_epoch(ran: Ran) -> None:
    for run in ran.children:
        if run.data.tags["trial.status"] == "ok":
            for metric in ("train/loss", "validation/accuracy"):
                points = ran.client.get_metric_history(run.info.run_id, metric)
                assert [p.step for p in points] == [1, 2]


def test_the_recorded_config_alone_gives_the_same_trial(ran: Ran, tmp_path: Path) -> None:
    for run in ran.children:
        names = {f.path for f in ran.client.list_artifacts(run.info.run_id)}
        expected = {"config.yaml"}
        if run.data.tags["trial.status"] == "ok":
            expected |= {"model.keras", "environment.txt"}
            if run.data.tags["trial.strategy"] != "dense":
                expected |= {"masks.npz", "weights", "integrity.png"}
        assert names - {"log.txt"} == expected  # a log exists only if the trial printed something
        path = ran.client.download_artifacts(run.info.run_id, "config.yaml", str(tmp_path))
        trial, recorded = run_config.read(Path(path))
        assert recorded is not None
        assert trial.id == recorded.trial == run.data.tags["trial.id"]
        assert recorded.run == run.data.tags["trial.run"]
        assert recorded.metrics == run.data.metrics


def test_the_parent_tells_the_question_the_plan_and_the_table(ran: Ran, tmp_path: Path) -> None:
    run = ran.parent.info.run_id
    note = ran.parent.data.tags["mlflow.note.content"]
    assert "masksweep run strategy=dense,init_only,weight_mask,var_list seed=0,1" in note
    assert "| weight_mask | random 0.9 |" in note
    table = Path(ran.client.download_artifacts(run, "table.txt", str(tmp_path))).read_text()
    report = {f.path for f in ran.client.list_artifacts(run, "report")}
    assert report == {f"report/{name}" for name in ("report.html", "pareto.png")}
    assert "leaks, as it must" in table
    plan = json.loads(
        Path(ran.client.download_artifacts(run, "plan.json", str(tmp_path))).read_text()
    )
    ids = {r.data.tags["trial.id"] for r in ran.children}
    assert {t["id"] for t in plan["trials"]} == ids


@pytest.mark.slow
def test_a_second_sweep_gives_every_trial_the_same_bits(ran: Ran, tmp_path: Path) -> None:
    arguments = [a for a in ARGUMENTS if not a.startswith("strategy")]
    subprocess.run(
        [
            sys.executable,
            "-m",
            "masksweep.sweeps.cli",
            "run",
            "strategy=weight_mask,init_only",
            *arguments,
        ],
        cwd=tmp_path,
        capture_output=True,
        env=clean_env(),
        check=True,
    )
    first, second = (
        {r.data.tags["trial.id"]: r.data.tags.get("trial.weights_sha256") for r in s.children}
        for s in (ran, Ran(tmp_path, ran.done))
    )
    assert len(second) == 4
    assert second.items() <= first.items()


@pytest.fixture(scope="module")
def page(ran: Ran) -> Iterator[str]:
    with socket.socket() as probe_socket:
        probe_socket.bind(("127.0.0.1", 0))
        port = probe_socket.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "masksweep.sweeps.cli", "ui", "--port", str(port)],
        cwd=ran.folder,
        env=clean_env(),
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        view = f"runs?workflowType=machine_learning&viewStateShareKey=masksweep-{ran.id}"
        line = f"MLflow on http://127.0.0.1:{port}/#/experiments/1/{view}   (Ctrl-C ends it)\n"
        assert server.stdout.readline() == line
        assert answers(f"http://127.0.0.1:{port}/health")  # as soon as the line is there
        yield f"http://127.0.0.1:{port}"
        # a signal to the command alone ends its server too
        assert stop_alone(server, signal.SIGINT) == 130
        assert not port_problem(port)
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait()
        assert server.stdout is not None
        server.stdout.close()


def answers(address: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5) as answer:
        return answer.status == 200
    return False


def test_ui_shows_the_same_store_on_this_machine_only(ran: Ran, page: str) -> None:
    request = urllib.request.Request(
        f"{page}/api/2.0/mlflow/runs/get?run_id={ran.parent.info.run_id}"
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert json.load(answer)["run"]["info"]["run_name"] == "small"
    port = int(page.rpartition(":")[2])
    listening = [c.laddr for c in psutil.net_connections("tcp") if c.status == "LISTEN"]
    assert {address.ip for address in listening if address.port == port} == {"127.0.0.1"}


@pytest.fixture
def tab(page: str) -> Iterator[Any]:
    """A browser page in Chromium."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        missing("no Chromium here")
    # otherwise Chromium connects to its vendor's servers
    quiet = ["background-networking", "component-update", "sync", "gpu", "quic"]
    flags = ["--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in quiet)]
    with module("playwright.sync_api").sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        browser_page = browser.new_page(viewport={"width": 2400, "height": 1600})
        browser_page.context.set_default_timeout(60_000)
        yield browser_page
        browser.close()


@pytest.mark.slow
class TestInABrowser:
    """MLflow's pages as a user sees them, and the links between them."""

    def from_the_sweep(self, ran: Ran, page: str, tab: Any, link: str) -> Any:
        tab.goto(f"{page}/#/experiments/1/runs/{ran.parent.info.run_id}")
        tab.get_by_text("which of them holds", exact=True).wait_for()
        with tab.context.expect_page() as opened:
            tab.get_by_role("link", name=link, exact=True).click()
        return opened.value

    def test_from_the_sweep_to_its_trials(self, ran: Ran, page: str, tab: Any) -> None:
        tab = self.from_the_sweep(ran, page, tab, "table")
        for run in ran.children:
            tab.get_by_role("link", name=run.info.run_name).first.wait_for()
        assert tab.get_by_role("link", name="small", exact=True).count() == 0
        for column in ("integrity/peak_violations", "test/accuracy", "trial.strategy"):
            tab.get_by_role("columnheader").filter(has_text=column).first.wait_for()

    def test_charts(self, ran: Ran, page: str, tab: Any) -> None:
        tab = self.from_the_sweep(ran, page, tab, "charts")
        tab.get_by_text("Which to use").wait_for()
        titles = tab.locator(".xtitle, .ytitle")
        axes = {"speed/ratio_to_dense", "sparsity/achieved", "test/accuracy"}
        for axis in axes:
            titles.filter(has_text=axis).first.wait_for()
        assert axes <= set(titles.all_text_contents())

    def test_pictures(self, ran: Ran, page: str, tab: Any) -> None:
        run = next(r for r in ran.children if r.data.tags["trial.strategy"] == "init_only")
        for name in ("weights/hidden_1_kernel.png", "integrity.png"):
            tab.goto(f"{page}/#/experiments/1/runs/{run.info.run_id}/artifacts/{name}")
            shown = f"[...document.images].some(i => i.naturalWidth == {weight_images.WIDTH})"
            tab.wait_for_function(shown)
            assert tab.evaluate(shown)
            tab.goto("about:blank")

    def test_trials_side_by_side(self, ran: Ran, page: str, tab: Any) -> None:
        ids = json.dumps([r.info.run_id for r in ran.children if r.data.metrics])
        query = urllib.parse.urlencode({"runs": ids, "experiments": '["1"]'})
        tab.goto(f"{page}/#/compare-runs?{query}")
        plot = tab.locator(".js-plotly-plot .main-svg").first
        plot.wait_for()  # parallel coordinates
        tab.get_by_role("tab", name="Scatter Plot").click()
        plot.wait_for()
        tab.get_by_role("tab", name="Box Plot").click()
        for name in ("strategy", "test/accuracy"):
            tab.get_by_text("Select parameter or metric").first.click()
            tab.get_by_role("option", name=name, exact=True).click()
        labels = tab.locator("svg text:visible")  # other tabs have hidden labels
        labels.filter(has_text="init_only").first.wait_for()
        shown = set(labels.all_text_contents())
        assert {"dense", "init_only", "weight_mask"} <= shown


class NoTensorFlow:
    def setup(self, spec: Spec) -> None:
        raise ImportError("no TensorFlow here")

    def run(self, payload: object, emit: Emit) -> None: ...


@pytest.mark.usefixtures("ray_cluster")
def test_trials_that_no_worker_could_begin_are_recorded_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path
) -> None:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, "mlflow.db")
    planned = [PlannedTrial(trial(seed=i), [f"seed={i}"]) for i in range(3)]
    jobs = [Job(p.trial.id, None, Spec()) for p in planned]
    with (
        resume.open_sweep(planned, "small", rerun=False) as (planned, recorder, _),
        SignalHandler() as stop,
        Engine(jobs, NoTensorFlow()) as engine,
    ):
        ended = SweepRun(planned, recorder, stop, "small", "note", False).run(engine)
    assert ended.exit_code == 1
    assert len(ended.outcomes) == 3
    for outcome in ended.outcomes:
        assert outcome.reason.startswith("no worker could be set up: ")
        assert "no TensorFlow here" in ended.logs[outcome.trial.id].read_text()
    store = local_store(tmp_path, "small")
    assert store.by_status() == {"FAILED": 3}
    for run in store.children:
        assert "no TensorFlow here" in run.data.tags["trial.reason"]


@pytest.mark.parametrize("fails", ["the import", "the page", "the table"])
def test_a_report_that_cannot_be_made_leaves_no_run_open(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise MemoryError("no room")

    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, "mlflow.db")
    match fails:
        case "the import":
            monkeypatch.setitem(sys.modules, "masksweep.sweeps.report.plots", None)
            monkeypatch.delattr(report, "plots", raising=False)
        case "the page":
            monkeypatch.setattr("masksweep.sweeps.report.html_page.page", broken)
        case "the table":
            monkeypatch.setattr("masksweep.sweeps.driver.sweep.as_text", broken)
    refused = [PlannedTrial(trial(), ["seed=0"], refusal="it cannot")]
    with (
        resume.open_sweep(refused, "small", rerun=False) as (planned, recorder, _),
        SignalHandler() as stop,
    ):
        SweepRun(planned, recorder, stop, "small", "note", False).run(None)
    store = local_store(tmp_path, "small")
    assert store.by_status() == {"FINISHED": 1}
    assert store.parent.info.status == "FINISHED"


@pytest.mark.usefixtures("ray_cluster")
def test_the_log_of_a_worker_that_was_killed_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed:
        def setup(self, spec: Spec) -> None: ...

        def run(self, payload: Sequence[Task], emit: Emit) -> None:
            with Path(payload[0].log).open("a") as log:
                log.write("the last words")
            os.kill(os.getpid(), signal.SIGKILL)

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.chdir(tmp_path)
    planned_trial = PlannedTrial(trial(), ["seed=0"])
    log = Path(f".masksweep/logs/small/{planned_trial.name.replace(', ', '_').replace(' ', '_')}")
    log = log.with_name(f"{log.name}-{planned_trial.trial.id[:8]}.log").absolute()
    log.parent.mkdir(parents=True)
    log.write_text("an earlier run's words")
    with (
        resume.open_sweep([planned_trial], "small", rerun=False) as (planned, recorder, _),
        SignalHandler() as stop,
        Engine([Job(planned_trial.trial.id, str(log), Spec())], Killed()) as engine,
    ):
        ended = SweepRun(planned, recorder, stop, "small", "note", False).run(engine)
    assert ended.logs == {planned_trial.trial.id: log.relative_to(tmp_path)}
    store = local_store(tmp_path, "small")
    (run,) = store.children
    log_copy = store.client.download_artifacts(run.info.run_id, "log.txt", str(tmp_path))
    assert Path(log_copy).read_text() == "the last words" * 3
