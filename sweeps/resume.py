"""What of a sweep is done already: in the store, and in what still waits to be sent there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sweeps.entities import Found
from sweeps.environment import code_version
from sweeps.plan import Planned
from sweeps.progress import doing
from sweeps.recorder import Recorder
from sweeps.sections import Tracking
from sweeps.spool import Address, Spool
from sweeps.store import Away, Refused, exists, store_uri
from sweeps.tracker import Tracker
from sweeps.trial import TrialResult
from sweeps.uri import shown


def address(tracking: Tracking, name: str) -> Address:
    """Where the sweep's records wait."""
    return Address(shown(store_uri(tracking.uri)), tracking.experiment, name)


def look(planned: Sequence[Planned], name: str) -> tuple[list[Planned], str]:
    """The plan with what is done; (plan, why that could not be seen). Writes nothing."""
    tracking, waiting = planned[0].trial.tracking, dict[str, Found]()
    where = address(tracking, name)
    if where.path.exists():
        waiting = _waiting(Spool.peek(where))
    try:
        done = waiting
        if exists(store_uri(tracking.uri)):
            done = Tracker(tracking, name).finished() | waiting
    except (Away, Refused) as error:
        return _with(planned, waiting), str(error)
    return _with(planned, done), ""


@contextmanager
def opened(
    planned: Sequence[Planned], name: str, rerun: bool
) -> Iterator[tuple[list[Planned], Recorder, str]]:
    """Take hold of the sweep: (the plan with what is done, its recorder, why it cannot be seen).

    What an earlier process of the same sweep left in the spool is sent first. Raises `Invalid` if
    another process runs the sweep, or the store cannot be opened.
    """
    tracking, tracker, away = planned[0].trial.tracking, None, ""
    with Spool.held(address(tracking, name)) as spool:
        with doing("Opening the store"):
            done = _waiting(spool.finished())
            try:
                if exists(store_uri(tracking.uri)):
                    tracker = Tracker(tracking, name)
                recorder = Recorder(spool, tracking, name, tracker)
                if tracker is not None:
                    recorder.send_left()
                    done = tracker.finished() | _waiting(spool.finished())
            except (Away, Refused) as error:
                away = str(error)
                recorder = Recorder(spool, tracking, name, None)
        yield list(planned) if rerun else _with(planned, done), recorder, away


def _with(planned: Sequence[Planned], done: Mapping[str, Found]) -> list[Planned]:
    return [replace(p, found=done.get(p.trial.id)) for p in planned]


def _waiting(bodies: Mapping[str, Mapping[str, Any]]) -> dict[str, Found]:
    """Results as the spool's records hold them."""
    found = {}
    for key, body in bodies.items():
        tags = body["tags"]
        metrics = {k: v for part in body["metrics"] for k, v in part["values"].items()}
        result = TrialResult(
            tags["trial.status"], tags.get("trial.reason", ""), metrics=metrics, tags=tags
        )
        found[key] = Found(result, body["code"])
    return found


def other_code(planned: Sequence[Planned]) -> str:
    """A warning if other code than this ran some of what is done; empty if none did."""
    others = [p for p in planned if p.found and p.found.code != code_version()]
    if not others:
        return ""
    return (
        f"{len(others)} of them ran with another version of the code "
        f"({others[0].found.code if others[0].found else ''}); --rerun repeats them"
    )
