"""Progress of a sweep on stderr: a live panel in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Self

from rich.console import Console

from masksweep.sweeps.common import escape
from masksweep.sweeps.common.spinner import is_terminal
from masksweep.sweeps.common.text import pluralize, printable
from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.driver.progress_panel import ProgressPanel, describe_outage
from masksweep.sweeps.driver.progress_state import Tally, TrialProgress, format_score

MAX_TRIALS_WITH_LINES = 1000
"""Number of trials above which a sweep gets a plain line for each percent, not for each trial."""


class Display:
    """Shows the progress of a sweep; a context manager.

    A call is cheap: it only updates the tally. In a terminal, another thread draws the tally.

    Args:
        total: Number of trials in the sweep.
        done: Number of trials that had finished before this run.
        console: Where to print; by default stderr.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        total: int,
        *,
        done: int = 0,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console or escape.console(stderr=True)
        self._tally = Tally(total, done, clock)
        terminal = is_terminal(self._console)
        self._panel = ProgressPanel(self._tally, self._console) if terminal else None

    def __enter__(self) -> Self:
        total, done = self._tally.total, self._tally.done
        if self._panel:
            self._panel.start(refresh=True)
        elif done:
            trials = pluralize(total, "trial")
            self._print_line(f"Running {total - done} of {trials} ({done} done) ...")
        else:
            self._print_line(f"Running {pluralize(total, 'trial')} ...")
        return self

    def __exit__(self, *_: Any) -> None:
        if self._panel:
            self._panel.stop()

    def started(self, key: str, name: str, worker: int, share: float = 1.0) -> None:
        """Reports that a trial was given to a worker.

        Args:
            key: The trial's id.
            name: The trial's name, as it is shown.
            worker: The worker's number, from 0.
            share: The part of the worker that the trial has, in (0, 1]: in a pack, 1 / (number of
                trials).
        """
        with self._tally.lock:
            self._tally.start(key, name, worker, share)

    def reported(self, key: str, report: TrialProgress) -> None:
        """Reports how far a running trial is."""
        with self._tally.lock:
            trial = self._tally.report(key, report)
        if report.note:
            self._print_line(f"{trial.name}: {report.note}")

    def retried(self, key: str, reason: str) -> None:
        """Reports that the trial's worker was lost; the trial will be given to another one."""
        with self._tally.lock:
            trial = self._tally.retry(key)
        self._print_line(f"retried: {trial.name} ({reason})")

    def ended(self, outcome: Outcome) -> None:
        """Reports that a trial has ended, or was skipped without a start."""
        with self._tally.lock:
            self._tally.end(outcome)
        done, total = self._tally.finished, self._tally.total
        # in a large sweep: whether this trial is the first one of its percent
        has_line = total <= MAX_TRIALS_WITH_LINES or 100 * done // total > 100 * (done - 1) // total
        if outcome.status == "failed" or (has_line and not self._panel):
            position = f"[{done:>{len(str(total))}}/{total}]"
            self._print_line(f"{position} {outcome.name}: {_result_text(outcome)}")

    def store(self, waiting: int, away_s: float) -> None:
        """Reports the state of the store.

        Args:
            waiting: Number of records that wait on disk.
            away_s: Seconds since the store was found to be away; 0 while it can be reached.
        """
        with self._tally.lock:
            was, self._tally.away_s, self._tally.waiting = self._tally.away_s, away_s, waiting
        if not self._panel and bool(was) != bool(away_s):
            self._print_line(f"store {describe_outage(self._tally)}" if away_s else "store is back")

    def phase(self, text: str) -> None:
        """Reports what is done after the last trial, as `Recording 124 results`."""
        with self._tally.lock:
            self._tally.begin_phase(text)
        if not self._panel:
            self._print_line(f"{text} ...")

    def _print_line(self, line: str) -> None:
        if self._panel:
            self._panel.print_above(printable(line))
        else:
            self._console.out(printable(line), highlight=False)


def _result_text(outcome: Outcome) -> str:
    """Returns the end of a trial's line: its score, or why it failed or was skipped."""
    if outcome.status != "ok":
        return f"{outcome.status}: {outcome.reason}"
    metric = outcome.trial.score_metric
    value = outcome.result.metrics.get(metric.key)
    return "done" if value is None else f"{metric.name} {format_score(metric.key, value)}"
