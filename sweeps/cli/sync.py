"""The command `masksweep sync`: sends results that wait on disk to their tracking store."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.common.parser import Parser
from masksweep.sweeps.common.redact import redact
from masksweep.sweeps.common.spinner import show_status
from masksweep.sweeps.config.sections import Tracking
from masksweep.sweeps.tracking.sender import Sender
from masksweep.sweeps.tracking.spool import Spool, SpoolAddress
from masksweep.sweeps.tracking.store import StoreRefused, StoreUnavailable, store_uri
from masksweep.sweeps.tracking.writer import Tracker


def sync(arguments: Sequence[str]) -> int:
    """Runs `masksweep sync`: sends every spool of this folder to its store.

    No password is kept on disk, so a store whose address has one must be given again with `--uri`.
    If sweeps wrote to several stores, only the results for the given store are sent.

    Args:
        arguments: The command's arguments, without the word `sync`.

    Returns:
        The exit code: 0 if no result is left on disk, 1 otherwise.
    """
    parser = Parser(prog="masksweep sync")
    parser.add_argument("--uri", help="as tracking.uri; default: the store the sweep wrote to")
    args = parser.parse_args(arguments)
    spools = Spool.addresses()
    if not spools:
        print("No results wait to be sent.")
    if args.uri and len({spool.store for spool in spools}) > 1:
        spools = [spool for spool in spools if spool.store == redact(store_uri(args.uri))]
    return max((_send(spool, args.uri) for spool in spools), default=0)


def _send(address: SpoolAddress, given_uri: str | None) -> int:
    default_uri = store_uri(given_uri)
    # the saved address has no password, so prefer ours if it names the same store
    uri = default_uri if given_uri or redact(default_uri) == address.store else address.store
    tracking = Tracking(uri=uri, experiment=address.experiment)
    try:
        with Spool.open_exclusively(address) as spool:
            before = spool.waiting()
            with show_status(f"Sending {before} records of {address.sweep!r}"):
                Sender(spool, tracking, address.sweep).send_left()
                Tracker(tracking, address.sweep).kill_left_running()
            waiting, refused = spool.waiting(), spool.refused()
    except (StoreUnavailable, StoreRefused, Invalid) as error:
        print(f"masksweep: {address.sweep!r}: {error}", file=sys.stderr)
        return 1
    print(f"{address.sweep!r}: {before - waiting} records sent, {waiting} left")
    for reason in refused:
        print(f"  refused: {reason}", file=sys.stderr)
    return int(waiting > 0)
