"""Shows on stderr what a command is waiting for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from masksweep.sweeps.common import escape


@contextmanager
def show_status(text: str) -> Iterator[None]:
    """Shows a text while the context is entered, with a spinner on a terminal."""
    console = escape.console(stderr=True)
    if is_terminal(console):
        with console.status(text):
            yield
    else:
        console.out(f"{text} ...", highlight=False)
        yield


def is_terminal(console: Console) -> bool:
    # with FORCE_COLOR rich takes a file for a terminal, but a file has no cursor to move
    return console.is_interactive and console.file.isatty()
