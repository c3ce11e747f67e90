"""A real Ray head with its dashboard, apart from whatever else runs here."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.driver import clean_env, wait_for

PATIENCE_S = 60.0


@dataclass(frozen=True)
class Head:
    """A cluster of one node."""

    home: Path
    """Of who started it: jobs leave their files there."""
    address: str
    """As a node joins."""
    client: str
    """As a laptop joins, with `ray://`."""
    dashboard: str
    log: Path
    token: str

    def answers(self) -> bool:
        """Whether it takes jobs, and laptops."""
        host, _, port = self.client.removeprefix("ray://").partition(":")
        known = {"Authorization": f"Bearer {self.token}"}
        asked = urllib.request.Request(f"{self.dashboard}/api/jobs/", headers=known)
        with suppress(OSError), urllib.request.urlopen(asked, timeout=5):
            socket.create_connection((host, int(port)), timeout=5).close()
            return True
        return False


@contextmanager
def ray_head(**env: str) -> Iterator[Head]:
    """Start one; at the end all that it started is gone, and nothing else."""
    # Ray keeps sockets there, whose paths must be short
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        home = folder / "home"
        home.mkdir()
        port, client, dashboard = _free_ports(3)
        head = Head(
            home,
            f"127.0.0.1:{port}",
            f"ray://127.0.0.1:{client}",
            f"http://127.0.0.1:{dashboard}",
            folder / "log",
            env.get("RAY_AUTH_TOKEN", ""),
        )
        binaries = Path(sys.executable).parent
        ports = {
            "port": port,
            "ray-client-server-port": client,
            "dashboard-port": dashboard,
            "dashboard-agent-listen-port": 0,
            "min-worker-port": 0,
            "max-worker-port": 0,
        }
        with head.log.open("wb") as log:
            process = subprocess.Popen(
                [binaries / "ray", "start", "--head", "--block", "--disable-usage-stats"]
                + ["--num-cpus=2", f"--temp-dir={folder}", "--dashboard-host=127.0.0.1"]
                + [f"--{key}={value}" for key, value in ports.items()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=home,
                env=clean_env(HOME=str(home), PATH=f"{binaries}{os.pathsep}{os.environ['PATH']}")
                | env,
                start_new_session=True,
            )
        try:
            wait_for(lambda: head.answers() or process.poll() is not None, PATIENCE_S)
            assert process.poll() is None, head.log.read_text()
            yield head
        finally:
            family = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE_S)
            for one in [process, *family]:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            process.wait()


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
