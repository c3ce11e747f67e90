"""Sweeps as Ray jobs: sent to a cluster's head, followed, listed, stopped. The sender may leave."""

from __future__ import annotations

import functools
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from masksweep.strategies.base import Invalid
from masksweep.sweeps.cli.parcel import packed
from masksweep.sweeps.common import escape
from masksweep.sweeps.common.parser import Parser
from masksweep.sweeps.common.redact import shown
from masksweep.sweeps.common.spinner import doing
from masksweep.sweeps.launch import cluster

DEFAULT = "http://127.0.0.1:8265"
FOLDER = '"$HOME/masksweep-results"'
"""Where jobs run, on the head: a Ray job's own folder goes with it."""
STOP_SECONDS = 30
"""How long a sweep may take to end in order; Ray kills it then."""
PATIENCE_SECONDS = 60.0
"""How long a cluster may be out of reach while its log is followed."""
AGENT_SECONDS = 60.0
"""How long a head may take until its agent, which starts jobs, is there."""
NO_AGENT = "No available agent"
NAME = "masksweep"
"""The key of a job's metadata that holds its sweep's name."""
TERMINATED = 143


def reached(command: Callable[[Sequence[str]], int]) -> Callable[[Sequence[str]], int]:
    """Say in one line that the cluster stopped answering, and return 1."""

    @functools.wraps(command)
    def run(arguments: Sequence[str]) -> int:
        try:
            return command(arguments)
        except BrokenPipeError:  # of our own output
            raise
        except (OSError, RuntimeError) as error:
            said = " ".join(str(error).split())[:300]
            print(f"masksweep: the cluster does not answer: {said}", file=sys.stderr)
            return 1

    return run


@reached
def submit(arguments: Sequence[str]) -> int:
    """`masksweep submit`: send a sweep, print its job's id; the sweep's exit code if followed.

    What a sweep's config can say wrongly is said here, before anything is sent.
    """
    parser = _parser("submit")
    parser.add_argument("--follow", action="store_true", help="print its log until it ends")
    given, asked = parser.parse_known_args(arguments)
    parcel = packed(asked)
    client = _client(given.address)
    if parcel.store:
        said = f"masksweep: results go to {parcel.store}, as MLFLOW_TRACKING_URI says here"
        print(said, file=sys.stderr)
    command = shlex.join(["python", "-P", "-m", "masksweep.sweeps.cli", "run", *parcel.arguments])
    with cluster.code() as code:
        job = _sent(
            client,
            entrypoint=f"mkdir -p {FOLDER} && cd {FOLDER} && exec {command}",
            # seen by everybody who sees the dashboard
            runtime_env=code | {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}},
            metadata={NAME: parcel.name},
        )
    print(job, flush=True)
    return _follow(client, job) if given.follow else 0


def _sent(client: Any, **job: Any) -> str:
    """The id of a job that was sent. A head that has just started has no agent for jobs yet."""
    end = time.monotonic() + AGENT_SECONDS
    with doing("Sending the sweep"):
        while True:
            try:
                return str(client.submit_job(**job))
            except RuntimeError as error:
                if NO_AGENT not in str(error) or time.monotonic() > end:
                    raise
                time.sleep(1)


@reached
def status(arguments: Sequence[str]) -> int:
    """`masksweep status [ID]`: the cluster's sweeps, or one; 1 if that one did not end well."""
    parser = _parser("status")
    parser.add_argument("id", nargs="?")
    given = parser.parse_args(arguments)
    client = _client(given.address)
    if given.id is None:
        _list([job for job in client.list_jobs() if NAME in (job.metadata or {})])
        return 0
    job = _info(client, given.id)
    print(f"sweep: {(job.metadata or {}).get(NAME, '-')}\nstate: {job.status}")
    if job.status.is_terminal():
        print(f"exit code: {_exit_code(job)}")
    if job.message:
        print(f"message: {job.message}")
    return int(job.status in ("FAILED", "STOPPED"))


@reached
def stop(arguments: Sequence[str]) -> int:
    """`masksweep stop ID`: end a sweep in order, and wait until it has ended."""
    parser = _parser("stop")
    parser.add_argument("id")
    given = parser.parse_args(arguments)
    client = _client(given.address)
    job = _info(client, given.id)
    if not job.status.is_terminal():
        client.stop_job(given.id)
        end = time.monotonic() + 2 * STOP_SECONDS
        while not (job := _info(client, given.id)).status.is_terminal():
            if time.monotonic() > end:
                print(f"masksweep: {given.id} has not ended yet", file=sys.stderr)
                return 1
            time.sleep(0.2)
    print(f"{given.id} {job.status}")
    return 0


def _parser(command: str) -> Parser:
    parser = Parser(prog=f"masksweep {command}", allow_abbrev=False)
    said = f"the cluster's dashboard; default: RAY_API_SERVER_ADDRESS, RAY_ADDRESS, or {DEFAULT}"
    parser.add_argument("--address", metavar="URL", help=said)
    return parser


def _client(address: str | None) -> Any:
    """A client of the cluster's dashboard. Raises `Invalid` (key `--address`) if none answers."""
    import requests
    from ray.exceptions import AuthenticationError, RayError
    from ray.job_submission import JobSubmissionClient

    cluster.quiet()
    named = (os.environ.get(k) for k in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"))
    address = next(filter(None, (address, *named)), DEFAULT)
    # the client lets it go before what it is told
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    try:
        # neither the client nor Ray gives up soon
        if address.startswith(("http://", "https://")):
            requests.head(address, timeout=cluster.PROBE_SECONDS)
        else:
            cluster.knock(address)
        return JobSubmissionClient(address)
    except requests.RequestException as error:
        raise Invalid("--address", shown(address), "no Ray dashboard answers there") from error
    except (OSError, RuntimeError, ValueError, RayError) as error:
        denied = isinstance(error, AuthenticationError | PermissionError)
        what = "refuses" if denied else "no Ray dashboard there"
        reason = " ".join(str(error).split())[:300]
        raise Invalid("--address", shown(address), f"{what}: {reason}") from error


def _info(client: Any, job: str) -> Any:
    try:
        return client.get_job_info(job)
    except RuntimeError as error:
        if "404" not in str(error):
            raise
        raise Invalid("ID", job, "no such job; masksweep status lists them") from error


def _follow(client: Any, job: str) -> int:
    """Print the job's log on stderr until it ends; its exit code."""
    print(f"Ctrl-C leaves it running; masksweep stop {job} ends it.", file=sys.stderr)
    printed, heard = 0, time.monotonic()
    while True:
        try:
            found = client.get_job_info(job)
            log = client.get_job_logs(job)
        except (OSError, RuntimeError):  # a laptop that slept, a proxy that blinked
            if time.monotonic() - heard > PATIENCE_SECONDS:
                print(f"masksweep: the cluster is out of reach; {job} may go on", file=sys.stderr)
                return 1
        else:
            heard = time.monotonic()
            print(log[printed:], end="", file=sys.stderr, flush=True)
            printed = len(log)
            if found.status.is_terminal():
                break
        time.sleep(1)
    if found.driver_exit_code is None and found.message:
        print(found.message, file=sys.stderr)
    return _exit_code(found)


def _exit_code(job: Any) -> int:
    """Of a job that ended. Ray keeps none of one that was stopped, or never began."""
    code: int | None = job.driver_exit_code
    if code is not None:
        return code if code >= 0 else 128 - code
    return {"SUCCEEDED": 0, "STOPPED": TERMINATED}.get(job.status, 1)


def _list(jobs: Sequence[Any]) -> None:
    from rich.text import Text

    rows = [("job", "state", "exit", "started", "sweep")]
    for job in sorted(jobs, key=lambda job: job.start_time or 0):
        code = str(_exit_code(job)) if job.status.is_terminal() else "-"
        began = f"{datetime.fromtimestamp((job.start_time or 0) / 1000):%m-%d %H:%M}"
        rows.append((job.submission_id, str(job.status), code, began, job.metadata[NAME]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    console = escape.console()
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        if console.is_terminal:
            console.print(Text(line.rstrip()), no_wrap=True, overflow="ellipsis")
        else:
            print(line.rstrip())
