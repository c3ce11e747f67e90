"""Progress on stderr: a live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from sweeps.report import Outcome


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Show what the time is spent on."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status(what):
            yield
    else:
        console.print(f"{what} ...")
        yield


class Display:
    """Shows how a sweep of `total` trials goes, while it is entered."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._failed = total, 0, 0
        self._console = Console(stderr=True)
        self._bar = Progress(
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("Starting the workers", total=total)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        else:
            self._console.print(f"Running {self._total} trials ...")
        return self

    def __exit__(self, *_: Any) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def ended(self, outcome: Outcome) -> None:
        """Count a trial that ended, and show it."""
        self._done += 1
        self._failed += outcome.status == "failed"
        line = f"{outcome.name}: {_found(outcome)}"
        if self._console.is_terminal:
            failed = f"[red]{self._failed} failed[/red] " if self._failed else ""
            self._bar.update(self._task, completed=self._done, description=failed + escape(line))
        else:
            width = len(str(self._total))
            self._console.print(
                f"[{self._done:>{width}}/{self._total}] {line}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )


def _found(outcome: Outcome) -> str:
    if outcome.status != "ok":
        return f"{outcome.status}: {outcome.reason}"
    metrics = outcome.result.metrics
    name = "accuracy" if "test/accuracy" in metrics else "mse"
    return f"{name} {metrics[f'test/{name}']:.3f}"
