"""A sweep as it travels to a cluster: checked here, and without what is secret or means nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from masksweep.strategies.base import Invalid
from masksweep.sweeps.common.redact import holds_secret, shown
from masksweep.sweeps.composing.command_line import RUN_FLAGS, planned
from masksweep.sweeps.config.plan import sweep_name

FLAGS = ("-m", "--multirun", *RUN_FLAGS)


@dataclass(frozen=True)
class Parcel:
    """What `masksweep run` is given on the cluster."""

    name: str
    """The sweep's."""
    arguments: list[str]
    store: str | None = None
    """Of this environment, where it goes along: it may be an address that means another there."""


def packed(asked: Sequence[str]) -> Parcel:
    """The sweep that the arguments ask for. Raises `Invalid` for what `run` would refuse.

    And for what cannot travel: masks, held values and stores by a relative path, and passwords,
    since everybody who sees the cluster's dashboard sees a job's arguments.
    """
    for argument in asked:
        key, _, value = argument.partition("=")
        if argument.startswith("-") and argument not in FLAGS:
            raise Invalid(key, value, f"not for submit, only overrides, {', '.join(FLAGS)}")
        _require_public(key.lstrip("+~"), value)
    trials = [p.trial for p in planned([a for a in asked if a not in RUN_FLAGS])]
    for trial in trials:
        for group in ("pattern", "held"):
            if path := getattr(getattr(trial, group), "path", None):
                _require_absolute(f"{group}.path", path)
    first = trials[0]
    if first.launch.address is not None:
        allowed = "left to submit; --address names the cluster"
        raise Invalid("launch.address", first.launch.address, allowed)
    arguments, store = [*asked, "launch.address=auto"], None
    if first.tracking.uri:
        _require_absolute("tracking.uri", first.tracking.uri)
    elif uri := os.environ.get("MLFLOW_TRACKING_URI"):
        _require_public("MLFLOW_TRACKING_URI", uri)
        _require_absolute("MLFLOW_TRACKING_URI", uri)
        quoted = uri.replace("'", r"\'")
        arguments.append(f"tracking.uri='{quoted}'")
        store = shown(uri)
    return Parcel(sweep_name(first, asked), arguments, store)


def _require_public(key: str, value: str) -> None:
    if holds_secret(value):
        allowed = "no password: all see a job's; set it in the environment of the cluster's head"
        raise Invalid(key, shown(value), allowed)


def _require_absolute(key: str, where: str) -> None:
    path = where.removeprefix("sqlite:///")
    if "://" not in path and path != "databricks" and not PurePosixPath(path).is_absolute():
        raise Invalid(key, where, "must be absolute: a relative path means nothing on the cluster")
