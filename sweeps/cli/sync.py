"""Send to the store what sweeps in this folder left on disk when it was away."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from masksweep.strategies.base import Invalid
from masksweep.sweeps.common.parser import Parser
from masksweep.sweeps.common.redact import shown
from masksweep.sweeps.common.spinner import doing
from masksweep.sweeps.config.sections import Tracking
from masksweep.sweeps.tracking.recorder import Recorder
from masksweep.sweeps.tracking.spool import Address, Spool
from masksweep.sweeps.tracking.store import Away, Refused, store_uri
from masksweep.sweeps.tracking.writer import Tracker


def sync(arguments: Sequence[str]) -> int:
    """Send every spool of this folder to its store; 0 if nothing is left, 1 otherwise.

    A store whose address holds a password has to be given again: no password is kept on disk.
    Where sweeps wrote to several stores, what waits for the given one alone is sent.
    """
    parser = Parser(prog="masksweep sync")
    parser.add_argument("--uri", help="as tracking.uri; default: the store the sweep wrote to")
    given = parser.parse_args(arguments)
    found = Spool.all()
    if not found:
        print("Nothing waits here.")
    if given.uri and len({address.store for address in found}) > 1:
        found = [address for address in found if address.store == shown(store_uri(given.uri))]
    return max((_send(address, given.uri) for address in found), default=0)


def _send(address: Address, given: str | None) -> int:
    mine = store_uri(given)
    # the address as it is kept may lack the password
    uri = mine if given or shown(mine) == address.store else address.store
    tracking = Tracking(uri=uri, experiment=address.experiment)
    try:
        with Spool.held(address) as spool:
            before = spool.waiting()
            recorder = Recorder(spool, tracking, address.sweep, None)
            with doing(f"Sending {before} records of {address.sweep!r}"):
                recorder.send_left()
                Tracker(tracking, address.sweep).kill_left_running()
            left, refused = spool.waiting(), spool.refused()
    except (Away, Refused, Invalid) as error:
        print(f"masksweep: {address.sweep!r}: {error}", file=sys.stderr)
        return 1
    print(f"{address.sweep!r}: {before - left} records sent, {left} left")
    for reason in refused:
        print(f"  refused: {reason}", file=sys.stderr)
    return int(left > 0)
