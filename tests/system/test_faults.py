"""The fault matrix: whatever is killed or lost, the store has every planned trial exactly once.

Each case runs real sweeps in child processes, disturbs them, and compares the store with the plan,
trial by trial.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.support.extras import missing
from tests.support.ray_head import end, ray_head, ray_node
from tests.support.servers import MlflowServer, mlflow_server, postgres
from tests.support.sweep_process import (
    Driver,
    Store,
    clean_env,
    cmdline,
    local_store,
    ran,
    sweep,
    wait_for,
    working,
)

SMALL = (
    "strategy=weight_mask,projection",
    "seed=0,1,2",
    "data=digits",
    "model.hidden=[32]",
    "train.batch_size=20",
    "sweep.name=faults",
)
# each case takes half a minute on two cores, so most run only with `pytest -m slow`
SLOW = partial(pytest.param, marks=pytest.mark.slow)
FEW = tuple("seed=0" if a.startswith("seed") else a for a in SMALL)
SHORT, LONG = "train.epochs=4", "train.epochs=250"
"""Epochs of a trial that takes well under a second, and of one that takes several seconds."""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Ids of the planned trials, by the trials' length."""
    ids_by_length = {}
    for length in (SHORT, LONG):
        process = subprocess.run(
            [sys.executable, "-m", "masksweep.sweeps.cli", "plan", "--json", *SMALL, length],
            cwd=tmp_path_factory.mktemp("plan"),
            env=clean_env(),
            stdout=subprocess.PIPE,
            check=True,
        )
        ids_by_length[length] = sorted(t["id"] for t in json.loads(process.stdout)["trials"])
        assert len(ids_by_length[length]) == 6
    return ids_by_length


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digest of the weights of each long trial, from a sweep that was not disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert ran(folder, *SMALL, LONG).code == 0
    return local_store(folder, "faults").digests()


def assert_none_left(family: list[psutil.Process]) -> None:
    """Waits until every process has ended; fails after 15 seconds."""

    def running() -> list[psutil.Process]:
        return [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    wait_for(lambda: not running(), patience_s=15)


def program(process: psutil.Process) -> str:
    return next(iter(cmdline(process)), "")


def trials(driver: Driver) -> int:
    return len(driver.ended)


class TestDriverKilled:
    @pytest.mark.parametrize(
        "moment", [SLOW("before the first"), SLOW("in the middle"), SLOW("before the last")]
    )
    def test_a_rerun_completes_it(
        self,
        moment: str,
        tmp_path: Path,
        plan: dict[str, list[str]],
        undisturbed: dict[str, str],
    ) -> None:
        with sweep(tmp_path, *SMALL, LONG) as driver:
            if moment == "before the first":
                driver.wait_for(lambda: driver.workers)
                time.sleep(0.5)
            else:
                wanted = 2 if moment == "in the middle" else 5
                driver.wait_for(lambda: trials(driver) >= wanted)
            family = [p for p in driver.family if "Agent" not in " ".join(cmdline(p))]
            driver.process.kill()
            driver.process.wait()
            assert_none_left(family)  # without Ray's agents, which end a minute later
        rerun = ran(tmp_path, *SMALL, LONG)
        assert rerun.code == 0, rerun.stderr
        store = local_store(tmp_path, "faults")
        assert sorted(store.digests()) == plan[LONG]
        assert store.digests() == undisturbed
        assert store.by_status().keys() <= {"FINISHED", "KILLED"}
        assert store.parent.info.status == "FINISHED"
        for run in store.children:
            steps = store.curve(run, "train/loss")
            assert steps == sorted(set(steps)), "a point is there twice"
            if run.info.status == "FINISHED":
                assert steps == list(range(1, 251))
        if moment != "before the first":
            assert "6 trials: " in rerun.stderr
            assert " done, " in rerun.stderr


@pytest.mark.slow
def test_a_larger_sweep_of_the_same_name_runs_what_is_new(tmp_path: Path) -> None:
    first = ran(tmp_path, *SMALL, SHORT)
    assert first.code == 0, first.stderr
    store = local_store(tmp_path, "faults")
    before = store.digests()
    larger = [a.replace("seed=0,1,2", "seed=0,1,2,3") for a in SMALL]
    second = ran(tmp_path, *larger, SHORT)
    assert second.code == 0, second.stderr
    assert "8 trials: 6 done, 2 to run" in second.stderr
    assert len(store.children) == 8
    assert before.items() <= store.digests().items()
    assert " ± " in second.stdout, "the table has the trials that were done before"
    third = ran(tmp_path, *larger, SHORT)
    assert third.code == 0
    assert "8 trials: 8 done" in third.stderr
    without_cluster = ran(tmp_path, *larger, SHORT, "launch.address=127.0.0.1:1")
    assert without_cluster.code == 0, "what is done needs no cluster"
    assert len(store.children) == 8
    assert "weight_mask" in third.stdout
    planned = subprocess.run(
        [sys.executable, "-m", "masksweep.sweeps.cli", "plan", *larger, SHORT],
        cwd=tmp_path,
        env=clean_env(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert planned.stdout.splitlines()[-1] == "8 trials: 8 done"
    repeated = ran(tmp_path, "--rerun", *larger, SHORT)
    assert repeated.code == 0, repeated.stderr
    assert len(store.children) == 16


@pytest.mark.slow
class TestWorkerKilled:
    @pytest.mark.parametrize("moment", ["at its start", "in the middle"])
    def test_the_trial_goes_on_elsewhere_with_the_same_bits(
        self, moment: str, tmp_path: Path, undisturbed: dict[str, str]
    ) -> None:
        with sweep(tmp_path, *SMALL, LONG, "checkpoint.every_s=0.2") as driver:
            driver.wait_for(lambda: driver.workers)
            if moment == "in the middle":
                checkpoint_glob = ".masksweep/checkpoints/*/*.checkpoint"
                driver.wait_for(
                    lambda: len({p.parent for p in tmp_path.glob(checkpoint_glob)}) == 2
                )
            driver.workers[0].kill()
            assert driver.wait() == 0, driver.stderr
        assert "retried: " in driver.stderr
        store = local_store(tmp_path, "faults")
        assert store.digests() == undisturbed
        retried = [r for r in store.children if "trial.retries" in r.data.tags]
        assert [r.data.tags["trial.retries"] for r in retried] == ["1"]
        for run in store.children:
            assert store.curve(run, "train/loss") == list(range(1, 251))
        if moment == "in the middle":
            assert "resumed from step" in driver.stderr
        assert not list(tmp_path.glob(".masksweep/checkpoints/*/*"))

    def test_a_damaged_checkpoint_is_told_and_the_one_before_it_is_used(
        self, tmp_path: Path, undisturbed: dict[str, str]
    ) -> None:
        with sweep(tmp_path, *SMALL, LONG, "checkpoint.every_s=0.1") as driver:
            checkpoint_glob = ".masksweep/checkpoints/*/*.checkpoint"
            driver.wait_for(lambda: len(list(tmp_path.glob(checkpoint_glob))) >= 4)
            for worker in driver.workers:
                worker.suspend()
            time.sleep(0.1)
            for folder in {p.parent for p in tmp_path.glob(checkpoint_glob)}:
                newest = max(folder.glob("*.checkpoint"))
                newest.write_bytes(newest.read_bytes()[:-100])
            for worker in driver.workers:
                worker.kill()
            assert driver.wait() == 0, driver.stderr
        assert "resumed from step" in driver.stderr
        assert "checkpoint of step" in driver.stderr
        assert local_store(tmp_path, "faults").digests() == undisturbed

    def test_a_pack_goes_on_elsewhere_with_the_same_bits(self, tmp_path: Path) -> None:
        packed = (*SMALL, "train.epochs=400", "launch.pack=3", "checkpoint.every_s=0.2")
        (tmp_path / "whole").mkdir()
        assert ran(tmp_path / "whole", *packed).code == 0
        with sweep(tmp_path, *packed) as driver:
            checkpoint_glob = ".masksweep/checkpoints/*/*.checkpoint"
            driver.wait_for(lambda: len({p.parent for p in tmp_path.glob(checkpoint_glob)}) >= 3)
            for worker in driver.workers:
                worker.kill()
            assert driver.wait() == 0, driver.stderr
        assert "retried: " in driver.stderr
        assert "resumed from step" in driver.stderr
        store = local_store(tmp_path, "faults")
        assert store.digests() == local_store(tmp_path / "whole", "faults").digests()
        for run in store.children:
            assert store.curve(run, "train/loss") == list(range(1, 401))
        assert not list(tmp_path.glob(".masksweep/checkpoints/*/*"))

    def test_one_that_dies_again_and_again_fails_alone(self, tmp_path: Path) -> None:
        with sweep(tmp_path, *SMALL, LONG, "launch.max_retries=0") as driver:
            driver.wait_for(lambda: driver.workers)
            driver.workers[0].kill()
            assert driver.wait() == 1, driver.stderr
        store = local_store(tmp_path, "faults")
        assert store.by_status() == {"FINISHED": 5, "FAILED": 1}
        assert "failed: " in driver.stdout
        assert "worker died" in driver.stdout
        again = ran(tmp_path, *SMALL, LONG)
        assert again.code == 0, again.stderr
        assert len(store.digests()) == 6


@pytest.mark.slow
def test_a_lost_nodes_trial_goes_on_elsewhere_with_the_same_bits(
    tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    with ray_head(num_cpus=1) as head, ray_node(head) as node:
        joined = (*SMALL, LONG, f"launch.address={head.address}", "checkpoint.every_s=0.2")
        with sweep(tmp_path, *joined, env={"HOME": str(head.home)}) as driver:
            driver.wait_for(lambda: working(node.pid))
            end(node)
            assert driver.wait() == 0, driver.stderr
    assert "retried: " in driver.stderr
    store = local_store(tmp_path, "faults")
    assert store.digests() == undisturbed
    for run in store.children:
        assert store.curve(run, "train/loss") == list(range(1, 251))


@pytest.mark.slow
class TestTrialsThatFail:
    def test_diverged(self, tmp_path: Path) -> None:
        driver = ran(tmp_path, *SMALL, SHORT, "optimizer=sgd", "optimizer.learning_rate=0.1,1e30")
        assert driver.code == 1, driver.stderr
        store = local_store(tmp_path, "faults")
        assert store.by_status() == {"FINISHED": 6, "FAILED": 6}
        for run in store.children:
            if run.info.status == "FAILED":
                assert run.data.tags["trial.reason"].startswith("diverged: ")
                names = {f.path for f in store.client.list_artifacts(run.info.run_id)}
                assert {"config.yaml", "traceback.txt", "log.txt"} <= names
        failure_lines = [line for line in driver.stdout.splitlines() if line.startswith("failed: ")]
        assert len(failure_lines) == 6
        for line in failure_lines:
            log = tmp_path / line.rpartition("(log: ")[2].removesuffix(")")
            assert "diverged: " in log.read_text()

    def test_timed_out(self, tmp_path: Path) -> None:
        driver = ran(tmp_path, *FEW, "train.epochs=4,1000000", "launch.trial_timeout_s=25")
        assert driver.code == 1, driver.stderr
        store = local_store(tmp_path, "faults")
        assert store.by_status() == {"FINISHED": 2, "FAILED": 2}
        for run in store.children:
            if run.info.status == "FAILED":
                assert run.data.tags["trial.reason"] == "timed out: took longer than 25 s"
                names = {f.path for f in store.client.list_artifacts(run.info.run_id)}
                assert {"config.yaml", "traceback.txt"} <= names
                assert store.curve(run, "train/loss")[:2] == [1, 2]

    def test_out_of_memory(self, tmp_path: Path) -> None:
        driver = ran(tmp_path, *FEW, SHORT, "resources.memory=400000000")
        assert driver.code == 1, driver.stderr
        store = local_store(tmp_path, "faults")
        assert store.by_status() == {"FAILED": 2}
        for run in store.children:
            assert run.data.tags["trial.reason"].startswith("out of memory: ")

    def test_fail_fast_stops_at_the_first(self, tmp_path: Path) -> None:
        driver = ran(
            tmp_path, *SMALL, LONG, "optimizer=sgd", "optimizer.learning_rate=1e30,0.1",
            "launch.fail_fast=true",
        )  # fmt: skip
        assert driver.code == 1, driver.stderr
        assert "which failed (launch.fail_fast)." in driver.stderr
        by_status = local_store(tmp_path, "faults").by_status()
        assert by_status["FAILED"] == 1
        assert by_status["FINISHED"] < 6
        assert by_status["RUNNING"] == 0


@pytest.mark.slow
class TestStopped:
    @pytest.mark.parametrize(
        ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
    )
    @pytest.mark.parametrize(
        "moment",
        ["while it checks", "before Ray", "while Ray starts", "in the middle"],
    )
    def test_in_order(self, number: signal.Signals, code: int, moment: str, tmp_path: Path) -> None:
        with sweep(tmp_path, *SMALL, LONG) as driver:
            if moment == "in the middle":
                driver.wait_for(lambda: trials(driver) >= 2)
            elif moment == "while it checks":
                driver.wait_for(lambda: "Checking" in driver.stderr)
            elif moment == "before Ray":
                driver.wait_for(lambda: "Starting Ray" in driver.stderr)
            else:
                driver.wait_for(lambda: any("gcs_server" in c for c in map(program, driver.family)))
            family = driver.family
            tic = time.monotonic()
            # Ctrl-C in a terminal goes to all processes of the foreground group
            send = os.killpg if number == signal.SIGINT else os.kill
            send(driver.process.pid, number)
            assert driver.wait() == code, driver.stderr
            assert time.monotonic() - tic < 10
            assert_none_left(family)
        assert "Traceback" not in driver.stderr + driver.stdout
        assert "raylet" not in driver.stderr + driver.stdout
        assert f"  masksweep run {' '.join(SMALL)}" in driver.stderr.replace("'", "")
        if moment == "in the middle":
            store = local_store(tmp_path, "faults")
            by_status = store.by_status()
            assert by_status["FINISHED"] >= 2
            assert by_status.keys() == {"FINISHED", "KILLED"}
            assert store.parent.info.status == "KILLED"
        assert ran(tmp_path, *SMALL, LONG).code == 0
        assert len(local_store(tmp_path, "faults").digests()) == 6

    @pytest.mark.slow
    def test_a_second_one_leaves_at_once(self, tmp_path: Path) -> None:
        with sweep(tmp_path, *SMALL, LONG) as driver:
            driver.wait_for(lambda: trials(driver) >= 1)
            family = driver.family
            driver.process.send_signal(signal.SIGINT)
            time.sleep(0.2)  # the kernel merges two pending signals
            driver.process.send_signal(signal.SIGINT)
            tic = time.monotonic()
            assert driver.wait() == 130
            assert time.monotonic() - tic < 2
            assert_none_left(family)
        assert ran(tmp_path, *SMALL, LONG).code == 0
        assert len(local_store(tmp_path, "faults").digests()) == 6


@pytest.mark.slow
@pytest.mark.parametrize("part", ["gcs_server", "raylet"])
def test_a_ray_that_dies_ends_the_sweep_in_order(part: str, tmp_path: Path) -> None:
    with sweep(tmp_path, *SMALL, LONG) as driver:
        driver.wait_for(lambda: trials(driver) >= 1)
        (process,) = [p for p in driver.family if program(p).endswith(f"/{part}")]
        family = driver.family
        process.kill()
        tic = time.monotonic()
        assert driver.wait() == 1
        assert time.monotonic() - tic < 50, "before Ray ends this process"
        assert_none_left(family)
    assert "Traceback" not in driver.stderr
    message = f"The sweep was stopped: Ray's {part} died. Finished trials are kept"
    assert message in driver.stderr
    store = local_store(tmp_path, "faults")
    assert store.by_status().keys() <= {"FINISHED", "KILLED"}
    assert store.parent.info.status == "FAILED"
    assert ran(tmp_path, *SMALL, LONG).code == 0
    assert len(local_store(tmp_path, "faults").digests()) == 6


@pytest.mark.slow
def test_a_full_disk_ends_the_sweep_in_order_and_nothing_is_lost(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    mount_command = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)]
    if subprocess.run(mount_command, capture_output=True).returncode:
        missing("no file system can be mounted here")
    try:
        overrides = (*SMALL, "train.epochs=50", "tracking.patience_s=5")
        first = ran(folder, *overrides)
        assert first.code == 1
        assert "Traceback" not in first.stderr
        assert "make room on its disk. Finished trials are kept" in first.stderr
        ended_trials = trials(first)
        subprocess.run(["mount", "-o", "remount,size=200m", str(folder)], check=True)
        second = ran(folder, *overrides)
        assert second.code == 0, second.stderr
        assert ended_trials
        assert f"6 trials: {ended_trials} done" in second.stderr
        store = local_store(folder, "faults")
        assert len(store.digests()) == 6
        assert store.by_status().keys() <= {"FINISHED", "KILLED"}
        for run in store.children:
            if run.info.status == "FINISHED":
                assert store.curve(run, "train/loss") == list(range(1, 51))
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
def test_a_reproduction_that_is_stopped_leaves_nothing_running(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    assert ran(tmp_path, *FEW, LONG).code == 0
    run = local_store(tmp_path, "faults").children[0]
    with sweep(tmp_path, run.info.run_id, command=("reproduce",)) as driver:
        client = local_store(tmp_path, "faults").client
        query = "attributes.status = 'RUNNING' and tags.`trial.id` LIKE '%'"
        driver.wait_for(lambda: client.search_runs(["1"], query))
        family = driver.family
        (os.killpg if number == signal.SIGINT else os.kill)(driver.process.pid, number)
        assert driver.wait() == code, driver.stderr
        assert_none_left(family)
    assert "Traceback" not in driver.stderr
    assert not client.search_runs(["1"], "attributes.status = 'RUNNING'")
    assert len(client.search_runs(["1"], "attributes.status = 'KILLED'")) == 2


@pytest.mark.slow
def test_addresses_that_are_too_few_for_ray_are_told_before_it_starts(tmp_path: Path) -> None:
    process = subprocess.run(
        [
            "bash",
            "-c",
            f"ulimit -v 6000000; exec {sys.executable} -m masksweep.sweeps.cli run {FEW[0]}",
        ],
        cwd=tmp_path,
        env=clean_env(),
        capture_output=True,
        text=True,
    )
    assert process.returncode == 2
    assert "Traceback" not in process.stderr
    last = process.stderr.splitlines()[-1]
    assert last.startswith("masksweep: ulimit -v=6000000: must be at least ")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MlflowServer]:
    """A real MLflow server with a real PostgreSQL database."""
    with ExitStack() as stack:
        database = stack.enter_context(postgres(tmp_path))
        yield stack.enter_context(mlflow_server(database.uri, tmp_path))


class TestStoreAway:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "work").mkdir()
        return tmp_path / "work"

    def assert_whole(self, store: Store, ids: list[str], epochs: int) -> None:
        assert sorted(store.digests()) == ids
        assert store.by_status() == {"FINISHED": 6}
        assert store.parent.info.status == "FINISHED"
        for run in store.children:
            assert store.curve(run, "train/loss") == list(range(1, epochs + 1))
            assert store.curve(run, "test/accuracy") == [epochs]
            assert len(store.curve(run, "integrity/ok")) == 1
            names = {f.path for f in store.client.list_artifacts(run.info.run_id)}
            assert {"config.yaml", "masks.npz", "model.keras"} <= names

    @pytest.mark.slow
    @pytest.mark.parametrize("how", ["stopped", "stopped for a minute", "hanging"])
    def test_in_the_middle(
        self, how: str, server: MlflowServer, folder: Path, plan: dict[str, list[str]]
    ) -> None:
        uri = f"tracking.uri={server.uri}"
        with sweep(folder, *SMALL, LONG, uri, env={"MLFLOW_HTTP_REQUEST_TIMEOUT": "3"}) as driver:
            driver.wait_for(lambda: trials(driver) >= 1)
            before = trials(driver)
            server.pause() if how == "hanging" else server.stop()
            driver.wait_for(lambda: "tore away" in driver.stderr)
            driver.wait_for(lambda: trials(driver) > before)  # trials continue
            if how == "stopped for a minute":
                time.sleep(60)
            server.resume() if how == "hanging" else server.start()
            assert driver.wait() == 0, driver.stderr
        self.assert_whole(Store(server.uri, "faults"), plan[LONG], 250)
        assert not (folder / ".masksweep/spool").exists()

    @pytest.mark.slow
    def test_from_the_start_and_back_later(
        self, server: MlflowServer, folder: Path, plan: dict[str, list[str]]
    ) -> None:
        server.stop()
        with sweep(folder, *SMALL, LONG, f"tracking.uri={server.uri}") as driver:
            driver.wait_for(lambda: trials(driver) >= 2)
            assert "The tracking store cannot be reached" in driver.stderr
            server.start()
            assert driver.wait() == 0, driver.stderr
        self.assert_whole(Store(server.uri, "faults"), plan[LONG], 250)

    @pytest.mark.slow
    def test_for_good_and_then_sync(
        self, server: MlflowServer, folder: Path, plan: dict[str, list[str]]
    ) -> None:
        server.stop()
        driver = ran(folder, *SMALL, SHORT, f"tracking.uri={server.uri}", "tracking.patience_s=2")
        assert driver.code == 1, driver.stderr
        assert len(driver.ended) == 6
        assert "Send them with: masksweep sync" in driver.stderr
        assert "The store could not be reached: " in driver.stderr
        assert ran(folder, command=("sync",)).code == 1
        planned = ran(folder, *SMALL, SHORT, f"tracking.uri={server.uri}", command=("plan",))
        assert planned.stdout.splitlines()[-1] == "6 trials: 6 done"
        server.start()
        synced = ran(folder, command=("sync",))
        assert synced.code == 0, synced.stderr
        self.assert_whole(Store(server.uri, "faults"), plan[SHORT], 4)
        assert ran(folder, command=("sync",)).stdout == "No results wait to be sent.\n"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["a new", "an old"])
def test_two_sweeps_at_once_on_one_sqlite_file(kind: str, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b")]
    uri = f"tracking.uri=sqlite:///{tmp_path / 'both.db'}"
    for folder in folders:
        folder.mkdir()
    if kind == "an old":
        assert ran(folders[0], *SMALL[2:-1], SHORT, "sweep.name=before", uri).code == 0
    with ExitStack() as stack:
        drivers = [
            stack.enter_context(sweep(f, *SMALL[:-1], SHORT, f"sweep.name={f.name}", uri))
            for f in folders
        ]
        assert [driver.wait() for driver in drivers] == [0, 0], [d.stderr for d in drivers]
    for folder in folders:
        store = Store(f"sqlite:///{tmp_path / 'both.db'}", folder.name)
        assert len(store.digests()) == 6
        assert store.by_status() == {"FINISHED": 6}
