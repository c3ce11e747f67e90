"""Real servers for tests (PostgreSQL, MLflow, S3) that can be stopped and started again."""

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
    """A server on a port of 127.0.0.1. It keeps its port and data over `stop` and `start`."""

    uri: str
    _port: int
    _argv: Sequence[str | Path]
    _log: Path
    _stop_with: signal.Signals
    _user: str | None = None
    _env: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    def start(self) -> None:
        """Starts the server and waits until it answers.

        Raises:
            RuntimeError: It does not answer. The message has the end of its log.
        """
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
        deadline = time.monotonic() + PATIENCE_S
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{self.uri} did not start:\n{self._log.read_text()[-3000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stops the whole process group, and waits until its port is closed. May be repeated."""
        if not self._process:
            return
        # a server that failed to start may have ended already
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, self._stop_with)
        self._process.wait(PATIENCE_S)
        self._process = None
        deadline = time.monotonic() + PATIENCE_S
        while self._listens():
            if time.monotonic() > deadline:
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
        address = ["--host", "127.0.0.1", "--port", str(self._port)]
        answer = subprocess.run([ready, "--quiet", *address], check=False)
        return answer.returncode == 0


class WebServer(Server):
    page: ClassVar[str]
    """Path of a page that exists when the server is ready."""

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}{self.page}", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


class MlflowServer(WebServer):
    page = "/health"

    def pause(self) -> None:
        """Makes the server hang: it accepts connections but does not answer."""
        assert self._process
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process
        os.killpg(self._process.pid, signal.SIGCONT)


class ObjectStore(WebServer):
    page = "/moto-api/"

    @property
    def client(self) -> dict[str, str]:
        """Environment variables for its clients."""
        keys = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "tester"}
        return keys | {"AWS_ENDPOINT_URL": self.uri, "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    """Starts a new PostgreSQL server with its log in `folder`; skips the test if none is installed.

    Its data are in another temporary folder: PostgreSQL refuses to run as root, and another user
    cannot enter the folders that pytest creates.
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
            # name the driver: the default of SQLAlchemy 2.1 is psycopg, that of 2.0 is psycopg2
            f"postgresql+psycopg2://tester@127.0.0.1:{port}/postgres",
            port,
            [binaries / "postgres", "-D", data, *(f"--{setting}" for setting in settings)],
            folder / "postgres.log",
            # fast shutdown: it disconnects its clients and stops its own child processes
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
    """Starts an MLflow server on a database; it stores artifacts in `folder/artifacts`."""
    (port,) = free_ports(1)
    env = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    # background jobs would run in sessions of their own, which `stop` does not end
    env |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    argv = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--workers", "1", "--backend-store-uri", backend_uri, "--serve-artifacts"]
    argv += ["--artifacts-destination", (folder / "artifacts").as_uri()]
    log = folder / "mlflow.log"
    # SIGKILL, as when a machine fails: a gentler signal would wait for open connections
    server = MlflowServer(f"http://127.0.0.1:{port}", port, argv, log, signal.SIGKILL, _env=env)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextmanager
def s3_server(folder: Path) -> Iterator[ObjectStore]:
    """Starts an S3 server that keeps its data in memory. Its `client` is for the clients."""
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
    initdb = shutil.which("initdb")
    if initdb:
        return Path(initdb).resolve().parent
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not debian:
        missing("PostgreSQL is not installed: no initdb on PATH or in /usr/lib/postgresql")
    return debian[-1].parent


def free_ports(count: int) -> list[int]:
    """Returns ports of this machine on which nothing listens."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
