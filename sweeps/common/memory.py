"""Memory that a trial takes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any


def bytes_of(variables: list[Any]) -> int:
    """Size of variables of known shape and dtype."""
    import tensorflow as tf

    return sum(prod(v.shape) * tf.as_dtype(v.dtype).size for v in variables)


class Peak:
    """How far the process's resident memory rises from here on, where the system can tell."""

    def __init__(self) -> None:
        try:
            Path("/proc/self/clear_refs").write_text("5")
            self._start: int | None = _status("VmRSS")
        except OSError:
            self._start = None

    def bytes(self) -> int | None:
        """The largest rise so far."""
        return None if self._start is None else max(0, _status("VmHWM") - self._start)


@contextmanager
def limit(size: int | None, over: Callable[[str], None]) -> Iterator[None]:
    """Call `over(reason)`, from another thread, when the process grows larger than `size` bytes.

    Resident memory of the whole process counts, as with Ray's own `memory`, which Ray only uses
    to place workers. Nothing is watched where `size` is None or the system cannot tell.
    """
    end = threading.Event()

    def watch() -> None:
        while size and not end.wait(0.25):
            if (now := _status("VmRSS")) > size:
                shown = f"{now / 2**30:.2f} GiB of the {size / 2**30:.2f} that it may take"
                over(f"out of memory: {shown} (resources.memory)")
                return

    if size and Path("/proc/self/status").exists():
        threading.Thread(target=watch, name="memory", daemon=True).start()
    try:
        yield
    finally:
        end.set()


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
