"""Keeps the current folder off the import path of this process and of its child processes.

A file in the current folder may come from somebody else, or may have the name of a library by
chance. Python adds the folder to the path for `python -m` and `python -c`, and so for each process
that `multiprocessing` spawns. `PYTHONSAFEPATH` is Python's setting against this, and child
processes inherit it. Ray and uvicorn add the folder themselves: see `cluster` and `cli`.
"""

from __future__ import annotations

import os
import sys

ENVIRONMENT_VARIABLE = "PYTHONSAFEPATH"


def remove_current_folder() -> None:
    """Removes the current folder from the path, here and in all later child processes.

    Other entries of `PYTHONPATH` stay. The folder of this code stays too, even if it is the current
    folder, so that one can work on the code.
    """
    os.environ[ENVIRONMENT_VARIABLE] = "1"
    sys.path[:] = [entry for entry in sys.path if not _is_current(entry)]
    if python_path := os.environ.get("PYTHONPATH"):
        entries = [e for e in python_path.split(os.pathsep) if not _is_current(e)]
        os.environ["PYTHONPATH"] = os.pathsep.join(entries)


def is_current_folder_removed() -> bool:
    """Whether the current folder is kept off the path of child processes."""
    return bool(os.environ.get(ENVIRONMENT_VARIABLE))


def _is_current(entry: str) -> bool:
    """Whether an entry of the path is the current folder, and not the folder of this code."""
    try:
        folder = os.path.realpath(entry or os.curdir)
        module_folder = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120
        code_folder = os.path.dirname(os.path.dirname(module_folder))  # noqa: PTH120
        return folder == os.path.realpath(os.curdir) != code_folder
    except OSError:  # the current folder is deleted; a relative entry could mean a new one later
        return not os.path.isabs(entry)  # noqa: PTH117


remove_current_folder()  # at import, because all later imports must avoid the current folder too
