"""A client of Ray's jobs: sends one to a cluster's head, and says what became of it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from masksweep.strategies.base import Invalid
from masksweep.sweeps.common.redact import shown
from masksweep.sweeps.launch import cluster

DEFAULT = "http://127.0.0.1:8265"
AGENT_SECONDS = 60.0
"""How long a head may take until its agent, which starts jobs, is there."""
NO_AGENT = "No available agent"
TERMINATED = 143
SILENCE_SECONDS = 60.0
"""After this long without a new line, the log is asked for anew: the connection may be dead."""
PATIENCE_SECONDS = 60.0
"""How long a cluster may be out of reach while a job is followed."""


def connect(address: str | None) -> Any:
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


def send(client: Any, **job: Any) -> str:
    """The id of a job that was sent. A head that has just started has no agent for jobs yet."""
    end = time.monotonic() + AGENT_SECONDS
    while True:
        try:
            return str(client.submit_job(**job))
        except RuntimeError as error:
            if NO_AGENT not in str(error) or time.monotonic() > end:
                raise
            time.sleep(1)


def info(client: Any, job: str) -> Any:
    try:
        return client.get_job_info(job)
    except RuntimeError as error:
        if "404" not in str(error):
            raise
        raise Invalid("ID", job, "no such job; masksweep status lists them") from error


def follow(client: Any, job: str, show: Callable[[str], object]) -> Any:
    """Show the log of a job until the job ends, each line once, over lost connections too.

    Args:
        client: From `connect`.
        job: The job's id.
        show: Called with each new part of the log.

    Returns:
        What Ray knows about the job that has ended, as `info` returns it.

    Raises:
        TimeoutError: The cluster was out of reach for `PATIENCE_SECONDS`.
    """
    import aiohttp

    shown, answered = 0, time.monotonic()

    async def tail() -> None:
        """Follow one connection, which sends the log from its beginning."""
        nonlocal shown, answered
        position, parts = 0, client.tail_job_logs(job)
        with suppress(StopAsyncIteration, TimeoutError):
            while True:
                part = await asyncio.wait_for(anext(parts), SILENCE_SECONDS)
                answered = time.monotonic()
                show(part[max(0, shown - position) :])
                position += len(part)
                shown = max(shown, position)

    while True:
        try:
            state = client.get_job_info(job)
            answered = time.monotonic()
            asyncio.run(tail())
            if state.status.is_terminal():  # so the log was whole when it was read
                return state
        except (OSError, RuntimeError, aiohttp.ClientError) as error:
            if time.monotonic() - answered > PATIENCE_SECONDS:
                raise TimeoutError(f"the cluster does not answer: {error}") from error
        time.sleep(1)


def exit_code(job: Any) -> int:
    """Of a job that ended. Ray keeps none of one that was stopped, or never began."""
    code: int | None = job.driver_exit_code
    if code is not None:
        return code if code >= 0 else 128 - code
    return {"SUCCEEDED": 0, "STOPPED": TERMINATED}.get(job.status, 1)
