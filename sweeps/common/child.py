"""A child process that runs functions one after the other."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from typing import Any, ParamSpec, Self, TypeVar

from masksweep.sweeps.common import signals

P = ParamSpec("P")
R = TypeVar("R")
ChildDied = BrokenProcessPool
"""Raised by a future when its process has died."""


class Child:
    """A process of `concurrent.futures` that starts at once and is certain to end.

    It ends with `end`, or when the parent process has ended. A Ctrl-C in the terminal does not
    reach it. Its output to stderr is dropped, because TensorFlow writes there with any settings.

    Args:
        setup: Called first in the child process.
        *arguments: The arguments of `setup`. A `multiprocessing` connection may be among them.
    """

    def __init__(self, setup: Callable[..., object], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        children_before = set(multiprocessing.active_children())
        self._pool = ProcessPoolExecutor(1, context, _set_up, (setup, arguments))
        resource_tracker.ensure_running()  # before, because its start unblocks the signal
        with signals.ignore_interrupt_in_children():
            self._ready = self._pool.submit(os.getpid)
        (self._process,) = set(multiprocessing.active_children()) - children_before

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def submit(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Runs a function in the child process.

        Returns:
            A future with the function's result or exception. It raises `ChildDied` if the process
            died.
        """
        try:
            return self._pool.submit(function, *args, **kwargs)
        except ChildDied as error:
            lost = Future[R]()
            lost.set_exception(error)
            return lost

    def end(self) -> None:
        """Kills the process, even while it runs a function."""
        self._process.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)


def _set_up(setup: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    setup(*arguments)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
