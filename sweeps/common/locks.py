"""Locks between the processes of one machine. A lock is released when its process ends."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from masksweep.sweeps.common.seeding import short_digest

if TYPE_CHECKING:
    from filelock import BaseFileLock


def lock(what: str) -> BaseFileLock:
    """Returns a lock for the thing that the text names. Its file is in the temporary folder."""
    from filelock import FileLock

    name = f"masksweep-{os.getuid()}-{short_digest(what)}.lock"
    return FileLock(Path(tempfile.gettempdir()) / name)
