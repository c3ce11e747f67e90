"""Jobs on Ray: each ends once, with its events, even if a worker or a node is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from masksweep.strategies import Invalid
from masksweep.sweeps.common import memory
from masksweep.sweeps.launch import engine, pool
from masksweep.sweeps.launch.cluster import Spec, worker_slots
from masksweep.sweeps.launch.job import Emit, Failure, FatalEvent, Job, Watcher
from tests.support.sweep_process import clean_env

# the workers cannot import the tests, so their classes are pickled with their code
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Work:
    """Runs jobs whose payload says what to do."""

    def setup(self, spec: Spec) -> None:
        self.jobs, self.memory = 0, spec.memory
        self.kept: list[bytearray] = []

    def run(self, payload: Any, emit: Emit) -> Any:
        self.jobs += 1
        match payload:
            case "raise":
                raise ValueError("this trial is bad")
            case ("die once", mark):
                for i in range(3):
                    emit(i)
                if not Path(mark).exists():
                    Path(mark).touch()
                    time.sleep(0.3)  # time to send the events
                    os.kill(os.getpid(), signal.SIGKILL)
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "count":
                return os.getpid(), self.jobs
            case ("gpus", workers, folder):
                (Path(folder) / str(os.getpid())).touch()
                while len(list(Path(folder).iterdir())) < workers:
                    time.sleep(0.05)
                return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES")
            case "no memory":
                raise MemoryError("too large")
            case "grow":

                def over(reason: str) -> None:
                    emit(FatalEvent(reason, "memory"))
                    os._exit(137)

                with memory.limit(self.memory, over):
                    held = [bytearray(os.urandom(1024)) * 20_000 for _ in range(1000)]
                return len(held)
            case ("keep", megabytes):
                self.kept.append(bytearray(os.urandom(1024)) * 1024 * megabytes)

                def over(reason: str) -> None:
                    emit(FatalEvent(reason, "memory", retry=self.jobs > 1))
                    os._exit(137)

                with memory.limit(self.memory, over):
                    time.sleep(0.5)
            case ("slow", events):
                for i in range(events):
                    emit(i)
                    time.sleep(0.01)
            case ("sleep", seconds):
                time.sleep(seconds)
            case ("where", folder):
                node = ray.get_runtime_context().get_node_id()
                (Path(folder) / node).touch()
                time.sleep(1)
                return node
            case _:
                for i in range(payload):
                    emit(i)
        return payload


class BrokenSetup(Work):
    def setup(self, spec: Spec) -> None:
        raise RuntimeError("no TensorFlow here")


class OneSetUp(Work):
    """Only the first worker can be set up, as if other nodes lacked a library."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def setup(self, spec: Spec) -> None:
        super().setup(spec)
        self.mark.touch(exist_ok=False)


class Seen(Watcher):
    """Records all calls, and checks that none comes twice or after the end of its job."""

    def __init__(self) -> None:
        self.ends: dict[str, Any] = {}
        self.events: list[tuple[str, Any]] = []
        self.retries: list[tuple[str, str]] = []

    def event(self, key: str, event: Any) -> None:
        assert key not in self.ends, "an event after its job's end"
        self.events.append((key, event))

    def retried(self, key: str, reason: str) -> None:
        assert key not in self.ends
        self.retries.append((key, reason))

    def ended(self, key: str, result: Any) -> None:
        assert key not in self.ends
        self.ends[key] = result

    def failure(self, key: str) -> Failure:
        result = self.ends[key]
        assert isinstance(result, Failure)
        return result


def run(
    payloads: list[Any], spec: Spec | None = None, work: Work | None = None, **limits: Any
) -> Seen:
    watcher = Seen()
    jobs = [Job(str(i), payload, spec or Spec()) for i, payload in enumerate(payloads)]
    engine.run(jobs, work or Work(), watcher, **limits)
    assert watcher.ends.keys() == {job.key for job in jobs}
    return watcher


@pytest.mark.usefixtures("ray_cluster")
class TestOneMachine:
    def test_every_job_ends_once_with_its_events_in_order(self) -> None:
        seen = run([3] * 20)
        assert seen.ends == {str(i): 3 for i in range(20)}
        for key in seen.ends:
            assert [what for k, what in seen.events if k == key] == [0, 1, 2]

    def test_workers_live_on_between_jobs(self) -> None:
        cores = os.cpu_count() or 1
        ends = run(["count"] * 4 * cores).ends
        assert len({pid for pid, _ in ends.values()}) <= cores

    def test_one_that_raises_takes_no_other_with_it(self) -> None:
        seen = run([1, "raise", 2])
        assert (seen.ends["0"], seen.ends["2"]) == (1, 2)
        assert seen.failure("1").reason == "ValueError: this trial is bad"
        assert "in run" in seen.failure("1").traceback
        assert not seen.retries

    def test_a_job_whose_worker_died_runs_again(self, tmp_path: Path) -> None:
        payload = ("die once", str(tmp_path / "mark"))
        seen = run([1, payload, 1])
        assert seen.ends == {"0": 1, "1": payload, "2": 1}
        assert seen.retries == [("1", "worker died")]
        assert [what for key, what in seen.events if key == "1"] == [0, 1, 2] * 2

    @pytest.mark.parametrize("retries", [0, 2])
    def test_a_job_that_always_kills_its_worker_fails_alone(self, retries: int) -> None:
        seen = run(["die", 1, 1], max_retries=retries)
        assert seen.failure("0").cause == "lost"
        assert (seen.ends["1"], seen.ends["2"]) == (1, 1)
        assert len(seen.retries) == retries

    @pytest.mark.parametrize("retries", [0, 1])
    def test_of_jobs_in_one_the_bad_one_is_found(self, retries: int) -> None:
        """One of several parts kills the worker that runs them as one job."""
        parts = tuple(Job(str(i), p, Spec()) for i, p in enumerate([1, "die", 2]))
        seen = Seen()
        jobs = [Job("all", "die", Spec(), 3, parts), Job("other", 5, Spec())]
        engine.run(jobs, Work(), seen, max_retries=retries)
        assert seen.failure("1").cause == "lost"
        assert {k: seen.ends[k] for k in ("0", "2", "other")} == {"0": 1, "2": 2, "other": 5}
        assert [key for key, _ in seen.retries] == ["all"] * (1 + retries) + ["1"] * retries

    def test_jobs_in_one_may_take_the_time_of_all(self) -> None:
        jobs = [Job("2", ("sleep", 1.5), Spec(), 2), Job("1", ("sleep", 60), Spec())]
        seen = Seen()
        engine.run(jobs, Work(), seen, timeout_s=1)
        assert seen.ends["2"] == ("sleep", 1.5)
        assert seen.failure("1").reason == "timed out: took longer than 1 s"

    def test_one_that_takes_too_long_fails_alone_and_is_not_repeated(self) -> None:
        seen = run([("sleep", 60), 1, 2, 3], timeout_s=1)
        assert seen.failure("0").cause == "timeout"
        assert seen.failure("0").reason == "timed out: took longer than 1 s"
        assert [seen.ends[k] for k in "123"] == [1, 2, 3]
        assert not seen.retries

    def test_one_without_memory_is_named_so(self) -> None:
        seen = run(["no memory", 1])
        assert seen.failure("0").reason == "out of memory: MemoryError: too large"
        assert seen.failure("0").cause == "memory"

    def test_one_that_grows_past_its_memory_is_ended_and_named(self) -> None:
        seen = run(["grow", 1], Spec(memory=600 * 2**20))
        assert seen.failure("0").cause == "memory"
        assert "GiB of the 0.59 that it may take" in seen.failure("0").reason
        assert seen.ends["1"] == 1
        assert not seen.retries

    def test_workers_that_cannot_be_set_up_fail_their_jobs(self) -> None:
        seen = run([1, 2], work=BrokenSetup())
        assert "no TensorFlow here" in seen.failure("0").reason
        assert seen.failure("1").cause == "lost"

    def test_those_that_can_be_set_up_do_it_all(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pool, "NODE_CHECK_SECONDS", 0.1)
        seen = run([("sleep", 0.5)] * 8, work=OneSetUp(tmp_path / "mark"), max_retries=0)
        assert set(seen.ends.values()) == {("sleep", 0.5)}

    def test_the_first_worker_that_is_ready_answers(self, tmp_path: Path) -> None:
        class Answers(Work):
            def answer(self, argument: Any) -> Any:
                if argument == "no":
                    raise Invalid("a key", argument, "yes")
                if argument == "die":
                    os._exit(1)
                return self.memory, argument

        jobs = [Job(str(i), i, Spec()) for i in range(4)]
        seen = Seen()
        with engine.Engine(jobs, Answers()) as runner:
            assert runner.ask("answer", "yes") == (None, "yes")
            with pytest.raises(Invalid, match="a key=no: yes"):
                runner.ask("answer", "no")
            runner.run(seen, jobs[:1] + jobs[3:])
            assert seen.ends == {"0": 0, "3": 3}
        with engine.Engine(jobs, Answers()) as runner, pytest.raises(LookupError):
            runner.ask("answer", "die")
        with engine.Engine(jobs, BrokenSetup()) as runner, pytest.raises(LookupError) as caught:
            runner.ask("answer", "yes")
        assert "no TensorFlow here" in str(caught.value)

    @pytest.mark.slow
    def test_events_outlive_the_process_that_passes_them_on(self) -> None:
        class Kills(Seen):
            def tick(self) -> None:
                for process in psutil.Process().children(recursive=True):
                    with suppress(psutil.Error):
                        if "ray::EventQueue" in " ".join(process.cmdline()):
                            process.kill()

        seen = Kills()
        engine.run([Job(str(i), ("slow", 100), Spec()) for i in range(4)], Work(), seen)
        for key in "0123":
            assert sorted(what for k, what in seen.events if k == key) == list(range(100))

    def test_a_watcher_that_raises_ends_the_run_and_its_workers(self) -> None:
        class Enough(Seen):
            def ended(self, key: str, result: Any) -> None:
                raise StopIteration

        start = time.monotonic()
        jobs = [Job("0", 1, Spec()), Job("1", ("sleep", 60), Spec())]
        with pytest.raises(StopIteration):
            engine.run(jobs, Work(), Enough())
        assert run(["count"] * 2).ends  # the slots are free again
        assert time.monotonic() - start < 60

    @pytest.mark.parametrize(
        ("spec", "key"),
        [
            (Spec(num_cpus=10_000), "resources.num_cpus"),
            (Spec(num_gpus=1), "resources.num_gpus"),
            (Spec(memory=10**15), "resources.memory"),
        ],
    )
    def test_what_the_cluster_can_never_satisfy_is_refused(self, spec: Spec, key: str) -> None:
        with pytest.raises(Invalid, match=key):
            run([1], spec)

    def test_unlike_specs_share_no_worker(self) -> None:
        seen = Seen()
        specs = [Spec(threads=1), Spec(threads=2)] * 3
        jobs = [Job(str(i), "count", s) for i, s in enumerate(specs)]
        engine.run(jobs, Work(), seen)
        even, odd = ({seen.ends[str(i)][0] for i in range(n, 6, 2)} for n in (0, 1))
        assert not even & odd


class TestSeveralNodes:
    @pytest.mark.slow
    def test_a_lost_nodes_jobs_run_elsewhere(self, nodes: Any, tmp_path: Path) -> None:
        doomed = nodes.add_node(num_cpus=2)
        nodes.add_node(num_cpus=1)

        def lose() -> Iterator[None]:
            while not (tmp_path / doomed.node_id).exists():
                time.sleep(0.05)
            nodes.remove_node(doomed, allow_graceful=False)
            yield

        thread = threading.Thread(target=lambda: list(lose()))
        thread.start()
        seen = run([("where", str(tmp_path))] * 8)
        thread.join()
        assert len(seen.ends) == 8
        assert not any(isinstance(r, Failure) for r in seen.ends.values())
        assert 1 <= len(seen.retries) <= 2

    @pytest.mark.slow
    def test_a_node_that_joins_is_used(
        self, nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pool, "NODE_CHECK_SECONDS", 0.5)
        nodes.add_node(num_cpus=1)

        class Joins(Seen):
            def ended(self, key: str, result: Any) -> None:
                super().ended(key, result)
                if len(self.ends) == 1:
                    nodes.add_node(num_cpus=1)

        seen = Joins()
        jobs = [Job(str(i), ("where", str(tmp_path)), Spec()) for i in range(10)]
        engine.run(jobs, Work(), seen)
        assert len(set(seen.ends.values())) == 2

    @pytest.mark.slow
    def test_with_no_node_left_the_jobs_fail_in_time(
        self, nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pool, "NODE_CHECK_SECONDS", 0.2)
        monkeypatch.setattr(pool, "PATIENCE_SECONDS", 1.0)
        node = nodes.add_node(num_cpus=1)
        threading.Timer(1, nodes.remove_node, (node,), {"allow_graceful": False}).start()
        seen = run([("sleep", 30), 1])
        assert {seen.failure(k).cause for k in "01"} == {"lost"}

    def test_fractions_share_a_card_and_the_others_see_none(
        self, nodes: Any, tmp_path: Path
    ) -> None:
        nodes.add_node(num_cpus=4, num_gpus=2)
        assert worker_slots(Spec(num_gpus=0.5)) == 4
        assert worker_slots(Spec(num_gpus=0.6)) == 2
        assert worker_slots(Spec(num_cpus=0.2)) == 20
        shared = run([("gpus", 4, str(tmp_path))] * 4, Spec(num_gpus=0.5)).ends.values()
        by_card: dict[str, set[int]] = {}
        for pid, card in shared:
            by_card.setdefault(card, set()).add(pid)
        assert by_card.keys() == {"0", "1"}
        assert {len(pids) for pids in by_card.values()} == {2}
        with pytest.raises(Invalid, match=r"resources\.num_gpus"):
            worker_slots(Spec(num_gpus=3))

    @pytest.mark.slow
    def test_one_that_finds_its_worker_filled_is_given_a_new_one(self, nodes: Any) -> None:
        nodes.add_node(num_cpus=1, memory=600 * 2**20)
        payloads = [("keep", 300), ("keep", 350), ("keep", 900)]
        seen = run(payloads, Spec(memory=600 * 2**20), max_retries=0)
        assert [seen.ends[k] for k in "01"] == payloads[:2]
        assert seen.failure("2").cause == "memory"
        assert {key for key, _ in seen.retries} == {"1", "2"}

    def test_a_worker_needs_all_that_it_takes_on_one_node(self, nodes: Any) -> None:
        nodes.add_node(num_cpus=8)
        nodes.add_node(num_cpus=1, num_gpus=1)
        assert worker_slots(Spec(num_cpus=1)) == 9
        assert worker_slots(Spec(num_cpus=1, num_gpus=0.25)) == 1
        with pytest.raises(Invalid, match="must fit on one node"):
            worker_slots(Spec(num_cpus=4, num_gpus=1))

    def test_specs_that_do_not_fit_beside_each_other_all_run(
        self, nodes: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pool, "NODE_CHECK_SECONDS", 0.2)
        nodes.add_node(num_cpus=2)
        seen = Seen()
        specs = [Spec(threads=1), Spec(num_cpus=2), Spec(threads=3), Spec(num_cpus=0.5)] * 2
        engine.run([Job(str(i), 1, s) for i, s in enumerate(specs)], Work(), seen)
        assert seen.ends == {str(i): 1 for i in range(8)}


NODE_WITHOUT_MEMORY = """
import os, psutil, sys, time
memory = psutil.virtual_memory()
# Ray ends a worker when the machine has used 1.5 GB more than now
allowed = (memory.total - memory.available + 1.5e9) / memory.total
os.environ |= {"RAY_memory_usage_threshold": str(allowed), "RAY_memory_monitor_refresh_ms": "100"}
from masksweep.sweeps.launch.cluster import Spec, cluster
from masksweep.sweeps.launch.engine import run
from masksweep.sweeps.launch.job import Failure, Job, Watcher

class Work:
    def setup(self, spec): pass

    def run(self, payload, emit):
        held = []
        while payload == "hog":
            held.append(os.urandom(1024) * 100_000)
            time.sleep(0.05)
        return payload

class Told(Watcher):
    def retried(self, key, reason): print("retried", key, reason)

    def ended(self, key, result):
        print(key, f"{result.cause}: {result.reason}" if isinstance(result, Failure) else result)

jobs = [Job(str(i), "hog" if not i else i, Spec()) for i in range(6)]
with cluster():
    run(jobs, Work(), Told(), max_retries=1)
"""


@pytest.mark.slow
def test_a_worker_that_ray_ends_for_memory_takes_no_other_job_with_it(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-c", NODE_WITHOUT_MEMORY],
        cwd=tmp_path,
        env=clean_env(),
        capture_output=True,
        text=True,
    )
    lines = process.stdout.splitlines()
    assert "retried 0 out of memory on its node" in lines
    assert "0 memory: out of memory on its node, 2 times" in lines, process.stderr
    assert {f"{i} {i}" for i in range(1, 6)} <= set(lines)
