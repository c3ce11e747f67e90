"""A sweep's driver in a child process, which records what the benchmark process reports to it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from masksweep.sweeps.common.child import Child, ChildDied
from masksweep.sweeps.config.sections import Tracking
from masksweep.sweeps.tracking.recorder import Recorder
from masksweep.sweeps.tracking.sender import Sender
from masksweep.sweeps.tracking.spool import Spool


@contextmanager
def recorder(folder: Path) -> Iterator[Recorder]:
    """Yields the recorder of a new sweep, in the SQLite store of the folder."""
    name, tracking = uuid.uuid4().hex, Tracking(uri=f"sqlite:///{folder}/mlflow.db")
    with closing(Spool(folder / f"{name}.db")) as spool:
        started_recorder = Recorder(spool, Sender(spool, tracking, name))
        started_recorder.start_sweep("", [])
        started_recorder.sender.send_left()
        yield started_recorder


class Driver:
    """A child process that records one sweep after another in the SQLite store of a folder."""

    def __init__(self, folder: Path) -> None:
        self._child = Child(_set_up, folder)
        self._calls: list[Future[None]] = []

    def tell(self, method: str, *arguments: Any) -> None:
        """Calls a method of the recorder in the child process, without waiting for its result.

        Args:
            method: Name of a `Recorder` method.
            *arguments: Its arguments; they must be picklable.
        """
        self._calls.append(self._child.submit(_call, method, arguments))

    def end_sweep(self) -> None:
        """Waits until the store has every record of the sweep.

        Raises:
            RuntimeError: Records were not sent, or the process has died. The message says why.
        """
        calls, self._calls = self._calls, []
        try:
            failure = self._child.submit(_finish).result()
            for call in calls:
                call.result()
        except ChildDied:
            failure = "the driver has died"
        if failure:
            raise RuntimeError(failure)

    def close(self) -> None:
        self._child.end()


# -- in the child process --------------------------------------------------------------------

_folder: list[Path] = []
_sweep = ExitStack()
"""Its callbacks close the sweep that is being recorded."""
_recorder: list[Recorder] = []
"""The recorder of the current sweep; empty if no sweep is being recorded."""


def _set_up(folder: Path) -> None:
    _folder.append(folder)


def _call(method: str, arguments: tuple[Any, ...]) -> None:
    if not _recorder:
        _recorder.append(_sweep.enter_context(recorder(_folder[0])))
        _recorder[0].sender.start()
    getattr(_recorder[0], method)(*arguments)


def _finish() -> str:
    """Closes the sweep; returns why records were not sent, or an empty string."""
    if not _recorder:
        return ""
    sender = _recorder.pop().sender
    with _sweep.pop_all():
        sent = sender.finish(patience_s=0)
        return "" if sent else sender.trouble or "; ".join(sender.refused) or "not sent"
