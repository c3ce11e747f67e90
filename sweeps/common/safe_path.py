"""Keeps the current folder off the import path, of this process and of all that it starts.

What lies in the current folder may be a stranger's, or a user's own under a name that some library
has too. Python puts that folder on the path of `python -m` and `python -c`, and so of each process
that `multiprocessing` spawns; `PYTHONSAFEPATH` is Python's own setting against it, which processes
inherit. Ray and uvicorn add the folder by themselves: see `cluster` and `cli`.
"""

from __future__ import annotations

import os
import sys

SETTING = "PYTHONSAFEPATH"


def keep() -> None:
    """Take the current folder off the path, and keep it off in the processes to come.

    Other entries of `PYTHONPATH` stay. The folder that this code itself lies in stays too, where
    somebody works on it.
    """
    os.environ[SETTING] = "1"
    sys.path[:] = [entry for entry in sys.path if not _is_current(entry)]
    if before := os.environ.get("PYTHONPATH"):
        entries = [e for e in before.split(os.pathsep) if not _is_current(e)]
        os.environ["PYTHONPATH"] = os.pathsep.join(entries)


def kept() -> bool:
    """Whether this process wants the current folder off the path of those that it starts."""
    return bool(os.environ.get(SETTING))


def _is_current(entry: str) -> bool:
    try:
        folder = os.path.realpath(entry or os.curdir)
        here = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120
        ours = os.path.dirname(os.path.dirname(here))  # noqa: PTH120
        return folder == os.path.realpath(os.curdir) != ours
    except OSError:  # the current folder is gone; an empty entry would come to life with a new one
        return not os.path.isabs(entry)  # noqa: PTH117


keep()  # on import: what the command imports after it must not come from there either
