"""Makes the standard streams of a command safe to write to, even if they are closed."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from masksweep.strategies.errors import Invalid


def prepare() -> None:
    """Makes the standard streams safe to write to.

    If a stream is closed, the next opened file would get its number, and output would be written
    into that file. So a closed stream is opened on the null device. Characters that a stream's
    encoding lacks, as with `LANG=C`, are written as escape sequences.

    Raises:
        Invalid: Standard output is closed.
    """
    closed = [number for number in range(3) if not _is_open(number)]
    for _ in closed:
        os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
    if 2 in closed:
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), write_through=True)
    elif sys.stderr is sys.__stderr__ and sys.stderr is not None:
        sys.stderr = _PipeSafeStderr(
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


class _PipeSafeStderr(io.TextIOWrapper):
    """A stderr that can be written to after its reader has ended, as in `2>&1 | head`."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            redirect_to_null(2)
            return len(text)


@contextmanager
def only_python_on_stderr() -> Iterator[None]:
    """Drops what libraries write to stderr themselves, as TensorFlow does with any settings.

    What Python code prints goes to stderr, also if it prints to stdout.
    """
    with os.fdopen(os.dup(2), "w", errors="backslashreplace") as stderr:
        is_own = sys.stderr is not None and not isinstance(sys.stderr, io.StringIO)
        target = stderr if is_own else sys.stderr
        with redirect_stdout(target), redirect_stderr(target):
            redirect_to_null(2)
            try:
                yield
            finally:
                stderr.flush()
                os.dup2(stderr.fileno(), 2)


def redirect_to_null(number: int) -> None:
    """Redirects a standard stream, given by its number, to the null device."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
