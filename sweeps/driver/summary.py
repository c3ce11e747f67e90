"""Messages to the user before and after a sweep, and the description of its parent run."""

from __future__ import annotations

import shlex
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from masksweep.sweeps.common import escape
from masksweep.sweeps.common.limits import STATE_FOLDER
from masksweep.sweeps.common.redact import redact
from masksweep.sweeps.components import plugins
from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.config.plan import PlannedTrial, count_by_state, count_trials
from masksweep.sweeps.report import baseline, claims, recommendation
from masksweep.sweeps.report.claims import CheckedClaim
from masksweep.sweeps.report.results_table import as_markdown, table
from masksweep.sweeps.tracking import resume


@dataclass
class SweepResult:
    """The results of a sweep, and how it ended."""

    outcomes: list[Outcome] = field(default_factory=list)
    """Outcomes of the trials that ended in this run or an earlier one, in the order of the plan."""
    logs: dict[str, Path] = field(default_factory=dict)
    """Log file of each trial that failed, by trial id."""
    exit_code: int = 1
    unsent: int = 0
    """Number of records that the store does not have."""
    refused: Sequence[str] = ()
    """Reasons why the store refused records."""
    trouble: str = ""
    """Why the store could not be reached, if records wait for it."""
    stop_reason: str = ""
    """Why the sweep ended before all trials ran, if a trial or an error was the cause."""
    checked: Sequence[CheckedClaim] = ()
    """Results of the sweep's claims."""
    lost: int = 0
    """Number of trials that the store had, and no longer has."""


def print_before(planned: Sequence[PlannedTrial], away: str) -> None:
    """Prints the state of the plan on stderr, before the sweep starts.

    Args:
        planned: The plan of the sweep.
        away: Why the store cannot be reached; empty if it can.
    """
    done = any(p.previous_result for p in planned)
    if away:
        message = f"The tracking store cannot be reached ({away}); results are kept on disk."
        print(message, file=sys.stderr)
    if done:
        print(f"{count_by_state(planned)}.", file=sys.stderr)
        if warning := resume.other_code_warning(planned):
            print(warning, file=sys.stderr)


MAX_NOTE_CHARACTERS = 8000
"""Largest length of a run's description, in characters."""


def note(
    question: str, command: str, outcomes: Sequence[Outcome], checked: Sequence[CheckedClaim]
) -> str:
    """Returns the description of a parent run, in Markdown.

    It has the question, the recommendations, the claims, tables of results, and the command. Tables
    are cut to fit into `MAX_NOTE_CHARACTERS` characters.

    Args:
        question: The question of the sweep; may be empty.
        command: The command that runs the sweep again.
        outcomes: Outcomes of the trials so far.
        checked: Results of the claims.
    """
    sentences = [
        f"**{escape.markdown(topic)}**: {escape.markdown(sentence)}\n"
        for topic, sentence in recommendation.sentences(outcomes)
    ]
    parts = ["\n".join(sentences), claims.as_markdown(checked), as_markdown(outcomes)]
    parts = [*parts, baseline.as_markdown(outcomes)] if outcomes else []
    head = f"{escape.markdown(question)[:2000]}\n\n" if question else ""
    tail = f"Run again with\n\n{textwrap.indent(command, '    ', lambda line: True)}\n"
    room, sections = MAX_NOTE_CHARACTERS - len(head) - len(tail) - 600, []
    for section in filter(None, parts):
        lines, text = section.splitlines(keepends=True), ""
        while lines and len(text) + len(lines[0]) <= room:
            text += lines.pop(0)
        room -= len(text) + 50
        sections.append(text + (f"\n{len(lines)} more lines in the report\n" if lines else ""))
    return head + "\n".join([*sections, tail])


def print_after(result: SweepResult, name: str, arguments: Sequence[str], uri: str | None) -> None:
    """Prints the results on stdout, and on stderr what is left to do.

    Args:
        result: The results of the sweep.
        name: Name of the sweep.
        arguments: Arguments of the command line, to print the command that continues the sweep.
        uri: The sweep's `tracking.uri`; None for the store that all commands use.
    """
    if result.outcomes:
        console = escape.console()
        console.print()
        console.print(table(result.outcomes))
        if (comparison := baseline.table(result.outcomes)) is not None:
            console.print()
            console.print(comparison)
            console.print(baseline.method_note(comparison.row_count))
            console.print(baseline.noise_note(result.outcomes))
        if result.checked:
            console.print()
            console.print(claims.table(result.checked))
        console.print()
        recommendation.print_sentences(recommendation.sentences(result.outcomes), console)
    for outcome in result.outcomes:
        if outcome.status != "ok":
            log = result.logs.get(outcome.trial.id)
            where = f"  (log: {log})" if log else ""
            print(f"{outcome.status}: {outcome.name}: {outcome.reason}{where}")
    if result.refused:
        print(f"The store refused records: {'; '.join(result.refused)}", file=sys.stderr)
    if result.unsent:
        waiting = f"{result.unsent} records wait on disk, in {STATE_FOLDER / 'spool'}."
        print(f"{waiting} Send them with: masksweep sync", file=sys.stderr)
        if result.trouble:
            print(f"The store could not be reached: {result.trouble}", file=sys.stderr)
    if result.lost:
        lost = f"The store has lost {count_trials(result.lost)} that it was given before"
        print(f"{lost}; the same command runs them again.", file=sys.stderr)
    if result.stop_reason:
        print(result.stop_reason, file=sys.stderr)
    if result.exit_code > 128:
        again = redact(shlex.join(["masksweep", "run", *plugins.flags(), *arguments]))
        print(f"Interrupted; finished trials are kept. Continue with:\n  {again}", file=sys.stderr)
    if result.outcomes and not result.unsent:
        option = f" --uri {shlex.quote(redact(uri))}" if uri else ""
        print(f"\nOpen the results with: masksweep ui{option}   (sweep {name!r})")
