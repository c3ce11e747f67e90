"""What would stop a sweep here, on one screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import shorten
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from strategies.base import Invalid
from sweeps import checks, escape, feasible
from sweeps.arguments import Parser
from sweeps.named import all_of
from sweeps.nodes import nodes
from sweeps.overrides import planned
from sweeps.progress import doing

if TYPE_CHECKING:
    from sweeps.config import Trial

COLORS = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(arguments: Sequence[str]) -> int:
    """`masksweep doctor [--address A] [OVERRIDES]`: 0 if nothing would stop that sweep here."""
    parser = Parser(prog="masksweep doctor", allow_abbrev=False)
    parser.add_argument("--address", help="as launch.address; default: Ray is started here")
    given, asked = parser.parse_known_args(arguments)
    plan = planned("doctor", asked)
    if not plan:
        return 0
    console, stops = escape.console(), 0
    for finding in _all([p.trial for p in plan], given.address):
        console.print(_line(finding))
        stops += finding.state == "fail"
    said = {0: "Nothing", 1: "One thing"}.get(stops, f"{stops} things")
    console.print(f"\n{said} would stop a sweep here.", highlight=False)
    return int(stops > 0)


def _all(trials: Sequence[Trial], address: str | None) -> Iterator[checks.Finding]:
    """Every finding, as soon as it is there."""
    first = trials[0]
    yield from checks.versions()
    with doing("Looking at the devices"):
        found = [checks.devices()]
    yield from found
    with doing("Checking the trials"):
        found = [checks.trials(trials)]
    yield from found
    if address or first.launch.address or not (lacking := list(_lacking(trials))):
        with doing("Looking at Ray"):
            found = list(nodes(address or first.launch.address, trials))
        yield from found
    else:  # run would say so before it starts Ray
        yield from lacking
    with doing("Looking at the store"):
        found = [checks.store(first.tracking)]
    yield from found
    yield checks.checkpoints(first.checkpoint.path)
    yield from checks.disks()


def _lacking(trials: Sequence[Trial]) -> Iterator[checks.Finding]:
    """What this machine has too little of, in the words of `run`."""
    try:
        feasible.check(trials)
    except Invalid as error:
        for fault in all_of(error):
            if not fault.key.startswith("checkpoint"):  # which has a finding of its own
                yield checks.Finding("fail", "room", str(fault))


def _line(finding: checks.Finding) -> Table:
    line = Table.grid(padding=(0, 1))
    line.add_column(width=4)
    line.add_column(width=12)
    line.add_column(overflow="fold")
    state = Text(finding.state, COLORS[finding.state])
    line.add_row(state, Text(finding.what), Text(shorten(finding.found, 240, placeholder=" ...")))
    if finding.advice:
        line.add_row("", "", Text(f"-> {finding.advice}"))
    return line
