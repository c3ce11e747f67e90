"""Measures and limits the memory of a process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any


def variable_bytes(variables: list[Any]) -> int:
    """Returns the size of variables in bytes, from their shapes and dtypes."""
    import tensorflow as tf

    return sum(prod(v.shape) * tf.as_dtype(v.dtype).size for v in variables)


class PeakMemory:
    """Measures how far the resident memory of the process rises, from its creation on.

    It needs Linux: without `/proc/self/clear_refs` nothing is measured.
    """

    def __init__(self) -> None:
        try:
            Path("/proc/self/clear_refs").write_text("5")
            self._start: int | None = _status("VmRSS")
        except OSError:
            self._start = None

    def bytes(self) -> int | None:
        """Returns the largest rise so far in bytes, or None if it cannot be measured."""
        return None if self._start is None else max(0, _status("VmHWM") - self._start)


@contextmanager
def limit(size: int | None, on_exceeded: Callable[[str], None]) -> Iterator[None]:
    """Calls a function if the process grows too large while the context is entered.

    The resident memory of the whole process counts. Ray uses its `memory` setting only to place
    workers, and does not enforce it. Nothing is watched on systems without `/proc`.

    Args:
        size: Limit in bytes; None for no limit.
        on_exceeded: Called with the reason, from another thread.
    """
    end = threading.Event()

    def watch() -> None:
        while size and not end.wait(0.25):
            if (now := _status("VmRSS")) > size:
                usage = f"{now / 2**30:.2f} GiB of the {size / 2**30:.2f} that it may take"
                on_exceeded(f"out of memory: {usage} (resources.memory)")
                return

    if size and Path("/proc/self/status").exists():
        threading.Thread(target=watch, name="memory", daemon=True).start()
    try:
        yield
    finally:
        end.set()


def _status(key: str) -> int:
    """Returns an entry of `/proc/self/status` in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
