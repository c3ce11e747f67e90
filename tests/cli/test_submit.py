"""Tests of sweeps as jobs of a real Ray head: they are sent, followed, listed and stopped."""

from __future__ import annotations

import io
import json
import shlex
import shutil
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from masksweep import sweeps
from masksweep.sweeps.launch import job_client
from tests.support.port_forward import forwarded
from tests.support.ray_head import Head, ray_head
from tests.support.servers import free_ports
from tests.support.sweep_process import Driver, Store, ran, sweep

TINY = ("data=digits", "model.hidden=[8]", "train.steps=5")
OWN_STRATEGY = '''
from dataclasses import dataclass
from typing import ClassVar

from masksweep.strategies.base import Strategy
from masksweep.strategies.binding import Binding
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Own(Strategy):
    """Uses what is held in the forward pass."""

    name: ClassVar[str] = "own"

    def bind(self) -> Binding:
        import tensorflow as tf

        return Binding(substitute=lambda v, m, h: tf.where(m, v, h))
'''


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head() as started:
        yield started


def uri(head: Head) -> str:
    return f"sqlite:///{head.home / 'store.db'}"


def asked(head: Head, folder: Path, *arguments: str, **env: str) -> Driver:
    """Runs a command on the head's jobs, from its start to its end."""
    command, *rest = arguments
    elsewhere = {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:1"}  # --address has precedence
    env = elsewhere | env
    return ran(folder, *rest, command=(command, "--address", head.dashboard), env=env)


def jobs(head: Head) -> list[dict[str, object]]:
    with urllib.request.urlopen(f"{head.dashboard}/api/jobs/") as answer:
        job_list: list[dict[str, object]] = json.load(answer)
    return job_list


@pytest.mark.slow
def test_a_sweep_travels_with_its_code_and_without_secrets(head: Head, tmp_path: Path) -> None:
    # a custom strategy, which the cluster does not have
    code = Path(sweeps.__file__).parents[1]
    for package in ("strategies", "sweeps", "conf"):
        shutil.copytree(
            code / package,
            tmp_path / "masksweep" / package,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    (tmp_path / "masksweep/strategies/own.py").write_text(OWN_STRATEGY)
    (tmp_path / "masksweep/conf/strategy/own.yaml").write_text("# One's own.\nname: own\n")
    # other code of the same name lies in the folder where jobs run
    stray = head.home / "masksweep-results/masksweep/sweeps/__init__.py"
    stray.parent.mkdir(parents=True)
    stray.write_text("raise SystemExit('not this code')")
    own = ("strategy=own", "sweep.name=travels", *TINY)
    env = {"MLFLOW_TRACKING_URI": uri(head), "MLFLOW_TRACKING_PASSWORD": "hunter2"}
    folder = tmp_path / "elsewhere"  # no command imports from its current folder
    folder.mkdir()
    sent = asked(head, folder, "submit", "--follow", *own, PYTHONPATH=str(tmp_path), **env)
    assert sent.code == 0, sent.stderr
    job = sent.stdout.strip()
    assert sent.stdout == f"{job}\n"
    assert f"results go to {uri(head)}, as MLFLOW_TRACKING_URI says here" in sent.stderr
    assert "own, random 0.9, seed 0" in sent.stderr
    assert "hunter2" not in json.dumps(jobs(head))
    store = Store(uri(head), "travels")
    (trial,) = store.children
    assert trial.info.status == "FINISHED"
    assert trial.data.tags["trial.strategy"] == "own"
    assert trial.data.metrics["integrity/ok"] == 1
    assert (head.home / "masksweep-results" / ".masksweep").is_dir()
    listed = asked(head, tmp_path, "status")
    assert listed.code == 0
    (line,) = [x for x in listed.stdout.splitlines() if x.startswith(job)]
    assert line.split()[1:3] == ["SUCCEEDED", "0"]
    assert line.endswith("travels")
    shown = asked(head, tmp_path, "status", job)
    assert shown.code == 0
    assert shown.stdout.startswith("sweep: travels\nstate: SUCCEEDED\nexit code: 0\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "code", "said"),
    [
        ("launch.trial_timeout_s=0.001", 1, "failed: timed out"),
        ("targets=[nope/*]", 2, "targets=nope/*: matches no weight"),
    ],
)
def test_the_exit_code_is_the_sweeps(
    head: Head, tmp_path: Path, override: str, code: int, said: str
) -> None:
    arguments = ("submit", "--follow", *TINY, override, f"tracking.uri={uri(head)}")
    sent = asked(head, tmp_path, *arguments)
    assert sent.code == code, sent.stderr
    assert said in sent.stderr
    assert "MLFLOW_TRACKING_URI" not in sent.stderr
    job = sent.stdout.strip()
    found = asked(head, tmp_path, "status", job)
    assert found.code == 1
    assert f"state: FAILED\nexit code: {code}\n" in found.stdout


@pytest.mark.slow
def test_stop_lets_the_sweep_end_in_order(head: Head, tmp_path: Path) -> None:
    long = (*TINY[:2], "train.epochs=100000000", "sweep.name=long", f"tracking.uri={uri(head)}")
    command = ("submit", "--follow", "--address", head.dashboard)
    with sweep(tmp_path, *long, command=command) as follower:
        follower.wait_for(lambda: "Running 1 trial" in follower.stderr)
        store = Store(uri(head), "long")
        follower.wait_for(lambda: store.by_status()["RUNNING"])
        job = follower.stdout.strip()
        other = tmp_path / "other"
        other.mkdir()
        running = asked(head, other, "status", job)
        assert (running.code, "state: RUNNING" in running.stdout) == (0, True)
        stopped = asked(head, other, "stop", job)
        assert (stopped.code, stopped.stdout) == (0, f"{job} STOPPED\n")
        assert follower.wait() == 143
    assert store.parent.info.status == "KILLED"
    assert store.by_status() == {"KILLED": 1}
    found = asked(head, tmp_path, "status", job)
    assert found.code == 1
    assert "exit code: 143" in found.stdout
    again = asked(head, tmp_path, "stop", job)
    assert (again.code, again.stdout) == (0, f"{job} STOPPED\n")


PRINTS = """
import time
for second in range(4):
    print(*(f"{second}.{number} " + "x" * 90 for number in range(1000)), sep="\\n", flush=True)
    time.sleep(1)
"""


@pytest.mark.filterwarnings("ignore:ssl=None is deprecated")  # Ray calls aiohttp so
@pytest.mark.slow  # its job prints for seconds
def test_a_log_is_read_once_and_each_line_shown_once_whatever_breaks(head: Head) -> None:
    there = ("127.0.0.1", int(head.dashboard.rpartition(":")[2]))
    here = ("127.0.0.1", free_ports(1)[0])
    shown = io.StringIO()
    with forwarded(here, there) as traffic:
        client = job_client.connect(f"http://{here[0]}:{here[1]}")
        job = job_client.send(client, entrypoint=shlex.join(["python", "-c", PRINTS]))
        cuts: list[str] = []

        def show(text: str) -> None:
            shown.write(text)
            if not cuts and "1.999 " in text:  # while the job still prints
                cuts.append(text)
                traffic.cut()

        ended = job_client.follow(client, job, show)
    assert cuts
    assert (ended.status, ended.driver_exit_code) == ("SUCCEEDED", 0)
    lines = [line for line in shown.getvalue().splitlines() if line.endswith("x" * 90)]
    assert [line.split()[0] for line in lines] == [
        f"{second}.{number}" for second in range(4) for number in range(1000)
    ]
    # the whole log at most four times: a connection before the cut, one after it, one at the end
    assert traffic.received < 4 * len(shown.getvalue())


def test_a_log_that_stays_out_of_reach_ends_the_following(
    head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example behind a proxy that passes requests, but no websockets."""
    client = job_client.connect(head.dashboard)
    job = job_client.send(client, entrypoint="true")

    def refused(job: str) -> AsyncIterator[str]:
        raise ConnectionRefusedError("no websockets here")

    monkeypatch.setattr(client, "tail_job_logs", refused)
    monkeypatch.setattr(job_client, "PATIENCE_SECONDS", 1.0)
    with pytest.raises(TimeoutError, match="no websockets here"):
        job_client.follow(client, job, print)


@pytest.mark.parametrize("command", ["status", "stop"])
def test_a_job_that_is_not_there_is_one_line(head: Head, tmp_path: Path, command: str) -> None:
    done = asked(head, tmp_path, command, "nope")
    assert done.code == 2
    assert done.stderr == "masksweep: ID=nope: no such job; masksweep status lists them\n"


@pytest.mark.parametrize(
    ("address", "arguments"),
    [
        ("http://127.0.0.1:1", ("status",)),
        ("127.0.0.1:1", ("stop", "x")),
        ("http://nobody.invalid", ("submit", *TINY)),
    ],
)
def test_a_dashboard_that_does_not_answer_is_one_line(
    tmp_path: Path, address: str, arguments: tuple[str, ...]
) -> None:
    command, *rest = arguments
    begun = time.monotonic()
    done = ran(tmp_path, *rest, command=(command,), env={"RAY_ADDRESS": address})
    assert time.monotonic() - begun < 30
    assert done.code == 2
    assert not done.stdout
    assert done.stderr.startswith(f"masksweep: --address={address}: no Ray dashboard ")
    assert len(done.stderr.splitlines()) == 1
