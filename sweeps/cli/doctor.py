"""What would stop a sweep here, on one screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import shorten
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from masksweep.strategies.base import Invalid
from masksweep.sweeps.cli import doctor_checks
from masksweep.sweeps.cli.doctor_ray import nodes
from masksweep.sweeps.common import escape
from masksweep.sweeps.common.parser import Parser
from masksweep.sweeps.common.spinner import doing
from masksweep.sweeps.composing.command_line import planned
from masksweep.sweeps.config import feasible
from masksweep.sweeps.config.validation import all_of

if TYPE_CHECKING:
    from masksweep.sweeps.config.trial import Trial

COLORS = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(arguments: Sequence[str]) -> int:
    """`masksweep doctor [--address A] [OVERRIDES]`: 0 if nothing would stop that sweep here."""
    parser = Parser(prog="masksweep doctor", allow_abbrev=False)
    parser.add_argument("--address", help="as launch.address; default: Ray is started here")
    given, asked = parser.parse_known_args(arguments)
    plan = planned(asked)
    if not plan:
        return 0
    console, stops = escape.console(), 0
    for finding in _all([p.trial for p in plan], given.address):
        console.print(_line(finding))
        stops += finding.state == "fail"
    said = {0: "Nothing", 1: "One thing"}.get(stops, f"{stops} things")
    console.print(f"\n{said} would stop a sweep here.", highlight=False)
    return int(stops > 0)


def _all(trials: Sequence[Trial], address: str | None) -> Iterator[doctor_checks.Finding]:
    """Every finding, as soon as it is there."""
    first = trials[0]
    yield from doctor_checks.versions()
    with doing("Looking at the devices"):
        found = [doctor_checks.devices()]
    yield from found
    with doing("Checking the trials"):
        found = [doctor_checks.trials(trials)]
    yield from found
    if address or first.launch.address or not (lacking := list(_lacking(trials))):
        with doing("Looking at Ray"):
            found = list(nodes(address or first.launch.address, trials))
        yield from found
    else:  # run would say so before it starts Ray
        yield from lacking
    with doing("Looking at the store"):
        found = [doctor_checks.store(first.tracking)]
    yield from found
    yield doctor_checks.checkpoints(first.checkpoint.path)
    yield from doctor_checks.disks()


def _lacking(trials: Sequence[Trial]) -> Iterator[doctor_checks.Finding]:
    """What this machine has too little of, in the words of `run`."""
    try:
        feasible.check(trials)
    except Invalid as error:
        for fault in all_of(error):
            if not fault.key.startswith("checkpoint"):  # which has a finding of its own
                yield doctor_checks.Finding("fail", "room", str(fault))


def _line(finding: doctor_checks.Finding) -> Table:
    line = Table.grid(padding=(0, 1))
    line.add_column(width=4)
    line.add_column(width=12)
    line.add_column(overflow="fold")
    state = Text(finding.state, COLORS[finding.state])
    line.add_row(state, Text(finding.what), Text(shorten(finding.found, 240, placeholder=" ...")))
    if finding.advice:
        line.add_row("", "", Text(f"-> {finding.advice}"))
    return line
