"""Runs sweeps of trials, records them, and reports their results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from masksweep.sweeps._version import __version__ as __version__

if TYPE_CHECKING:
    from masksweep.sweeps.tracking.frames import Loaded


def load(sweep: str | Sequence[str] | None = None, uri: str | None = None) -> Loaded:
    """Loads the trials and the metric curves of sweeps as pandas data frames.

    Args:
        sweep: Name or MLflow parent run id of a sweep, or several of them; by default the latest
            sweep.
        uri: The MLflow store; by default the one that the environment names.

    Returns:
        `trials` with a row for each trial, and `curves` with a row for each point of a curve; see
        `frames.load`.

    Raises:
        Invalid: The store cannot be opened, or has no such sweep.
        StoreUnavailable: The store cannot be reached.

    Example:
        trials, curves = sweeps.load("quickstart")
    """
    from masksweep.sweeps.tracking import frames

    return frames.load(sweep, uri)
