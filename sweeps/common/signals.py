"""Handles Ctrl-C and SIGTERM: the first ends the process in order, the second at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import psutil


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM was received. `exit_code` is 128 plus the number of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


class SignalHandler:
    """A context manager that catches both signals. The second signal ends the process at once.

    Args:
        deferred: Whether the first signal raises `Stopped` only in the next call of `check`, so
            that no work is interrupted half-way. If False, it raises `Stopped` immediately.
    """

    def __init__(self, deferred: bool = False) -> None:
        self.deferred = deferred
        self._number: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread may handle signals
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raises `Stopped` if a signal was received."""
        if self._number is not None:
            raise Stopped(self._number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._number is not None:
            if sys.stderr.isatty():
                os.write(2, b"\x1b[?25h\n")  # shows the cursor, which the live display hides
            end_children()
            os._exit(128 + number)
        self._number = number
        if not self.deferred:
            self.check()


def end_children(patience_s: float = 0.0) -> None:
    """Ends all child processes of this process, and their child processes.

    Without this, Ray's agents would run on for a minute after this process has ended.

    Args:
        patience_s: Seconds that the processes have to end in order. Then the others are killed.
    """
    import psutil

    # listed first, because the children of an ended process can no longer be found
    processes = psutil.Process().children(recursive=True)
    if patience_s:
        for child in processes:
            with contextlib.suppress(psutil.Error):
                child.terminate()
        _, processes = psutil.wait_procs(processes, patience_s)
    kill(processes)


def kill(processes: Iterable[psutil.Process]) -> None:
    """Kills those of the processes that still run."""
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


@contextlib.contextmanager
def ignore_interrupt_in_children() -> Iterator[None]:
    """While entered, processes that are started here ignore the Ctrl-C of a terminal.

    A terminal sends Ctrl-C to all processes of a command. The process that starts the others must
    end them.
    """
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)
