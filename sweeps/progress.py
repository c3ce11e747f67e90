"""Progress on stderr: a live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from sweeps.report import Outcome


class Display:
    """Shows how a sweep of `total` trials goes."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._failed = total, 0, 0
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("Starting Ray", total=total)

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Show what the time is spent on before the trials start."""
        if self._console.is_terminal:
            with self._console.status(what):
                yield
        else:
            self._console.print(f"{what} ...")
            yield

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        else:
            self._console.print(f"Running {self._total} trials ...")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def ended(self, outcome: Outcome) -> None:
        """Count a trial that ended, and show it."""
        self._done += 1
        self._failed += outcome.status == "failed"
        line = _line(outcome)
        if self._console.is_terminal:
            failed = f", [red]{self._failed} failed[/red]" if self._failed else ""
            self._bar.update(self._task, completed=self._done, description=line + failed)
        else:
            width = len(str(self._total))
            self._console.print(
                f"[{self._done:>{width}}/{self._total}] {line}", markup=False, soft_wrap=True
            )


def _line(outcome: Outcome) -> str:
    if outcome.status != "ok":
        return f"{outcome.trial.name}: {outcome.status}: {outcome.reason}"
    metrics = outcome.result.metrics
    name = "accuracy" if "test/accuracy" in metrics else "mse"
    return f"{outcome.trial.name}: {name} {metrics[f'test/{name}']:.3f}"
