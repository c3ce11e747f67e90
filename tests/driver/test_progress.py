"""Tests of the progress display: the panel in a terminal, and plain lines elsewhere."""

from __future__ import annotations

import io
import re
import sys
import time
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from threading import RLock

import pytest
from rich.console import Console

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.common.spinner import show_status
from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.driver.progress import Display
from masksweep.sweeps.driver.progress_panel import ProgressPanel, render_lines
from masksweep.sweeps.driver.progress_state import Tally
from masksweep.sweeps.results import TrialResult
from tests.support.selection import by_default
from tests.support.trials import trial

CODES = re.compile(r"\x1b\[(\?25[lh]|[\d;]*[a-zA-Z])")


@dataclass(frozen=True)
class Said:
    """A report of a trial's progress."""

    steps: int
    total: int = 100
    epoch: int = 1
    metrics: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


class Clock:
    """A clock that the test advances."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Screen(io.StringIO):
    """A terminal that wraps lines at its width; keeps its visible rows and its cursor."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lock = RLock()
        self.width, self.rows, self.at, self.column, self.cursor = width, [""], 0, 0, True
        self.broken: set[int] = set()
        """Indices of rows that continue in the next row, because their text was too long."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with self.lock:
            self._show(text)
        return super().write(text)

    def _show(self, text: str) -> None:
        for part in re.split(r"(\x1b\[[?\d;]*[a-zA-Z]|[\r\n])", text):
            match part:
                case "\r":
                    self.column = 0
                case "\n":
                    self._down()
                case "\x1b[1A":
                    self.at = max(0, self.at - 1)
                case "\x1b[2K":
                    self.rows[self.at] = ""
                    self.broken.discard(self.at)
                case "\x1b[?25l" | "\x1b[?25h":
                    self.cursor = part.endswith("h")
                case _ if not CODES.fullmatch(part):
                    for letter in part:
                        self._put(letter)

    def _put(self, letter: str) -> None:
        if self.column == self.width:
            self.broken.add(self.at)
            self._down()
        row = self.rows[self.at]
        self.rows[self.at] = row[: self.column].ljust(self.column) + letter + row[self.column + 1 :]
        self.column += 1

    def _down(self) -> None:
        self.at, self.column = self.at + 1, 0
        if self.at == len(self.rows):
            self.rows.append("")

    def resize(self, width: int) -> None:
        """Changes the width and wraps the rows, as terminals do; the cursor stays in its row."""
        assert not any(self.rows[self.at + 1 :])
        rows, self.rows, self.width = self.rows[: self.at + 1], [], width
        for row in rows:
            self.rows += [row[i : i + width] for i in range(0, len(row), width)] or [""]
        self.at = len(self.rows) - 1
        self.column = len(self.rows[-1])

    @property
    def text(self) -> str:
        with self.lock:
            return "\n".join(self.rows)


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def console(file: io.StringIO, width: int = 80, height: int = 40) -> Console:
    return Console(file=file, width=width, height=height, color_system=None)


def until(condition: Callable[[], bool]) -> None:
    """Waits until the condition is true, at most 10 seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def outcome(number: int = 0, strategy: str = "weight_mask", **metrics: float) -> Outcome:
    scores = {f"test/{name}": value for name, value in metrics.items()}
    data = "diabetes" if "mse" in metrics else "digits"
    planned_trial = trial(strategy=strategy, seed=number, data=data)
    return Outcome(
        planned_trial, "", "ok", TrialResult("ok", metrics=scores or {"test/accuracy": 0.5})
    )


def failed(number: int, reason: str = "ValueError: no") -> Outcome:
    return Outcome(trial(seed=number), "", "failed", reason=reason)


def skipped(number: int) -> Outcome:
    return Outcome(trial(seed=number), "", "skipped", reason="cannot")


def some_of_all(display: Display) -> None:
    """Starts eleven of 80 trials; then one finishes, one fails, and one loses its worker."""
    for i in range(11):
        started_trial = outcome(i)
        display.started(started_trial.trial.id, started_trial.name + ", on [hidden_1/*]", i)
    for i in range(8, 20):
        display.reported(outcome(10).trial.id, Said(i, epoch=7, metrics={"train/accuracy": 0.2}))
    display.reported(outcome(3).trial.id, Said(45, 100, 12, {"validation/accuracy": 0.75}))
    display.reported(outcome(3).trial.id, Said(46, 100, 12))
    display.ended(outcome(0, accuracy=0.625))
    display.ended(failed(1, "ValueError: [hidden_1/*] matches nothing"))
    display.retried(outcome(2).trial.id, "worker died")
    display.ended(skipped(40))
    display.store(124, 34.6)


# -- in a terminal -----------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 200])
def test_a_terminal_shows_a_block_below_what_failed_and_leaves_only_that(width: int) -> None:
    screen = Screen(width)
    with Display(80, done=48, console=console(screen, width)) as display:
        assert "Starting the workers ..." in screen.text
        assert not screen.cursor
        some_of_all(display)
        until(lambda: "Store" in screen.text)
        rows = [row.rstrip() for row in screen.text.split("\n")]
        reason, wide = "failed: ValueError: [hidden_1/*]", width == 200
        assert rows[: 3 - wide] == [
            f"[50/80] weight_mask, random 0.5, seed 1: {reason}" + " matches nothing" * wide,
            *["matches nothing"] * (not wide),
            "retried: weight_mask, random 0.5, seed 2, on [hidden_1/*] (worker died)",
        ]
        block = rows[3 - wide :]
        assert re.fullmatch(r"━{25}─{15}  51/80  0:00:0\d  about \d+ \w+ left", block[0])
        assert block[1:4] == [
            "8 running, 48 done before, 1 skipped, 1 failed, 1 retried",
            "best test accuracy: weight_mask 0.625",
            "Store away for 35 s: 124 records wait on disk",
        ]
        seed_3 = "3  weight_mask, random 0.5, seed 3, on " + ("[hidden_1/*]" if wide else "[...")
        assert re.sub("  +", "  ", block[4]) == f"  {seed_3}  epoch 12, 46 %  validation 0.750"
        assert block[5].endswith("  starting")
        assert len(block) == 4 + 8
        assert not screen.broken
        display.phase("Recording 124 results")
        until(lambda: "Recording 124 results ..." in screen.text)
        assert screen.text.count("Recording") == 1
        assert not re.search("running|left|epoch", screen.text)
    assert screen.rows[-1] == ""
    assert "".join(screen.rows).count("running") == 0
    assert "failed: ValueError: [hidden_1/*]" in screen.text
    assert screen.cursor


def test_an_error_inside_leaves_a_clean_terminal() -> None:
    screen, before = Screen(80), (sys.stdout, sys.stderr)

    def sweep() -> None:
        with Display(80, console=console(screen)) as display:
            some_of_all(display)
            raise Invalid("a", "b", "c")

    with pytest.raises(Invalid):
        sweep()
    assert screen.cursor
    assert "running" not in screen.text
    assert "retried: weight_mask" in screen.text
    assert (sys.stdout, sys.stderr) == before


def test_a_terminal_that_is_made_narrower_keeps_no_pieces() -> None:
    screen, tally = Screen(200), Tally(80, 0)
    size = console(screen, 200)
    tally.end(outcome(0))
    for i in range(12):
        tally.start(str(i), "a name " * 8, i)
    block = ProgressPanel(tally, size)
    block.auto_refresh = False
    with block:
        for width in (200, 60, 17, 90):
            screen.resize(width)
            size.width = width
            block.refresh()
            assert screen.text.count("a name") >= 8
            shown = [row.rstrip() for row in screen.text.rstrip().split("\n")]
            assert shown == [line.plain.rstrip() for line in render_lines(tally, width, 40)]
        screen.resize(30)
        size.width = 30
    assert not screen.text.strip()


def test_what_is_printed_meanwhile_goes_where_it_belongs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    screen = Screen(80)
    with Display(80, console=console(screen)):
        print("a table")
        print("a warning", file=sys.stderr)
    assert capsys.readouterr().out == "a table\n"
    assert screen.text.strip() == "a warning"


def test_failures_are_red_unless_colours_are_unwanted(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown() -> str:
        screen = Screen(80)
        color_console = Console(file=screen, width=80, height=40, color_system="standard")
        with Display(80, console=color_console) as display:
            some_of_all(display)
        return screen.getvalue()

    assert "\x1b[31m1 failed\x1b[0m" in shown()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[\d;]*[34]\d", shown())
    assert "1 failed, 1 retried" in shown()


def test_a_name_moves_no_cursor() -> None:
    screen = Screen(80)
    with Display(80, console=console(screen)) as display:
        display.started("a", "two\nlines \x1b[5A:x: 学習", 0)
        display.reported("a", Said(1, note="resumed\rfrom"))
        until(lambda: "epoch" in screen.text)
        assert screen.rows[0] == "two lines  [5A:x: 学習: resumed from"
        assert "  0  two lines  [5A:x: 学習  epoch 1, 1 %" in screen.rows
        assert not screen.broken


@pytest.mark.parametrize(("width", "height"), [(200, 40), (80, 24), (40, 8), (10, 3), (1, 1)])
def test_no_line_is_wider_and_no_block_higher_than_the_terminal(width: int, height: int) -> None:
    tally = Tally(10**6, 10**5)
    for i in range(2000):
        tally.start(str(i), "学習" * (i % 60), i)
        tally.report(str(i), Said(i, 2000, i, {"validation/mse": 1.23456e-7}))
    for i, strategy in enumerate(["dense", "weight_mask", "gradient_mask", "projection"]):
        tally.end(outcome(i, strategy, accuracy=i / 10))
        tally.end(outcome(i, strategy, mse=10.0**-i))
    tally.away_s, tally.waiting = 1e7, 10**9
    panel = render_lines(tally, width, height)
    assert max(line.cell_len for line in panel) <= width
    assert len(panel) <= height
    if height >= 8:
        shown = min(8, height - 5 - 2)
        assert [line.plain.split()[0] for line in panel[5:-1]] == [str(i) for i in range(shown)]
        assert panel[-1].plain == f"  and {2000 - shown} more"


def test_without_unicode_the_bar_is_made_of_letters() -> None:
    tally = Tally(4, 1)
    assert render_lines(tally, 80, 24, utf=False)[0].plain.startswith("#" * 10 + "-" * 30 + "  1/4")


def test_the_best_is_the_highest_accuracy_and_the_lowest_error() -> None:
    tally = Tally(80, 0)
    nan = float("nan")
    for strategy, accuracy, mse in [
        ("dense", 0.5, 3021.4),
        ("dense", nan, nan),
        ("dense", 0.7, 2000.0),
        ("dense", 0.6, 4000.0),
        ("projection", nan, nan),
        ("gradient_mask", 0.8, 1e-5),
    ]:
        tally.end(outcome(0, strategy, accuracy=accuracy))
        tally.end(outcome(0, strategy, mse=mse))
    panel = [line.plain for line in render_lines(tally, 80, 24)]
    assert "best test accuracy: gradient_mask 0.800, dense 0.700" in panel
    assert "best test mse: gradient_mask 1e-05, dense 2000" in panel
    narrow = [row.plain for row in render_lines(tally, 50, 24)]
    assert "best test accuracy: gradient_mask 0.800, ..." in narrow


def test_workers_keep_their_order_and_long_names_end_in_dots() -> None:
    tally = Tally(10, 0)
    for worker in (2, 0, 1):
        tally.start(str(worker), "学習" * 15, worker)
        tally.report(str(worker), Said(199, 200, worker + 1))
    worker_lines = [line.plain for line in render_lines(tally, 60, 24)][-3:]
    assert worker_lines == [f"  {w}  {'学習' * 8}学 ...  epoch {w + 1}, 99 %" for w in range(3)]


def test_the_last_score_stays_until_there_is_another() -> None:
    tally = Tally(2, 0)
    tally.start("a", "name", 4)
    assert render_lines(tally, 80, 24)[-1].plain == "  4  name  starting"
    tally.report("a", Said(10, 200, 1, {"train/loss": 2.0, "train/mse": 0.5}))
    tally.report("a", Said(20, 200, 2))
    assert render_lines(tally, 80, 24)[-1].plain == "  4  name  epoch 2, 10 %  train 0.5"
    tally.report("a", Said(30, 200, 3, {"train/mse": 0.5, "validation/mse": 0.25}))
    assert render_lines(tally, 80, 24)[-1].plain == "  4  name  epoch 3, 15 %  validation 0.25"


# -- how long it takes -------------------------------------------------------------------------


def at_once(tally: Tally, clock: Clock, workers: int, seconds: float, rounds: int = 1) -> None:
    """Lets every worker run `rounds` trials, one after another, of `seconds` each."""
    for _ in range(rounds):
        first = tally.ended
        for i in range(workers):
            tally.start(outcome(first + i).trial.id, "", i)
        clock.now += seconds
        for i in range(workers):
            tally.end(outcome(first + i))


def test_the_first_result_tells_the_time_left_for_all_workers() -> None:
    clock = Clock()
    tally = Tally(40, 0, clock)
    assert tally.seconds_left() is None
    for i in range(4):
        tally.start(outcome(i).trial.id, "", i)
    clock.now += 10
    assert tally.seconds_left() is None
    tally.end(outcome(0))
    assert tally.seconds_left() == pytest.approx(36 * 10 / 4)  # the other three are about to end


def test_reports_tell_it_before_the_first_result() -> None:
    clock = Clock()
    tally = Tally(9, 0, clock)
    for i in range(2):
        tally.start(outcome(i).trial.id, "", i)
    clock.now += 1
    tally.report(outcome(0).trial.id, Said(5))
    # too early: 5 % are done, which is less than MIN_FRACTION_FOR_ESTIMATE
    assert tally.seconds_left() is None
    clock.now += 9
    for i in range(2):
        tally.report(outcome(i).trial.id, Said(50))
    assert tally.seconds_left() == pytest.approx((7 + 2 * 0.5) * 20 / 2)
    clock.now += 5  # the estimate goes on between reports
    assert tally.seconds_left() == pytest.approx((7 + 2 * 0.25) * 20 / 2)


def test_trials_that_never_ran_say_nothing_of_the_pace() -> None:
    clock = Clock()
    tally = Tally(100, 60, clock)
    for i in range(20, 27):
        tally.end(skipped(i))
    tally.start(skipped(27).trial.id, "", 0)
    clock.now += 0.1
    tally.end(skipped(27))
    clock.now += 60
    tally.start(outcome(50).trial.id, "", 0)
    assert tally.seconds_left() is None
    tally.retry(outcome(50).trial.id)
    at_once(tally, clock, 2, 10)
    assert tally.seconds_left() == pytest.approx((100 - 60 - 8 - 2) * 10 / 2)


def test_a_resumed_trial_counts_for_what_it_does_now() -> None:
    clock = Clock()
    tally = Tally(10, 0, clock)
    key = outcome(0).trial.id
    tally.start(key, "", 0)
    tally.report(key, Said(80, note="resumed from step 80"))
    assert tally.seconds_left() is None
    clock.now += 10
    tally.report(key, Said(92, note="a later note"))
    assert tally.seconds_left() == pytest.approx((9 + 0.08) * 10 / 0.12)
    clock.now += 5
    tally.end(outcome(0))
    assert tally.seconds_left() == pytest.approx(9 * 15 / 0.2)


def test_the_last_trial_has_one_worker_however_many_there_are() -> None:
    clock = Clock()
    tally = Tally(9, 0, clock)
    at_once(tally, clock, 8, 10)
    tally.start(outcome(8).trial.id, "", 0)
    assert tally.seconds_left() == pytest.approx(10)
    clock.now += 30
    assert tally.seconds_left() == 0
    tally.end(outcome(8))
    assert tally.seconds_left() is None
    assert "left" not in render_lines(tally, 80, 24)[0].plain


def test_time_between_trials_counts_and_workers_that_left_do_not() -> None:
    clock = Clock()
    tally = Tally(30, 0, clock)
    at_once(tally, clock, 2, 3)
    clock.now += 1  # time to record the results
    at_once(tally, clock, 2, 3)
    assert tally.seconds_left() == pytest.approx(26 * 3.5 / 2)
    clock.now += 60
    tally.start(outcome(4).trial.id, "", 1)  # the other worker has been idle for too long to count
    assert tally.seconds_left() == pytest.approx(26 * 3.5)


# -- elsewhere ---------------------------------------------------------------------------------


def test_elsewhere_there_are_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    out = io.StringIO()
    with Display(80, done=48, console=Console(file=out, width=40)) as display:
        some_of_all(display)
        display.reported(outcome(3).trial.id, Said(46, note="resumed from step 1200"))
        display.store(125, 35.6)
        display.store(0, 0.0)
        display.store(0, 0.0)
        display.ended(outcome(3, mse=3021.44))
        display.phase("Recording 124 results")
    assert out.getvalue().splitlines() == [
        "Running 32 of 80 trials (48 done) ...",
        "[49/80] weight_mask, random 0.5, seed 0: test accuracy 0.625",
        "[50/80] weight_mask, random 0.5, seed 1: failed: ValueError: [hidden_1/*] matches nothing",
        "retried: weight_mask, random 0.5, seed 2, on [hidden_1/*] (worker died)",
        "[51/80] weight_mask, random 0.5, seed 40: skipped: cannot",
        "store away for 35 s: 124 records wait on disk",
        "weight_mask, random 0.5, seed 3, on [hidden_1/*]: resumed from step 1200",
        "store is back",
        "[52/80] weight_mask, random 0.5, seed 3: test mse 3021",
        "Recording 124 results ...",
    ]


@pytest.mark.parametrize(("total", "said"), [(80, "Running 80 trials"), (1, "Running 1 trial")])
def test_the_first_line_says_how_many(total: int, said: str) -> None:
    out = io.StringIO()
    with Display(total, console=Console(file=out)):
        assert out.getvalue() == f"{said} ...\n"


@pytest.mark.parametrize("color", [False, True])
def test_what_is_done_is_said(
    color: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if color:
        monkeypatch.setenv("FORCE_COLOR", "1")
    with show_status("Starting Ray"):
        assert capsys.readouterr().err == "Starting Ray ...\n"


@pytest.mark.parametrize("terminal", by_default([True], [True, False]))
def test_ten_thousand_trials_take_few_lines_and_no_memory(terminal: bool) -> None:
    outcomes = [failed(i) if i % 100 == 50 else outcome(i) for i in range(10_000)]
    assert len({o.trial.id for o in outcomes}) == 10_000
    file = Screen(80) if terminal else io.StringIO()
    with Display(10_000, console=console(file)) as display:
        tracemalloc.start()
        used = []
        for part in range(2):
            for i, ended in enumerate(outcomes[part * 5000 :][:5000]):
                display.started(ended.trial.id, ended.name, i % 20)
                display.reported(ended.trial.id, Said(1))
                display.store(i, 0.0)
                display.ended(ended)
            used.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    printed = [line for line in CODES.sub("", file.getvalue()).splitlines() if line[:1] == "["]
    by_kind = {
        is_failed: len(list(group))
        for is_failed, group in groupby(sorted("failed" in text for text in printed))
    }
    assert by_kind == ({True: 100} if terminal else {True: 100, False: 100})
    assert used[1] - used[0] < 200_000
