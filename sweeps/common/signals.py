"""Ctrl-C and SIGTERM: end in order at the first, leave at once at the second."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from multiprocessing import resource_tracker
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import psutil


class Stopped(KeyboardInterrupt):
    """The person, or the system, wants the process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


class Stop:
    """Catches both signals while it is entered.

    Where `gentle` is False the first signal raises `Stopped` on the spot; where it is True, only
    at the next `check`, so that nothing is cut off half-way.
    """

    def __init__(self, gentle: bool = False) -> None:
        self.gentle = gentle
        self._number: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread may handle signals
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._caught)
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raises `Stopped` if there was a signal."""
        if self._number is not None:
            raise Stopped(self._number)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self._number is not None:
            if sys.stderr.isatty():
                os.write(2, b"\x1b[?25h\n")  # the live display had hidden the cursor
            end_children()
            os._exit(128 + number)
        self._number = number
        if not self.gentle:
            self.check()


def end_children(patience_s: float = 0.0) -> None:
    """End all processes that this one started, and those that they started.

    Ray's agents would outlive it for a minute.

    Args:
        patience_s: Seconds that they have to end in order; what is left then is killed.
    """
    import psutil

    # listed first: the child of a process that has ended belongs to no one here
    family = psutil.Process().children(recursive=True)
    if patience_s:
        for child in family:
            with contextlib.suppress(psutil.Error):
                child.terminate()
        _, family = psutil.wait_procs(family, patience_s)
    kill(family)


def kill(processes: Iterable[psutil.Process]) -> None:
    """End those that still run, at once."""
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


@contextlib.contextmanager
def kept_from_children() -> Iterator[None]:
    """Processes that are started meanwhile get no Ctrl-C, which a terminal sends to all of them.

    The process that starts them is to end them.
    """
    resource_tracker.ensure_running()  # which would let the signal through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
