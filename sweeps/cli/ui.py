"""The command `masksweep ui`: MLflow's pages on the results of this machine."""

from __future__ import annotations

import http.client
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.common.parser import Parser
from masksweep.sweeps.common.redact import redact
from masksweep.sweeps.common.signals import end_children, ignore_interrupt_in_children
from masksweep.sweeps.tracking.store import StoreUnavailable, is_local, store_uri
from masksweep.sweeps.tracking.stored_runs import latest_view_url

FIRST_PORT = 5000
"""MLflow's own default."""
SERVER_SECONDS = 5.0
"""How long MLflow's server may take to shut down, in seconds."""
POLL_SECONDS = 0.2


def ui(arguments: Sequence[str]) -> int:
    """Runs `masksweep ui`: serves MLflow's pages for the local store until a signal ends it.

    Args:
        arguments: The arguments after `ui`.

    Returns:
        The exit code: that of the server, or 0 if the results are on a server already.

    Raises:
        Invalid: No server can listen on the port, or the store is away.
    """
    parser = Parser(prog="masksweep ui")
    parser.add_argument("--port", type=int, help=f"default: {FIRST_PORT}, or the next free one")
    parser.add_argument("--uri", help="as tracking.uri; default: the one that run uses")
    options = parser.parse_args(arguments)
    uri = store_uri(options.uri)
    if not is_local(uri):
        print(f"The results are on a server already: {redact(uri)}")
        return 0
    port = _free_port(FIRST_PORT) if options.port is None else _checked_port(options.port)
    try:
        page = f"http://127.0.0.1:{port}/{latest_view_url(uri)}"
    except StoreUnavailable as error:
        raise Invalid("tracking.uri", redact(uri), f"cannot be reached: {error}") from error
    try:
        # without a spinner, between whose frames the server's own lines would stand
        print("Starting MLflow ...", file=sys.stderr, flush=True)
        server = _start(uri, port)
        while server.poll() is None and not _answers(port):
            time.sleep(POLL_SECONDS)
        if server.poll() is None:
            print(f"MLflow on {page}   (Ctrl-C ends it)", flush=True)
        return server.wait()
    except KeyboardInterrupt:
        end_children(SERVER_SECONDS)
        raise


def port_problem(port: int) -> str:
    """Returns why no server can listen on a port of 127.0.0.1; empty if one can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.strerror or "cannot be had"
    return ""


def _start(uri: str, port: int) -> subprocess.Popen[bytes]:
    """Starts MLflow's server, which runs on if this process gets a signal."""
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # no sweep needs MLflow's job runner, which takes eight processes and half a minute to start
    env = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | os.environ
    # not as an argument: every user of this machine can read a process's arguments
    env |= {"MLFLOW_BACKEND_STORE_URI": uri}
    # uvicorn puts a folder first on its path, by default the current one; Python's own is safe
    options += ["--uvicorn-opts", shlex.join(["--app-dir", str(Path(os.__file__).parent)])]
    # not subprocess.call: on a signal it kills MLflow's command, but not the server that it started
    command = [sys.executable, "-m", "mlflow", "server", *options]
    with ignore_interrupt_in_children():  # at which the server would print a traceback
        return subprocess.Popen(command, env=env, stdout=2)  # stdout has the link alone


def _answers(port: int) -> bool:
    """Whether MLflow answers on a port of 127.0.0.1. No proxy is asked."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with closing(connection), suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    return False


def _checked_port(port: int) -> int:
    """Returns the port. Raises `Invalid` if no server can listen on it."""
    if not 0 < port < 2**16:
        raise Invalid("--port", port, "must be from 1 to 65535")
    if reason := port_problem(port):
        raise Invalid("--port", port, f"{reason}; without --port a free one is taken")
    return port


def _free_port(first: int) -> int:
    for port in range(first, first + 100):
        if not port_problem(port):
            return port
    raise Invalid("--port", first, "a free port")
