"""On a cluster with an autoscaler, nodes are added while a sweep needs them, and removed later."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.ray_head import Head, ray_head
from tests.support.sweep_process import clean_env, wait_for

pytestmark = pytest.mark.slow
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef0123456789abcdef"}

WATCH = """
import sys, time, ray
ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
while True:
    alive = [n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU")]
    print(len(alive), flush=True)
    time.sleep(0.5)
"""
SWEEP = """
import sys, time
from pathlib import Path
from masksweep.sweeps.launch.cluster import Spec, cluster
from masksweep.sweeps.launch.engine import run
from masksweep.sweeps.launch.job import Job, Watcher

class Work:
    def setup(self, spec): pass

    def run(self, payload, emit):
        import ray
        folder, last = payload
        (folder / f"node-{ray.get_runtime_context().get_node_id()}").touch()
        while len(list(folder.glob("node-*"))) < 3 or last and not (folder / "go").exists():
            time.sleep(0.1)
        return True

class Told(Watcher):
    def ended(self, key, result): print(result, flush=True)

folder = Path(sys.argv[2])
with cluster(sys.argv[1]):
    run([Job(str(i), (folder, not i), Spec()) for i in range(6)], Work(), Told(), joined=True)
    print("done", flush=True)
    time.sleep(300)  # a report, a slow store
"""


class Process:
    """A driver in another process, which writes its output to a file."""

    def __init__(self, out: Path, *arguments: str) -> None:
        self.out = out
        with out.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-c", *arguments],
                stdout=file,
                stderr=file,
                cwd=out.parent,
                env=clean_env(**TOKEN),
            )

    @property
    def lines(self) -> list[str]:
        assert self.process.poll() is None, self.out.read_text()
        return self.out.read_text().splitlines()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module", params=["v1", "v2"])
def head(request: pytest.FixtureRequest) -> Iterator[Head]:
    with ray_head(num_cpus=0, grows=request.param, **TOKEN) as started_head:
        yield started_head


@pytest.fixture(scope="module")
def watch(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    process = Process(tmp_path_factory.mktemp("watch") / "out", WATCH, head.address)
    yield process
    process.end()


@pytest.fixture
def nodes(watch: Process) -> Callable[[int], None]:
    """A function that waits for this number of nodes with CPUs. There is one at the start."""

    def wait(number: int) -> None:
        wait_for(lambda: watch.lines[-1:] == [str(number)])

    wait(1)
    return wait


@pytest.fixture(params=["node", "laptop"])
def sweep(
    request: pytest.FixtureRequest, head: Head, nodes: object, tmp_path: Path
) -> Iterator[Process]:
    """A driver with six jobs, which end once three nodes were used. One also waits for `go`."""
    address = {"node": head.address, "laptop": head.client}[request.param]
    process = Process(tmp_path / "out", SWEEP, address, str(tmp_path))
    yield process
    process.end()


def test_nodes_come_for_the_jobs_and_go_before_the_last_ends(
    sweep: Process, nodes: Callable[[int], None]
) -> None:
    nodes(3)
    wait_for(lambda: sweep.lines.count("True") == 5)
    nodes(1)
    (sweep.out.parent / "go").touch()
    wait_for(lambda: "done" in sweep.lines)
    assert sweep.lines.count("True") == 6


@pytest.mark.parametrize("sweep", ["node"], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_what_a_sweep_asked_for_goes_with_it(
    sweep: Process, nodes: Callable[[int], None], watch: Process, number: signal.Signals
) -> None:
    nodes(3)
    sweep.process.send_signal(number)
    assert sweep.process.wait(60) == -number
    nodes(1)
    assert watch.lines[-1] == "1"
