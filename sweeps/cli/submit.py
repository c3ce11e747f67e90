"""Sweeps as Ray jobs: sent to a cluster's head, followed, listed, stopped. The sender may leave."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial, wraps
from typing import Any

from masksweep.sweeps.cli.parcel import packed
from masksweep.sweeps.common import escape
from masksweep.sweeps.common.parser import Parser
from masksweep.sweeps.common.spinner import doing
from masksweep.sweeps.launch import cluster, job_client

FOLDER = '"$HOME/masksweep-results"'
"""Where jobs run, on the head: a Ray job's own folder goes with it."""
STOP_SECONDS = 30
"""How long a sweep may take to end in order; Ray kills it then."""
NAME = "masksweep"
"""The key of a job's metadata that holds its sweep's name."""


def reached(command: Callable[[Sequence[str]], int]) -> Callable[[Sequence[str]], int]:
    """Say in one line that the cluster stopped answering, and return 1."""

    @wraps(command)
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
    client = job_client.connect(given.address)
    if parcel.store:
        said = f"masksweep: results go to {parcel.store}, as MLFLOW_TRACKING_URI says here"
        print(said, file=sys.stderr)
    command = shlex.join(["python", "-P", "-m", "masksweep.sweeps.cli", "run", *parcel.arguments])
    with cluster.code() as code, doing("Sending the sweep"):
        job = job_client.send(
            client,
            entrypoint=f"mkdir -p {FOLDER} && cd {FOLDER} && exec {command}",
            # seen by everybody who sees the dashboard
            runtime_env=code | {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}},
            metadata={NAME: parcel.name},
        )
    print(job, flush=True)
    return _follow(client, job) if given.follow else 0


@reached
def status(arguments: Sequence[str]) -> int:
    """`masksweep status [ID]`: the cluster's sweeps, or one; 1 if that one did not end well."""
    parser = _parser("status")
    parser.add_argument("id", nargs="?")
    given = parser.parse_args(arguments)
    client = job_client.connect(given.address)
    if given.id is None:
        _list([job for job in client.list_jobs() if NAME in (job.metadata or {})])
        return 0
    job = job_client.info(client, given.id)
    print(f"sweep: {(job.metadata or {}).get(NAME, '-')}\nstate: {job.status}")
    if job.status.is_terminal():
        print(f"exit code: {job_client.exit_code(job)}")
    if job.message:
        print(f"message: {job.message}")
    return int(job.status in ("FAILED", "STOPPED"))


@reached
def stop(arguments: Sequence[str]) -> int:
    """`masksweep stop ID`: end a sweep in order, and wait until it has ended."""
    parser = _parser("stop")
    parser.add_argument("id")
    given = parser.parse_args(arguments)
    client = job_client.connect(given.address)
    job = job_client.info(client, given.id)
    if not job.status.is_terminal():
        client.stop_job(given.id)
        end = time.monotonic() + 2 * STOP_SECONDS
        while not (job := job_client.info(client, given.id)).status.is_terminal():
            if time.monotonic() > end:
                print(f"masksweep: {given.id} has not ended yet", file=sys.stderr)
                return 1
            time.sleep(0.2)
    print(f"{given.id} {job.status}")
    return 0


def _parser(command: str) -> Parser:
    parser = Parser(prog=f"masksweep {command}", allow_abbrev=False)
    default = f"RAY_API_SERVER_ADDRESS, RAY_ADDRESS, or {job_client.DEFAULT}"
    said = f"the cluster's dashboard; default: {default}"
    parser.add_argument("--address", metavar="URL", help=said)
    return parser


def _follow(client: Any, job: str) -> int:
    """Print the job's log on stderr until the job ends, and return its exit code."""
    print(f"Ctrl-C leaves it running; masksweep stop {job} ends it.", file=sys.stderr)
    try:
        ended = job_client.follow(client, job, partial(print, end="", file=sys.stderr, flush=True))
    except TimeoutError:
        print(f"masksweep: the cluster is out of reach; {job} may go on", file=sys.stderr)
        return 1
    if ended.driver_exit_code is None and ended.message:
        print(ended.message, file=sys.stderr)
    return job_client.exit_code(ended)


def _list(jobs: Sequence[Any]) -> None:
    from rich.text import Text

    rows = [("job", "state", "exit", "started", "sweep")]
    for job in sorted(jobs, key=lambda job: job.start_time or 0):
        code = str(job_client.exit_code(job)) if job.status.is_terminal() else "-"
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
