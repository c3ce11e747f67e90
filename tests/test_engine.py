"""Jobs on Ray: all of them end once, with their events, whatever happens to a worker."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from strategies import Invalid
from sweeps import engine

# the workers cannot import the tests
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Work:
    """Does what the payload says."""

    def setup(self, spec: engine.Spec) -> None:
        self.jobs = 0

    def run(self, payload: Any, emit: engine.Emit) -> Any:
        self.jobs += 1
        match payload:
            case "raise":
                raise ValueError("this trial is bad")
            case ("die once", mark):
                for i in range(3):
                    emit(i)
                if not Path(mark).exists():
                    Path(mark).touch()
                    time.sleep(0.3)  # let the events leave
                    os._exit(9)
            case "die":
                os._exit(9)
            case "count":
                return os.getpid(), self.jobs
            case _:
                for i in range(payload):
                    emit(i)
        return payload


def run(payloads: list[Any], spec: engine.Spec | None = None) -> tuple[dict[str, Any], list[Any]]:
    ends: dict[str, Any] = {}
    events: list[Any] = []

    def end(key: str, result: Any) -> None:
        assert key not in ends
        ends[key] = result

    def event(key: str, what: Any) -> None:
        assert key not in ends, "an event after its job's end"
        events.append((key, what))

    jobs = [engine.Job(str(i), p, spec or engine.Spec()) for i, p in enumerate(payloads)]
    engine.run(jobs, Work(), on_event=event, on_end=end)
    return ends, events


@pytest.mark.usefixtures("ray_cluster")
class TestEngine:
    def test_every_job_ends_once_with_its_events_in_order(self) -> None:
        ends, events = run([3] * 20)
        assert ends == {str(i): 3 for i in range(20)}
        for key in ends:
            assert [what for k, what in events if k == key] == [0, 1, 2]

    def test_workers_live_on_between_jobs(self) -> None:
        ends, _ = run(["count"] * 10)
        assert len({pid for pid, _ in ends.values()}) <= (os.cpu_count() or 1)
        assert sum(jobs == 1 for _, jobs in ends.values()) == len({p for p, _ in ends.values()})

    def test_one_that_raises_takes_no_other_with_it(self) -> None:
        ends, _ = run([1, "raise", 2])
        assert (ends["0"], ends["2"]) == (1, 2)
        assert isinstance(ends["1"], engine.Failure)
        assert ends["1"].reason == "ValueError: this trial is bad"
        assert "in run" in ends["1"].traceback

    def test_a_job_whose_worker_died_runs_again(self, tmp_path: Path) -> None:
        payload = ("die once", str(tmp_path / "mark"))
        ends, events = run([1, payload, 1])
        assert ends == {"0": 1, "1": payload, "2": 1}
        assert [what for key, what in events if key == "1"] == [0, 1, 2] * 2

    def test_a_job_that_always_kills_its_worker_fails_alone(self) -> None:
        ends, _ = run(["die", 1, 1])
        assert isinstance(ends["0"], engine.Failure)
        assert (ends["1"], ends["2"]) == (1, 1)

    @pytest.mark.parametrize(
        ("spec", "key"),
        [
            (engine.Spec(num_cpus=10_000), "resources.num_cpus"),
            (engine.Spec(num_gpus=1), "resources.num_gpus"),
            (engine.Spec(memory=10**15), "resources.memory"),
        ],
    )
    def test_what_the_cluster_can_never_satisfy_is_refused(
        self, spec: engine.Spec, key: str
    ) -> None:
        with pytest.raises(Invalid, match=key):
            run([1], spec)

    def test_a_worker_needs_all_that_it_takes_on_one_node(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        nodes = [{"CPU": 8.0}, {"CPU": 1.0, "GPU": 1.0}]
        alive = [{"Alive": True, "Resources": r} for r in nodes]
        monkeypatch.setattr(ray, "nodes", lambda: alive)
        assert engine.slots(engine.Spec(num_cpus=1)) == 9
        assert engine.slots(engine.Spec(num_cpus=1, num_gpus=0.25)) == 1
        with pytest.raises(Invalid, match="must fit on one node"):
            engine.slots(engine.Spec(num_cpus=4, num_gpus=1))

    def test_unlike_specs_share_no_worker(self) -> None:
        ends: dict[str, Any] = {}
        specs = [engine.Spec(threads=1), engine.Spec(threads=2)] * 3
        jobs = [engine.Job(str(i), "count", s) for i, s in enumerate(specs)]
        engine.run(jobs, Work(), on_end=ends.__setitem__)
        even, odd = ({ends[str(i)][0] for i in range(n, 6, 2)} for n in (0, 1))
        assert not even & odd
