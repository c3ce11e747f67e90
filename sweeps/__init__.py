"""Running, recording and showing sweeps over strategies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from masksweep.sweeps._version import __version__ as __version__

if TYPE_CHECKING:
    from masksweep.sweeps.tracking.reader import Loaded


def load(sweep: str | Sequence[str] | None = None, uri: str | None = None) -> Loaded:
    """As `reader.load`: the trials and the curves of sweeps, by name or run id, as pandas frames.

    trials, curves = sweeps.load("quickstart")
    """
    from masksweep.sweeps.tracking import reader

    return reader.load(sweep, uri)
