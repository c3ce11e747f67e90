"""The standard streams of a command: whole at its start, and quiet when nobody reads stderr."""

from __future__ import annotations

import io
import os
import sys

from masksweep.strategies.base import Invalid


def prepare() -> None:
    """Make the standard streams safe to write to.

    A closed one would give its number to the next file that is opened, which what is printed would
    then be written into. Characters that a stream's encoding lacks, as under `LANG=C`, are shown by
    their number.

    Raises:
        Invalid: Standard output is closed.
    """
    closed = [number for number in range(3) if not _is_open(number)]
    for _ in closed:
        os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if 2 in closed:
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), write_through=True)
    elif sys.stderr is sys.__stderr__ and sys.stderr is not None:
        sys.stderr = _Quiet(
            io.FileIO(2, "w", closefd=False),
            encoding=sys.stderr.encoding,
            errors="backslashreplace",
            write_through=True,
        )
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if 1 in closed:
        raise Invalid("stdout", "closed", "must be open; /dev/null if nobody is to read it")


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


class _Quiet(io.TextIOWrapper):
    """Standard error that a sweep may write to after its reader has gone, as in `2>&1 | head`."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            discard(2)
            return len(text)


def discard(number: int) -> None:
    """Have what is written to a standard stream go nowhere from now on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
