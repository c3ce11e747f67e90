"""Locks between the processes of one machine; they end with the process that holds them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from masksweep.sweeps.common.seeding import short_digest

if TYPE_CHECKING:
    from filelock import BaseFileLock


def lock(what: str) -> BaseFileLock:
    """A lock on whatever the text names; its file is in the system's temporary folder."""
    from filelock import FileLock

    name = f"masksweep-{os.getuid()}-{short_digest(what)}.lock"
    return FileLock(Path(tempfile.gettempdir()) / name)
