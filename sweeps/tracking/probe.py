"""Check whether a store can be written: writes a tag, and deletes it again."""

from __future__ import annotations

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.common.redact import redact
from masksweep.sweeps.config.sections import Tracking
from masksweep.sweeps.tracking import writable
from masksweep.sweeps.tracking.experiment import Experiment
from masksweep.sweeps.tracking.store import StoreUnavailable, may_have_content, store_uri


def probe(tracking: Tracking) -> str:
    """Writes to the store, and undoes it.

    Returns:
        The state of the store in one line, without secrets.

    Raises:
        Invalid: The store cannot be opened or written.
        StoreUnavailable: The store cannot be reached.
    """
    uri = store_uri(tracking.uri)
    public = redact(uri)
    try:
        writable.require_store(uri)
        if not may_have_content(uri):
            return f"{public} will be made"
        Experiment(tracking).check_writable()
    except (StoreUnavailable, Invalid):
        raise
    except Exception as error:  # each kind of store raises its own errors
        text = getattr(error, "strerror", None) or str(error)
        lines = redact(text).strip().splitlines() or [repr(error)]
        raise Invalid("tracking.uri", public, f"cannot be written: {lines[0]}") from error
    return f"{public} can be written"
