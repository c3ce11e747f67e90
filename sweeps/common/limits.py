"""Limits and paths that several packages share."""

from __future__ import annotations

from pathlib import Path

MAX_SENT_ARTIFACT_BYTES = 50 * 2**20
"""Size in bytes above which an artifact is not sent with a trial's result."""

MAX_COPIED_DATA_BYTES = 2**20
"""Size in bytes above which a file of data is not copied beside the config of each trial."""

INTERRUPTED_SEND_SECONDS = 3.0
"""Seconds that the end of a sweep waits for the store after Ctrl-C."""

STATE_FOLDER = Path(".masksweep")
"""Folder for the spool, logs and checkpoints, relative to where a sweep is started."""
