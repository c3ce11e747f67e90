"""Finds which trials of a sweep are done: in the store, and in records that are not yet sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from masksweep.sweeps.common.provenance import code_version
from masksweep.sweeps.common.redact import redact
from masksweep.sweeps.common.spinner import show_status
from masksweep.sweeps.config.plan import PlannedTrial
from masksweep.sweeps.config.sections import Tracking
from masksweep.sweeps.results import StoredResult, TrialResult
from masksweep.sweeps.tracking.recorder import Recorder
from masksweep.sweeps.tracking.sender import Sender
from masksweep.sweeps.tracking.spool import Spool, SpoolAddress
from masksweep.sweeps.tracking.store import (
    StoreRefused,
    StoreUnavailable,
    may_have_content,
    store_uri,
)
from masksweep.sweeps.tracking.writer import Tracker


def address(tracking: Tracking, name: str) -> SpoolAddress:
    """Returns the address of a sweep's spool."""
    return SpoolAddress(redact(store_uri(tracking.uri)), tracking.experiment, name)


def find_done(planned: Sequence[PlannedTrial], name: str) -> tuple[list[PlannedTrial], str]:
    """Fills in which trials of a plan are done, without writing anything.

    Args:
        planned: The plan of the sweep.
        name: Name of the sweep.

    Returns:
        The plan, and why the store could not be read; this is empty if it could.

    Raises:
        Invalid: The store or the spool cannot be opened.
    """
    tracking, waiting = planned[0].trial.tracking, dict[str, StoredResult]()
    spool_address = address(tracking, name)
    if spool_address.path.exists():
        waiting = _parse_results(Spool.read_finished(spool_address))
    try:
        done = waiting
        if may_have_content(store_uri(tracking.uri)):
            done = Tracker(tracking, name).finished() | waiting
    except (StoreUnavailable, StoreRefused) as error:
        return _with_results(planned, waiting), str(error)
    return _with_results(planned, done), ""


@contextmanager
def open_sweep(
    planned: Sequence[PlannedTrial], name: str, rerun: bool
) -> Iterator[tuple[list[PlannedTrial], Recorder, str]]:
    """Opens a sweep for this process alone; a context manager.

    First sends what an earlier process of the same sweep left in the spool.

    Args:
        planned: The plan of the sweep.
        name: Name of the sweep.
        rerun: Whether trials that are done run again.

    Yields:
        The plan with the trials that are done, the sweep's recorder, and why the store cannot be
        reached; this is empty if it can.

    Raises:
        Invalid: Another process runs the sweep, or the store cannot be opened.
    """
    tracking, tracker, away = planned[0].trial.tracking, None, ""
    with Spool.open_exclusively(address(tracking, name)) as spool:
        with show_status("Opening the store"):
            done = _parse_results(spool.finished())
            try:
                if may_have_content(store_uri(tracking.uri)):
                    tracker = Tracker(tracking, name)
                sender = Sender(spool, tracking, name, tracker)
                if tracker is not None:
                    sender.send_left()
                    done = tracker.finished() | _parse_results(spool.finished())
            except (StoreUnavailable, StoreRefused) as error:
                away = str(error)
                sender = Sender(spool, tracking, name)
        plan = list(planned) if rerun else _with_results(planned, done)
        yield plan, Recorder(spool, sender), away


def _with_results(
    planned: Sequence[PlannedTrial], done: Mapping[str, StoredResult]
) -> list[PlannedTrial]:
    return [replace(p, previous_result=done.get(p.trial.id)) for p in planned]


def _parse_results(bodies: Mapping[str, Mapping[str, Any]]) -> dict[str, StoredResult]:
    """Returns the results in the spool's records, by trial id."""
    results = {}
    for key, body in bodies.items():
        tags = body["tags"]
        metrics = {k: v for part in body["metrics"] for k, v in part["values"].items()}
        result = TrialResult(
            tags["trial.status"], tags.get("trial.reason", ""), metrics=metrics, tags=tags
        )
        results[key] = StoredResult(result, body["code"])
    return results


def other_code_warning(planned: Sequence[PlannedTrial]) -> str:
    """Returns a warning if other code than this ran trials that are done; else an empty text."""
    versions = [p.previous_result.code for p in planned if p.previous_result]
    others = [version for version in versions if version != code_version()]
    if not others:
        return ""
    return (
        f"{len(others)} of them ran with another version of the code "
        f"({others[0]}); --rerun repeats them"
    )
