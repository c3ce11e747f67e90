"""Whether a store can be written: tried, and taken back."""

from __future__ import annotations

from masksweep.strategies.base import Invalid
from masksweep.sweeps.common.redact import shown
from masksweep.sweeps.config.sections import Tracking
from masksweep.sweeps.tracking import writable
from masksweep.sweeps.tracking.store import Away, exists, store_uri
from masksweep.sweeps.tracking.writer import Tracker


def probe(tracking: Tracking) -> str:
    """Write to the store and take it back; what is there, in a line without secrets.

    Raises `Invalid` if it cannot be opened or written, `Away` if it is not there.
    """
    uri = store_uri(tracking.uri)
    public = shown(uri)
    try:
        writable.require_store(uri)
        if not exists(uri):
            return f"{public} will be made"
        Tracker(tracking, "doctor").touch()
    except (Away, Invalid):
        raise
    except Exception as error:  # each kind of store has errors of its own
        text = getattr(error, "strerror", None) or str(error)
        said = shown(text).strip().splitlines() or [repr(error)]
        raise Invalid("tracking.uri", public, f"cannot be written: {said[0]}") from error
    return f"{public} can be written"
