"""Starts real Ray heads and nodes with a dashboard, independent of other clusters."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.autoscaling_cluster import autoscaler
from tests.support.servers import free_ports
from tests.support.sweep_process import clean_env, wait_for

PATIENCE_S = 60.0
STARTED = "Ray runtime started"
# 0 takes free ports: other clusters may run on this machine
FREE = ("--dashboard-agent-listen-port=0", "--min-worker-port=0", "--max-worker-port=0")


@dataclass(frozen=True)
class Head:
    """The head of a Ray cluster."""

    home: Path
    """Home folder of the user who started it. Jobs leave their files in it."""
    address: str
    """Address with which a node joins."""
    client: str
    """Address with which a remote driver joins, with `ray://`."""
    dashboard: str
    log: Path
    token: str

    def answers(self) -> bool:
        """Whether it accepts jobs and remote drivers."""
        host, _, port = self.client.removeprefix("ray://").partition(":")
        headers = {"Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(f"{self.dashboard}/api/jobs/", headers=headers)
        with suppress(OSError), urllib.request.urlopen(request, timeout=5):
            socket.create_connection((host, int(port)), timeout=5).close()
            return STARTED in self.log.read_text()
        return False


@contextmanager
def ray_head(num_cpus: int = 2, grows: str = "", **env: str) -> Iterator[Head]:
    """Starts a head. At the end, ends all processes that the head started, and no others.

    Args:
        num_cpus: CPUs of the head node.
        grows: Version of the autoscaler that adds nodes, `v1` or `v2`; empty for none.
        **env: Additional environment variables.
    """
    # a short path: Ray keeps sockets in this folder
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as temporary_folder:
        folder = Path(temporary_folder)
        home = folder / "home"
        home.mkdir()
        port, client, dashboard = free_ports(3)
        head = Head(
            home,
            f"127.0.0.1:{port}",
            f"ray://127.0.0.1:{client}",
            f"http://127.0.0.1:{dashboard}",
            folder / "log",
            env.get("RAY_AUTH_TOKEN", ""),
        )
        ports = {"port": port, "ray-client-server-port": client, "dashboard-port": dashboard}
        options = [f"--{key}={value}" for key, value in ports.items()]
        options += ["--head", "--dashboard-host=127.0.0.1", f"--temp-dir={folder}"]
        if grows:
            option, more = autoscaler(folder, head.address, grows)
            options, env = [*options, option], {**env, **more}
        with _started(head, [*options, f"--num-cpus={num_cpus}"], env, not grows) as process:
            wait_for(lambda: head.answers() or process.poll() is not None, PATIENCE_S)
            assert process.poll() is None, head.log.read_text()
            yield head


@contextmanager
def ray_node(head: Head, num_cpus: int = 1) -> Iterator[subprocess.Popen[bytes]]:
    """Starts another node of the head's cluster, as on another machine."""
    options = [f"--address={head.address}", f"--num-cpus={num_cpus}"]
    before = head.log.read_text().count(STARTED)
    with _started(head, options, {}) as process:
        wait_for(lambda: head.log.read_text().count(STARTED) > before, PATIENCE_S)
        yield process


def end(process: subprocess.Popen[bytes], gently: bool = False) -> None:
    """Ends a node and all processes that it started.

    Args:
        process: The node.
        gently: Whether the node may shut down first; otherwise it is killed, as when a machine
            fails.
    """
    with suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
        if gently:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE_S)
        for node_process in [process, *family]:
            with suppress(psutil.NoSuchProcess):
                node_process.kill()
    process.wait()


@contextmanager
def _started(
    head: Head, options: Sequence[str], env: Mapping[str, str], gently: bool = True
) -> Iterator[subprocess.Popen[bytes]]:
    binaries = Path(sys.executable).parent
    path = f"{binaries}{os.pathsep}{os.environ['PATH']}"
    with head.log.open("ab") as log:
        process = subprocess.Popen(
            [binaries / "ray", "start", "--block", "--disable-usage-stats", *FREE, *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=head.home,
            env=clean_env(HOME=str(head.home), PATH=path) | env,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        end(process, gently)
