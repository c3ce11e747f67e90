"""Real servers for tests: PostgreSQL, MLflow and S3, that can be stopped and started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from tests.support.extras import missing, module

PATIENCE_S = 120.0


@dataclass
class Server:
    """A server on a port of 127.0.0.1 that keeps its port and its data over `stop` and `start`."""

    uri: str
    _port: int
    _argv: Sequence[str | Path]
    _log: Path
    _stop_with: signal.Signals
    _user: str | None = None
    _env: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    def start(self) -> None:
        """Start and wait until it answers. Raises `RuntimeError` with its log if it does not."""
        if self._process:
            raise RuntimeError(f"{self.uri} runs already")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._log.parent,
                env=self._env,
                user=self._user,
                start_new_session=True,
            )
        end = time.monotonic() + PATIENCE_S
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise RuntimeError(f"{self.uri} did not start:\n{self._log.read_text()[-3000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop the whole process group, and wait until its port is closed; no error twice."""
        if not self._process:
            return
        # one that failed to start may have left nobody to stop
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, self._stop_with)
        self._process.wait(PATIENCE_S)
        self._process = None
        end = time.monotonic() + PATIENCE_S
        while self._listens():
            if time.monotonic() > end:
                raise RuntimeError(f"{self.uri} still listens")
            time.sleep(0.01)

    def answers(self) -> bool:
        """Whether it is ready for work."""
        raise NotImplementedError

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0


class Postgres(Server):
    def answers(self) -> bool:
        ready = Path(self._argv[0]).with_name("pg_isready")
        at = ["--host", "127.0.0.1", "--port", str(self._port)]
        answer = subprocess.run([ready, "--quiet", *at], check=False)
        return answer.returncode == 0


class WebServer(Server):
    page: ClassVar[str]
    """That is there when it is ready."""

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}{self.page}", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


class MlflowServer(WebServer):
    page = "/health"

    def pause(self) -> None:
        """Hang: connections are taken, and nothing answers."""
        assert self._process
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process
        os.killpg(self._process.pid, signal.SIGCONT)


class ObjectStore(WebServer):
    page = "/moto-api/"

    @property
    def client(self) -> dict[str, str]:
        """The environment of its clients."""
        keys = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "tester"}
        return keys | {"AWS_ENDPOINT_URL": self.uri, "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    """A PostgreSQL of its own, with its log in this folder; none installed is `missing`.

    Its data lie in a folder of their own: PostgreSQL refuses to run as root, and another user
    cannot enter the folders that pytest makes.
    """
    binaries = postgres_binaries()
    user = "postgres" if os.geteuid() == 0 else None
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="postgres-") as data:
        if user:
            shutil.chown(data, user)
        initdb = [str(binaries / "initdb"), "--pgdata", data, "--username", "tester"]
        subprocess.run(
            [*initdb, "--auth", "trust", "--no-sync", "--encoding", "UTF8", "--no-locale"],
            check=True,
            capture_output=True,
            cwd=data,
            user=user,
        )
        settings = [
            f"port={port}",
            "listen_addresses=127.0.0.1",
            # a path under pytest's folders may be too long for a socket, and /tmp is shared
            "unix_socket_directories=",
            "fsync=off",
        ]
        server = Postgres(
            # the driver by name: without one, SQLAlchemy 2.1 takes psycopg, 2.0 takes psycopg2
            f"postgresql+psycopg2://tester@127.0.0.1:{port}/postgres",
            port,
            [binaries / "postgres", "-D", data, *(f"--{setting}" for setting in settings)],
            folder / "postgres.log",
            # a fast shutdown: it cuts its clients off and stops its own children
            signal.SIGINT,
            user,
        )
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextmanager
def mlflow_server(backend_uri: str, folder: Path) -> Iterator[MlflowServer]:
    """An MLflow server on this database; artifacts pass through it into `folder/artifacts`."""
    (port,) = free_ports(1)
    env = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    # background jobs would be processes in sessions of their own, which `stop` does not reach
    env |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    argv = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--workers", "1", "--backend-store-uri", backend_uri, "--serve-artifacts"]
    argv += ["--artifacts-destination", (folder / "artifacts").as_uri()]
    log = folder / "mlflow.log"
    # killed, as a machine that goes away: a gentler signal would wait for open connections
    server = MlflowServer(f"http://127.0.0.1:{port}", port, argv, log, signal.SIGKILL, _env=env)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextmanager
def s3_server(folder: Path) -> Iterator[ObjectStore]:
    """A store that speaks S3 and keeps nothing; what clients need is in its `client`."""
    module("moto")
    (port,) = free_ports(1)
    argv = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    log = folder / "s3.log"
    server = ObjectStore(f"http://127.0.0.1:{port}", port, argv, log, signal.SIGKILL)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def postgres_binaries() -> Path:
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not debian:
        missing("PostgreSQL is not installed: no initdb on PATH or in /usr/lib/postgresql")
    return debian[-1].parent


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
