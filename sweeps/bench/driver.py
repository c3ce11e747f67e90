"""A sweep's driver beside the process that runs its trials: it records what that one tells it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from masksweep.sweeps.common.child import Child, Lost
from masksweep.sweeps.config.sections import Tracking
from masksweep.sweeps.tracking.recorder import Recorder
from masksweep.sweeps.tracking.spool import Spool
from masksweep.sweeps.tracking.writer import Tracker


@contextmanager
def recorder(folder: Path) -> Iterator[Recorder]:
    """Of a sweep of its own, in the folder's SQLite store."""
    name, tracking = uuid.uuid4().hex, Tracking(uri=f"sqlite:///{folder}/mlflow.db")
    with closing(Spool(folder / f"{name}.db")) as spool:
        found = Recorder(spool, tracking, name, Tracker(tracking, name))
        found.start_sweep("", [])
        found.send_left()
        yield found


class Driver:
    """The process, which records one sweep after the other in the folder's store."""

    def __init__(self, folder: Path) -> None:
        self._child = Child(_set_up, folder)
        self._calls: list[Future[None]] = []

    def tell(self, method: str, *given: Any) -> None:
        """Have the recorder do this. Waits for nothing, as a worker does not."""
        self._calls.append(self._child.submit(_call, method, given))

    def end_sweep(self) -> None:
        """Wait until the store has all. Raises `RuntimeError` with the reason if it has not."""
        calls, self._calls = self._calls, []
        try:
            trouble = self._child.submit(_finish).result()
            for call in calls:
                call.result()
        except Lost:
            trouble = "the driver has died"
        if trouble:
            raise RuntimeError(trouble)

    def close(self) -> None:
        self._child.end()


# -- in the process --------------------------------------------------------------------------

_folder: list[Path] = []
_sweep = ExitStack()
"""Closes the sweep that is recorded now."""
_recorder: list[Recorder] = []
"""Its recorder, if there is a sweep."""


def _set_up(folder: Path) -> None:
    _folder.append(folder)


def _call(method: str, given: tuple[Any, ...]) -> None:
    if not _recorder:
        _recorder.append(_sweep.enter_context(recorder(_folder[0])))
        _recorder[0].start()
    getattr(_recorder[0], method)(*given)


def _finish() -> str:
    """What went wrong, if anything did."""
    if not _recorder:
        return ""
    made = _recorder.pop()
    with _sweep.pop_all():
        sent = made.finish(patience_s=0)
        return "" if sent else made.trouble or "; ".join(made.refused) or "not sent"
