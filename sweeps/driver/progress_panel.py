"""The panel of lines that shows the progress of a sweep in a terminal."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import timedelta

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderResult
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.text import Text

from masksweep.sweeps.common.text import format_duration, pluralize, printable
from masksweep.sweeps.config.score_metric import ScoreMetric
from masksweep.sweeps.driver.progress_state import RunningTrial, Tally, format_score

MAX_ROWS = 8
"""Largest number of workers, and of strategies, that are shown."""
MAX_BAR_WIDTH = 40
"""Largest width of the progress bar, in terminal cells."""


class ProgressPanel(Live):
    """Shows the tally below everything that is printed, four times per second.

    It is a context manager, and shows the tally while it is entered.
    """

    def __init__(self, tally: Tally, console: Console) -> None:
        # if standard output is a file, it must get what is printed to it
        stdout = sys.stdout.isatty()
        super().__init__(self, console=console, transient=True, redirect_stdout=stdout)
        self._tally = tally
        self._above: deque[Text] = deque()
        self._drawn: list[int] = []

    def print_above(self, line: str) -> None:
        """Queues a line, which the next frame prints above the panel."""
        self._above.append(Text(line))

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        # a terminal that became narrower wraps the last frame's lines: erase the extra rows too
        extra_rows = sum(max(0, cells - 1) // self.console.width for cells in self._drawn)
        up = [(ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)] * extra_rows
        above = [self._above.popleft() for _ in range(len(self._above))]
        return [Control(*up), *super().process_renderables([*renderables, *above])]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        utf = console.encoding.startswith("utf")
        with self._tally.lock:
            panel_lines = render_lines(self._tally, options.max_width, options.size.height, utf)
        self._drawn = [line.cell_len for line in panel_lines]
        yield from panel_lines


def render_lines(tally: Tally, width: int, height: int, utf: bool = True) -> list[Text]:
    """Returns the lines of the panel, which fit into a terminal of the given size.

    Args:
        tally: State of the sweep; the caller holds its lock.
        width: Width of the terminal, in cells.
        height: Height of the terminal, in rows.
        utf: Whether the terminal can show Unicode.
    """
    counts = {
        "running": len(tally.running),
        "done before": tally.done,
        **{state: tally.counts[state] for state in ("skipped", "failed", "retried")},
    }
    texts = [Text(f"{n} {state}", "red" * (state == "failed")) for state, n in counts.items() if n]
    panel = [_bar(tally, width, *(("━", "─") if utf else ("#", "-")))]
    panel += [Text(", ").join(texts)] if texts else []
    panel += [Text(_best(metric, best, width)) for metric, best in tally.best.items()]
    panel += [Text(f"Store {describe_outage(tally)}", "bold")] if tally.away_s else []
    panel += [Text(f"{tally.phase} ...")] if tally.phase else []
    rows = max(0, min(MAX_ROWS, height - len(panel) - 2))
    running = sorted(tally.running.values(), key=lambda t: t.worker)
    panel += map(Text, _rows(running[:rows], width))
    panel += [Text(f"  and {hidden} more")] if (hidden := len(running) - rows) > 0 else []
    for line in panel:
        line.truncate(width, overflow="crop")
    return panel[:height]


def _bar(tally: Tally, width: int, full: str, empty: str) -> Text:
    done, total, left = tally.finished, tally.total, tally.seconds_left()
    text = f"  {done}/{total}  {timedelta(seconds=int(tally.seconds_passed))}"
    if left is not None:
        text += f"  about {format_duration(left)} left"
    size = max(0, min(MAX_BAR_WIDTH, width - len(text)))
    cells = size * done // total
    # full and empty cells differ in their character too, not only in colour
    return Text.assemble((cells * full, "green"), (size - cells) * empty, text)


def describe_outage(tally: Tally) -> str:
    """Returns the text that says how long the store has been away, and how many records wait."""
    wait = "waits" if tally.waiting == 1 else "wait"
    records = pluralize(tally.waiting, "record")
    return f"away for {format_duration(tally.away_s)}: {records} {wait} on disk"


def _rows(running: Sequence[RunningTrial], width: int) -> list[str]:
    """Returns a line for each worker, in columns.

    The column of the trial's name gets the width that the other columns leave.
    """
    cells = [(str(t.worker), printable(t.name), _describe_position(t), t.score) for t in running]
    sizes = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    if not cells:
        return []
    number, name, position, score = sizes
    name = min(name, max(10, width - number - position - score - 8))
    return [
        f"  {n:>{number}}  {set_cell_size(_shorten(t, name), name)}  {p:<{position}}  {s}".rstrip()
        for n, t, p, s in cells
    ]


def _describe_position(trial: RunningTrial) -> str:
    """Returns the epoch and the percentage of a running trial."""
    return f"epoch {trial.epoch}, {int(100 * trial.fraction_done)} %" if trial.epoch else "starting"


def _best(metric: ScoreMetric, best: Mapping[str, float], width: int) -> str:
    """Returns a line with the best strategies, as many as fit into the width."""
    ranked = sorted(best.items(), key=lambda item: item[1], reverse=metric.sign > 0)
    entries = [f"{strategy} {format_score(metric.key, value)}" for strategy, value in ranked]
    line = ""
    for number in range(min(MAX_ROWS, len(entries)), 0, -1):
        dots = ["..."] * (number < len(entries))
        line = f"best {metric.name}: {', '.join(entries[:number] + dots)}"
        if cell_len(line) <= width:
            break
    return line


def _shorten(text: str, width: int) -> str:
    return text if cell_len(text) <= width else f"{set_cell_size(text, width - 3)}..."
