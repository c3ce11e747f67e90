"""The block of lines that shows a sweep in a terminal."""

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

from masksweep.sweeps.common.text import about, count, printable
from masksweep.sweeps.driver.progress_state import Running, Tally, shown

ROWS = 8
"""How many workers, and how many strategies, are shown."""
BAR = 40
"""Cells of the bar, where there is room."""


class Block(Live):
    """Shows the tally below all that is printed, four times a second, while it is entered."""

    def __init__(self, tally: Tally, console: Console) -> None:
        # standard output may be a file: what is printed there has to stay there
        stdout = sys.stdout.isatty()
        super().__init__(self, console=console, transient=True, redirect_stdout=stdout)
        self._tally = tally
        self._above: deque[Text] = deque()
        self._drawn: list[int] = []

    def print_above(self, line: str) -> None:
        """Leave a line for the next frame to print above it."""
        self._above.append(Text(line))

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        # a terminal that was made narrower breaks the lines that it shows: the frame is higher now
        more = sum(max(0, cells - 1) // self.console.width for cells in self._drawn)
        up = [(ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)] * more
        above = [self._above.popleft() for _ in range(len(self._above))]
        return [Control(*up), *super().process_renderables([*renderables, *above])]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        utf = console.encoding.startswith("utf")
        with self._tally.lock:
            found = lines(self._tally, options.max_width, options.size.height, utf)
        self._drawn = [line.cell_len for line in found]
        yield from found


def lines(tally: Tally, width: int, height: int, utf: bool = True) -> list[Text]:
    """The block in a terminal of this size, in cells; no line is wider, and all fit."""
    counts = {
        "running": len(tally.running),
        "done before": tally.done,
        **{what: tally.counts[what] for what in ("skipped", "failed", "retried")},
    }
    said = [Text(f"{n} {what}", "red" * (what == "failed")) for what, n in counts.items() if n]
    found = [_bar(tally, width, *(("━", "─") if utf else ("#", "-")))]
    found += [Text(", ").join(said)] if said else []
    found += [Text(_best(metric, best, width)) for metric, best in tally.best.items()]
    found += [Text(f"Store {away(tally)}", "bold")] if tally.away else []
    found += [Text(f"{tally.phase} ...")] if tally.phase else []
    room = max(0, min(ROWS, height - len(found) - 2))
    running = sorted(tally.running.values(), key=lambda t: t.worker)
    found += map(Text, _rows(running[:room], width))
    found += [Text(f"  and {more} more")] if (more := len(running) - room) > 0 else []
    for line in found:
        line.truncate(width, overflow="crop")
    return found[:height]


def _bar(tally: Tally, width: int, full: str, empty: str) -> Text:
    done, total, left = tally.finished, tally.total, tally.left()
    said = f"  {done}/{total}  {timedelta(seconds=int(tally.passed))}"
    if left is not None:
        said += f"  about {about(left)} left"
    size = max(0, min(BAR, width - len(said)))
    cells = size * done // total
    # told apart by more than colour
    return Text.assemble((cells * full, "green"), (size - cells) * empty, said)


def away(tally: Tally) -> str:
    """For how long the store has been away, and what it costs."""
    wait = "waits" if tally.waiting == 1 else "wait"
    return f"away for {about(tally.away)}: {count(tally.waiting, 'record')} {wait} on disk"


def _rows(running: Sequence[Running], width: int) -> list[str]:
    """A line for each worker, in columns; the trial's name gets the room that the others leave."""
    cells = [(str(t.worker), printable(t.name), _where(t), t.score) for t in running]
    sizes = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    if not cells:
        return []
    number, name, where, score = sizes
    name = min(name, max(10, width - number - where - score - 8))
    return [
        f"  {n:>{number}}  {set_cell_size(_cut(t, name), name)}  {w:<{where}}  {s}".rstrip()
        for n, t, w, s in cells
    ]


def _where(trial: Running) -> str:
    return f"epoch {trial.epoch}, {int(100 * trial.part)} %" if trial.epoch else "starting"


def _best(metric: str, best: Mapping[str, float], width: int) -> str:
    """The best strategies, as many as there is room for."""
    ranked = sorted(best.items(), key=lambda item: item[1], reverse=metric == "accuracy")
    said, line = [f"{strategy} {shown(metric, value)}" for strategy, value in ranked], ""
    for fit in range(min(ROWS, len(said)), 0, -1):
        dots = ["..."] * (fit < len(said))
        line = f"best {metric}: {', '.join(said[:fit] + dots)}"
        if cell_len(line) <= width:
            break
    return line


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else f"{set_cell_size(text, width - 3)}..."
