"""A client of Ray's job server: submits a job to a cluster's head, and reads its state."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Any

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.common.redact import redact
from masksweep.sweeps.launch import cluster

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
AGENT_SECONDS = 60.0
"""Seconds to wait for the agent of a new head. The agent starts the jobs."""
NO_AGENT_MESSAGE = "No available agent"
TERMINATED_EXIT_CODE = 143
LOG_TIMEOUT_SECONDS = 60.0
"""Seconds without new output after which the log is requested again, on a new connection."""
PATIENCE_SECONDS = 60.0
"""Seconds that the cluster may be out of reach while a job is followed."""


def connect(address: str | None) -> Any:
    """Returns a client of the cluster's dashboard, which runs the job server.

    Args:
        address: URL of the dashboard, or an address as in `cluster`. None takes the address from
            `RAY_API_SERVER_ADDRESS` or `RAY_ADDRESS`, or else `DEFAULT_ADDRESS`.

    Raises:
        Invalid: No dashboard answers there, or it refuses this process. The key is `--address`.
    """
    import requests
    from ray.exceptions import AuthenticationError, RayError
    from ray.job_submission import JobSubmissionClient

    cluster.hide_warnings()
    variables = (os.environ.get(k) for k in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"))
    address = next(filter(None, (address, *variables)), DEFAULT_ADDRESS)
    # the client prefers this variable to its own argument
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    try:
        # checked first, because the client and Ray would retry for a long time
        if address.startswith(("http://", "https://")):
            requests.head(address, timeout=cluster.PROBE_SECONDS)
        else:
            cluster.check_address(address)
        return JobSubmissionClient(address)
    except requests.RequestException as error:
        raise Invalid("--address", redact(address), "no Ray dashboard answers there") from error
    except (OSError, RuntimeError, ValueError, RayError) as error:
        denied = isinstance(error, AuthenticationError | PermissionError)
        problem = "refuses" if denied else "no Ray dashboard there"
        reason = " ".join(str(error).split())[:300]
        raise Invalid("--address", redact(address), f"{problem}: {reason}") from error


def send(client: Any, **job: Any) -> str:
    """Submits a job and returns its id. Waits for the agent of a head that has just started."""
    end = time.monotonic() + AGENT_SECONDS
    while True:
        try:
            return str(client.submit_job(**job))
        except RuntimeError as error:
            if NO_AGENT_MESSAGE not in str(error) or time.monotonic() > end:
                raise
            time.sleep(1)


def info(client: Any, job: str) -> Any:
    """Returns Ray's details of a job.

    Raises:
        Invalid: There is no job of this id. The key is `ID`.
    """
    try:
        return client.get_job_info(job)
    except RuntimeError as error:
        if "404" not in str(error):
            raise
        raise Invalid("ID", job, "no such job; masksweep status lists them") from error


def follow(client: Any, job: str, show: Callable[[str], object]) -> Any:
    """Shows the log of a job until the job ends. After a lost connection it continues the log.

    Args:
        client: A client from `connect`.
        job: The job's id.
        show: Called with each new part of the log, once.

    Returns:
        Ray's details of the job, which has ended, as `info` returns them.

    Raises:
        TimeoutError: The cluster, or the log alone, was out of reach for `PATIENCE_SECONDS`.
    """
    import aiohttp

    shown, failing_since = 0, inf

    async def tail() -> None:
        """Reads the log from one connection, which sends the log from its beginning."""
        nonlocal shown, failing_since
        position, parts = 0, client.tail_job_logs(job)
        with suppress(StopAsyncIteration, TimeoutError):
            while True:
                part = await asyncio.wait_for(anext(parts), LOG_TIMEOUT_SECONDS)
                failing_since = inf
                show(part[max(0, shown - position) :])
                position += len(part)
                shown = max(shown, position)

    while True:
        try:
            state = client.get_job_info(job)
            asyncio.run(tail())
            failing_since = inf
            if state.status.is_terminal():  # ended before the log was read: complete
                return state
        except (OSError, RuntimeError, aiohttp.ClientError) as error:
            failing_since = min(failing_since, time.monotonic())
            if time.monotonic() - failing_since > PATIENCE_SECONDS:
                raise TimeoutError(f"the cluster does not answer: {error}") from error
        time.sleep(1)


def exit_code(job: Any) -> int:
    """Returns the exit code of a job that has ended.

    Ray stores none for a job that was stopped or that never began: then it follows from the status.
    """
    code: int | None = job.driver_exit_code
    if code is not None:
        return code if code >= 0 else 128 - code
    return {"SUCCEEDED": 0, "STOPPED": TERMINATED_EXIT_CODE}.get(job.status, 1)
