"""Progress on stderr: a live block in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Self

from rich.console import Console

from masksweep.sweeps.common import escape
from masksweep.sweeps.common.spinner import _is_terminal
from masksweep.sweeps.common.text import count, printable
from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.driver.progress_panel import Block, away
from masksweep.sweeps.driver.progress_state import Report, Tally, score, shown

MANY = 1000
"""Larger sweeps get a plain line for each percent, not for each trial."""


class Display:
    """Shows how a sweep of `total` trials goes, while it is entered; `done` had ended before.

    A call costs little: it changes the tally, which in a terminal a thread of its own draws.
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
        terminal = _is_terminal(self._console)
        self._block = Block(self._tally, self._console) if terminal else None

    def __enter__(self) -> Self:
        total, done = self._tally.total, self._tally.done
        if self._block:
            self._block.start(refresh=True)
        elif done:
            self._say(f"Running {total - done} of {count(total, 'trial')} ({done} done) ...")
        else:
            self._say(f"Running {count(total, 'trial')} ...")
        return self

    def __exit__(self, *_: Any) -> None:
        if self._block:
            self._block.stop()

    def started(self, key: str, name: str, worker: int, share: float = 1.0) -> None:
        """A worker, or a share of it, has been given the trial."""
        with self._tally.lock:
            self._tally.start(key, name, worker, share)

    def reported(self, key: str, report: Report) -> None:
        """The trial says how far it is."""
        with self._tally.lock:
            trial = self._tally.report(key, report)
        if report.note:
            self._say(f"{trial.name}: {report.note}")

    def retried(self, key: str, reason: str) -> None:
        """The trial's worker was lost; another one will be given it."""
        with self._tally.lock:
            trial = self._tally.retry(key)
        self._say(f"retried: {trial.name} ({reason})")

    def ended(self, outcome: Outcome) -> None:
        """The trial ended, or never had to start."""
        with self._tally.lock:
            self._tally.end(outcome)
        done, total = self._tally.finished, self._tally.total
        # whether this is the first of its percent
        counts = total <= MANY or 100 * done // total > 100 * (done - 1) // total
        if outcome.status == "failed" or (counts and not self._block):
            self._say(f"[{done:>{len(str(total))}}/{total}] {outcome.name}: {_found(outcome)}")

    def store(self, waiting: int, away_s: float) -> None:
        """The store has been away for `away_s` seconds (0: it is there), `waiting` records wait."""
        with self._tally.lock:
            was, self._tally.away, self._tally.waiting = self._tally.away, away_s, waiting
        if not self._block and bool(was) != bool(away_s):
            self._say(f"store {away(self._tally)}" if away_s else "store is back")

    def phase(self, text: str) -> None:
        """What is done after the last trial, as `Recording 124 results`."""
        with self._tally.lock:
            self._tally.close(text)
        if not self._block:
            self._say(f"{text} ...")

    def _say(self, line: str) -> None:
        if self._block:
            self._block.print_above(printable(line))
        else:
            self._console.out(printable(line), highlight=False)


def _found(outcome: Outcome) -> str:
    if outcome.status != "ok":
        return f"{outcome.status}: {outcome.reason}"
    found = score(outcome.result.metrics, "test")
    return f"{found[0]} {shown(*found)}" if found else "done"
