"""Prepares a sweep to be sent to a cluster: checks it, and refuses secrets and relative paths."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.common.redact import holds_secret, redact
from masksweep.sweeps.components.named_files import named_files
from masksweep.sweeps.composing.command_line import RUN_FLAGS, compose_plan
from masksweep.sweeps.config.plan import sweep_name

ALLOWED_FLAGS = ("-m", "--multirun", *RUN_FLAGS)


@dataclass(frozen=True)
class Submission:
    """A checked sweep, as `masksweep run` gets it on the cluster."""

    name: str
    """The sweep's name."""
    arguments: list[str]
    """Arguments of `masksweep run`."""
    store: str | None = None
    """The store's URI if it comes from `MLFLOW_TRACKING_URI` here, with secrets removed.

    The user is told, because the same address may mean another store on the cluster."""


def prepare(run_arguments: Sequence[str]) -> Submission:
    """Checks the arguments of `masksweep submit`, and returns the sweep to send.

    Args:
        run_arguments: Overrides and flags, as for `masksweep run`.

    Raises:
        Invalid: `run` would refuse the sweep. Or it cannot be sent: it has a relative path (of
            masks, held values, a model, data or a store), or a password. Everybody who sees the
            cluster's dashboard sees a job's arguments.
    """
    for argument in run_arguments:
        key, _, value = argument.partition("=")
        if argument.startswith("-") and argument not in ALLOWED_FLAGS:
            raise Invalid(key, value, f"not for submit, only overrides, {', '.join(ALLOWED_FLAGS)}")
        _require_public(key.lstrip("+~"), value)
    trials = [p.trial for p in compose_plan([a for a in run_arguments if a not in RUN_FLAGS])]
    for trial in trials:
        for key, path in named_files(trial.resolved()):
            _require_absolute(key, path)
    first = trials[0]
    if first.launch.address is not None:
        allowed = "left to submit; --address names the cluster"
        raise Invalid("launch.address", first.launch.address, allowed)
    arguments, store = [*run_arguments, "launch.address=auto"], None
    if first.tracking.uri:
        _require_absolute("tracking.uri", first.tracking.uri)
    elif uri := os.environ.get("MLFLOW_TRACKING_URI"):
        _require_public("MLFLOW_TRACKING_URI", uri)
        _require_absolute("MLFLOW_TRACKING_URI", uri)
        quoted = uri.replace("'", r"\'")
        arguments.append(f"tracking.uri='{quoted}'")
        store = redact(uri)
    return Submission(sweep_name(first, run_arguments), arguments, store)


def _require_public(key: str, value: str) -> None:
    if holds_secret(value):
        allowed = (
            "no password: everybody sees a job's arguments; "
            "set it in the environment of the cluster's head"
        )
        raise Invalid(key, redact(value), allowed)


def _require_absolute(key: str, uri: str) -> None:
    path = uri.removeprefix("sqlite:///")
    if "://" not in path and path != "databricks" and not PurePosixPath(path).is_absolute():
        raise Invalid(key, uri, "must be absolute: a relative path means nothing on the cluster")
