"""What a person is told before and after a sweep."""

from __future__ import annotations

import shlex
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from masksweep.sweeps.common import escape
from masksweep.sweeps.common.limits import STATE
from masksweep.sweeps.common.redact import shown
from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.config.plan import Planned, counted, trials
from masksweep.sweeps.report import baseline, claims, recommendation
from masksweep.sweeps.report.claims import Checked
from masksweep.sweeps.report.results_table import as_markdown, table
from masksweep.sweeps.tracking import resume


@dataclass
class Ended:
    """What came out of a sweep."""

    outcomes: list[Outcome] = field(default_factory=list)
    """Of the trials that ended, in this run or an earlier one, in the plan's order."""
    logs: dict[str, Path] = field(default_factory=dict)
    """Log of each trial that failed, by trial id."""
    exit_code: int = 1
    unsent: int = 0
    """Records that the store does not have."""
    refused: Sequence[str] = ()
    """Why the store would not take records."""
    trouble: str = ""
    """Why the store could not be reached, if records wait for it."""
    ended_by: str = ""
    """Why not every trial was run, if that was a trial's doing."""
    checked: Sequence[Checked] = ()
    """The sweep's claims."""
    lost: int = 0
    """How many trials the store was given and does not have any more."""


def before(planned: Sequence[Planned], away: str) -> None:
    """Say on stderr what is done already; `away` is why that could not be seen."""
    done = any(p.found for p in planned)
    if away:
        print(f"The store is away ({away}); results wait on disk.", file=sys.stderr)
    if done:
        print(f"{counted(planned)}.", file=sys.stderr)
        if warning := resume.other_code(planned):
            print(warning, file=sys.stderr)


NOTE = 8000
"""The most characters of a run's description."""


def note(question: str, again: str, outcomes: Sequence[Outcome], checked: Sequence[Checked]) -> str:
    """A parent run's description, in markdown: what it was to settle, what came out, how to rerun.

    Its tables are cut to what there is room for.
    """
    told = [
        f"**{escape.markdown(about)}**: {escape.markdown(said)}\n"
        for about, said in recommendation.sentences(outcomes)
    ]
    parts = ["\n".join(told), claims.as_markdown(checked), as_markdown(outcomes)]
    parts = [*parts, baseline.as_markdown(outcomes)] if outcomes else []
    first = f"{escape.markdown(question)[:2000]}\n\n" if question else ""
    last = f"Run again with\n\n{textwrap.indent(again, '    ', lambda line: True)}\n"
    room, found = NOTE - len(first) - len(last) - 600, []
    for given in filter(None, parts):
        lines, kept = given.splitlines(keepends=True), ""
        while lines and len(kept) + len(lines[0]) <= room:
            kept += lines.pop(0)
        room -= len(kept) + 50
        found.append(kept + (f"\n{len(lines)} more lines in the report\n" if lines else ""))
    return first + "\n".join([*found, last])


def after(ended: Ended, name: str, arguments: Sequence[str]) -> None:
    """Print the table and what failed; say on stderr what is left to do, and how."""
    if ended.outcomes:
        console = escape.console()
        console.print()
        console.print(table(ended.outcomes))
        if (against := baseline.table(ended.outcomes)) is not None:
            console.print()
            console.print(against)
            console.print(baseline.method(against.row_count))
            console.print(baseline.note(ended.outcomes))
        if ended.checked:
            console.print()
            console.print(claims.table(ended.checked))
        console.print()
        recommendation.show(recommendation.sentences(ended.outcomes), console)
    for outcome in ended.outcomes:
        if outcome.status != "ok":
            log = ended.logs.get(outcome.trial.id)
            where = f"  (log: {log})" if log else ""
            print(f"{outcome.status}: {outcome.name}: {outcome.reason}{where}")
    if ended.refused:
        print(f"The store refused records: {'; '.join(ended.refused)}", file=sys.stderr)
    if ended.unsent:
        waiting = f"{ended.unsent} records wait on disk, in {STATE / 'spool'}."
        print(f"{waiting} Send them with: masksweep sync", file=sys.stderr)
        if ended.trouble:
            print(f"The store could not be reached: {ended.trouble}", file=sys.stderr)
    if ended.lost:
        lost = f"The store has lost {trials(ended.lost)} that it was given before"
        print(f"{lost}; the same command runs them again.", file=sys.stderr)
    if ended.ended_by:
        print(ended.ended_by, file=sys.stderr)
    if ended.exit_code > 128:
        again = shown(shlex.join(["masksweep", "run", *arguments]))
        print(f"Interrupted; what had finished is kept. Go on with:\n  {again}", file=sys.stderr)
    if ended.outcomes:
        print(f"\nOpen the results with: masksweep ui   (sweep {name!r})")
