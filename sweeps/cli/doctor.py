"""The command `masksweep doctor`: shows on one screen what would stop a sweep here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import shorten
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.cli import doctor_checks
from masksweep.sweeps.cli.doctor_ray import nodes
from masksweep.sweeps.common import escape
from masksweep.sweeps.common.parser import Parser
from masksweep.sweeps.common.spinner import show_status
from masksweep.sweeps.components import plugins
from masksweep.sweeps.composing.command_line import compose_plan
from masksweep.sweeps.config import feasible
from masksweep.sweeps.config.validation import single_faults

if TYPE_CHECKING:
    from masksweep.sweeps.config.trial import Trial

COLORS = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(arguments: Sequence[str]) -> int:
    """Runs `masksweep doctor [--address A] [OVERRIDES]`, and prints a line for each finding.

    Args:
        arguments: The command's arguments, without the word `doctor`.

    Returns:
        The exit code: 0 if nothing would stop that sweep here, 1 otherwise.
    """
    parser = Parser(prog="masksweep doctor", allow_abbrev=False, epilog=plugins.HELP)
    parser.add_argument("--address", help="as launch.address; default: Ray is started here")
    options, overrides = parser.parse_known_args(arguments)
    plan = compose_plan(overrides)
    if not plan:
        return 0
    console, stops = escape.console(), 0
    for finding in _findings([p.trial for p in plan], options.address):
        console.print(_as_table(finding))
        stops += finding.state == "fail"
    counted = {0: "Nothing", 1: "One thing"}.get(stops, f"{stops} things")
    console.print(f"\n{counted} would stop a sweep here.", highlight=False)
    return int(stops > 0)


def _findings(trials: Sequence[Trial], address: str | None) -> Iterator[doctor_checks.Finding]:
    """Yields every finding, each as soon as it is known."""
    first = trials[0]
    yield from doctor_checks.versions()
    with show_status("Looking at the devices"):
        findings = [doctor_checks.devices()]
    yield from findings
    with show_status("Checking the trials"):
        findings = [doctor_checks.trials(trials)]
    yield from findings
    if address or first.launch.address or not (shortages := list(_missing_resources(trials))):
        with show_status("Looking at Ray"):
            findings = list(nodes(address or first.launch.address, trials))
        yield from findings
    else:  # `run` would refuse the sweep for this before it starts Ray
        yield from shortages
    with show_status("Looking at the store"):
        findings = [doctor_checks.store(first.tracking)]
    yield from findings
    yield doctor_checks.checkpoints(first.checkpoint.path)
    yield from doctor_checks.disks()


def _missing_resources(trials: Sequence[Trial]) -> Iterator[doctor_checks.Finding]:
    """Yields the resources that this machine has too little of, in the words of `run`."""
    try:
        feasible.check(trials)
    except Invalid as error:
        for fault in single_faults(error):
            if not fault.key.startswith("checkpoint"):  # checkpoints have their own finding
                yield doctor_checks.Finding("fail", "room", str(fault))


def _as_table(finding: doctor_checks.Finding) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=4)
    grid.add_column(width=12)
    grid.add_column(overflow="fold")
    state = Text(finding.state, COLORS[finding.state])
    result = shorten(finding.result, 240, placeholder=" ...")
    grid.add_row(state, Text(finding.subject), Text(result))
    if finding.advice:
        grid.add_row("", "", Text(f"-> {finding.advice}"))
    return grid
