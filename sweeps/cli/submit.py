"""The commands `masksweep submit`, `status` and `stop`: sweeps as jobs of a Ray cluster.

A job runs on the cluster's head, so the machine that sent it may be switched off.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial, wraps
from typing import Any

from masksweep.sweeps.cli.submission import prepare
from masksweep.sweeps.common import escape
from masksweep.sweeps.common.parser import Parser
from masksweep.sweeps.common.spinner import show_status
from masksweep.sweeps.components import plugins
from masksweep.sweeps.components.plugin_files import FLAG
from masksweep.sweeps.launch import cluster, job_client

JOB_FOLDER = '"$HOME/masksweep-results"'
"""Folder on the head in which jobs run. Ray deletes a job's own folder when the job ends."""
PRINT_PLUGINS_FOLDER = f"""
from importlib.util import find_spec
print(*find_spec("masksweep.{cluster.SENT_PLUGINS}").submodule_search_locations)
""".strip()
"""Python that prints the folder on the head that has the sent plugins."""
STOP_SECONDS = 30
"""How long a sweep may take to shut down, in seconds; then Ray kills it."""
SWEEP_NAME_KEY = "masksweep"
"""Key of the sweep's name in a job's metadata."""
ABOUT = """Runs a sweep as a job of a Ray cluster. OVERRIDES are those of `masksweep run`.
tracking.uri must be a store that the cluster reaches, such as an MLflow server, and paths of files
must be absolute paths that each node has."""
"""What the help of `masksweep submit` says."""


def report_connection_errors(
    command: Callable[[Sequence[str]], int],
) -> Callable[[Sequence[str]], int]:
    """Decorates a command: prints one line and returns 1 if the cluster stops answering."""

    @wraps(command)
    def run(arguments: Sequence[str]) -> int:
        try:
            return command(arguments)
        except BrokenPipeError:  # from our own stdout, not from the cluster
            raise
        except (OSError, RuntimeError) as error:
            message = " ".join(str(error).split())[:300]
            print(f"masksweep: the cluster does not answer: {message}", file=sys.stderr)
            return 1

    return run


@report_connection_errors
def submit(arguments: Sequence[str]) -> int:
    """Runs `masksweep submit`: sends a sweep to a cluster, and prints the id of its job.

    Errors in the config are found here, before anything is sent.

    Args:
        arguments: The command's arguments, without the word `submit`.

    Returns:
        The exit code: with `--follow` the sweep's, otherwise 0.

    Raises:
        Invalid: The sweep is refused, or no dashboard answers at the address.
    """
    parser = _parser("submit", epilog=plugins.HELP, description=ABOUT)
    parser.usage = "masksweep submit [-h] [--address URL] [--follow] [OVERRIDES]"
    parser.add_argument("--follow", action="store_true", help="print its log until it ends")
    options, run_arguments = parser.parse_known_args(arguments)
    submission = prepare(run_arguments)
    client = job_client.connect(options.address)
    if submission.store:
        message = f"masksweep: results go to {submission.store}, as MLFLOW_TRACKING_URI says here"
        print(message, file=sys.stderr)
    command = _run_command(submission.arguments)
    environment = cluster.code_environment(plugins.files())
    with environment as code, show_status("Sending the sweep"):
        job = job_client.send(
            client,
            entrypoint=f"mkdir -p {JOB_FOLDER} && cd {JOB_FOLDER} && {command}",
            # no secrets here: everybody who sees the dashboard sees these variables
            runtime_env=code | {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}},
            metadata={SWEEP_NAME_KEY: submission.name},
        )
    print(job, flush=True)
    return _follow(client, job) if options.follow else 0


@report_connection_errors
def status(arguments: Sequence[str]) -> int:
    """Runs `masksweep status [ID]`: lists the cluster's sweeps, or shows one.

    Args:
        arguments: The command's arguments, without the word `status`.

    Returns:
        The exit code: 1 if the shown sweep has failed or was stopped.
    """
    parser = _parser("status")
    parser.add_argument("id", nargs="?")
    options = parser.parse_args(arguments)
    client = job_client.connect(options.address)
    if options.id is None:
        _list([job for job in client.list_jobs() if SWEEP_NAME_KEY in (job.metadata or {})])
        return 0
    job = job_client.info(client, options.id)
    print(f"sweep: {(job.metadata or {}).get(SWEEP_NAME_KEY, '-')}\nstate: {job.status}")
    if job.status.is_terminal():
        print(f"exit code: {job_client.exit_code(job)}")
    if job.message:
        print(f"message: {job.message}")
    return int(job.status in ("FAILED", "STOPPED"))


@report_connection_errors
def stop(arguments: Sequence[str]) -> int:
    """Runs `masksweep stop ID`: asks a sweep to shut down, and waits until it has ended.

    Args:
        arguments: The command's arguments, without the word `stop`.

    Returns:
        The exit code: 1 if the sweep has not ended in time.
    """
    parser = _parser("stop")
    parser.add_argument("id")
    options = parser.parse_args(arguments)
    client = job_client.connect(options.address)
    job = job_client.info(client, options.id)
    if not job.status.is_terminal():
        client.stop_job(options.id)
        deadline = time.monotonic() + 2 * STOP_SECONDS
        while not (job := job_client.info(client, options.id)).status.is_terminal():
            if time.monotonic() > deadline:
                print(f"masksweep: {options.id} has not ended yet", file=sys.stderr)
                return 1
            time.sleep(0.2)
    print(f"{options.id} {job.status}")
    return 0


def _run_command(arguments: Sequence[str]) -> str:
    """Returns the shell command of a job: `masksweep run` with the plugins that were sent."""
    run = shlex.join(["python", "-P", "-m", "masksweep.sweeps.cli", "run"])
    names = [shlex.quote(plugin.name) for plugin in plugins.loaded()]
    flags = [f'{FLAG} "$PLUGINS"/{name}' for name in names]
    find = f'PLUGINS="$({shlex.join(["python", "-P", "-c", PRINT_PLUGINS_FOLDER])})" && '
    return (find if flags else "") + " ".join(["exec", run, *flags, shlex.join(arguments)])


def _parser(command: str, epilog: str | None = None, description: str | None = None) -> Parser:
    prog = f"masksweep {command}"
    parser = Parser(prog=prog, allow_abbrev=False, epilog=epilog, description=description)
    default = f"RAY_API_SERVER_ADDRESS, RAY_ADDRESS, or {job_client.DEFAULT_ADDRESS}"
    help_text = f"the cluster's dashboard; default: {default}"
    parser.add_argument("--address", metavar="URL", help=help_text)
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
        started = f"{datetime.fromtimestamp((job.start_time or 0) / 1000):%m-%d %H:%M}"
        name = job.metadata[SWEEP_NAME_KEY]
        rows.append((job.submission_id, str(job.status), code, started, name))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    console = escape.console()
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        if console.is_terminal:
            console.print(Text(line.rstrip()), no_wrap=True, overflow="ellipsis")
        else:
            print(line.rstrip())
