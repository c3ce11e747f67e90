"""Running a trial again from its config file alone, and saying whether it came to the same."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.text import Text

from strategies.base import Invalid
from sweeps import configfile, resume
from sweeps.cluster import Spec
from sweeps.comparison import Verdict, compare
from sweeps.config import Trial
from sweeps.configfile import Recorded
from sweeps.job import Failure
from sweeps.progress import Display, doing
from sweeps.recorder import Recorder
from sweeps.report import Outcome
from sweeps.sections import Tracking
from sweeps.spool import Spool
from sweeps.store import RUN_ID, Away, store_uri
from sweeps.trial import Report, TrialResult
from sweeps.uri import shown
from sweeps.worker import Log, Task, TrialWork


@dataclass(frozen=True)
class Target:
    """A recorded run that is to be run again."""

    said: str
    """The run's id, or the file, as it was asked for."""
    trial: Trial
    recorded: Recorded

    @property
    def reproduces(self) -> str:
        return self.said if RUN_ID.fullmatch(self.said) else self.recorded.run


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Invalid("reproduce", "", f"{message}; see masksweep reproduce --help")


def reproduce(arguments: Sequence[str]) -> int:
    """`masksweep reproduce RUN_ID | FILE`: 0 if the same came out, to rounding at most; 1 if not.

    Raises `Invalid` where there is nothing to run again, or it cannot be read.
    """
    parser = _Parser("masksweep reproduce", description="Run a trial again, and compare.")
    parser.add_argument("what", metavar="RUN_ID | config.yaml", help="a run, or its config file")
    parser.add_argument("--sweep", action="store_true", help="the run is a sweep: all its trials")
    parser.add_argument("--uri", help="as tracking.uri; default: the store that run uses")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        targets = _targets(given.what, given.sweep, given.uri, Path(folder))
        return _reproduced(targets, given.what, Tracking(uri=given.uri), Path(folder))


def _targets(what: str, sweep: bool, uri: str | None, folder: Path) -> list[Target]:
    path = Path(what)
    if path.is_file() and not sweep:
        return [_target(what, path)]
    if not RUN_ID.fullmatch(what):
        raise Invalid("reproduce", what, "no such file, and no run's id, which is 32 hex digits")
    from sweeps import reader

    try:
        with doing(f"Fetching run {what}"):
            found = []
            for run in reader.trials_of(uri, what) if sweep else [what]:
                own = folder / run
                own.mkdir()
                if configfile.NAME not in reader.download(uri, run, configfile.FILES, own):
                    raise Invalid("run", run, f"has no {configfile.NAME}: no trial's run")
                found.append(_of_run(run, own))
            return found
    except Away as error:
        raise Invalid("tracking.uri", shown(store_uri(uri)), f"is away: {error}") from error


def _target(said: str, path: Path) -> Target:
    trial, recorded = configfile.read(path)
    if recorded is None:
        allowed = f"without `{configfile.BLOCK}`, which a run's has when it has ended well"
        raise Invalid("config", path, allowed)
    return Target(said, trial, recorded)


def _of_run(run: str, folder: Path) -> Target:
    try:
        return _target(run, folder / configfile.NAME)
    except Invalid as error:
        raise Invalid("run", run, str(error).replace(f"{folder}/", "")) from error


def _reproduced(targets: Sequence[Target], what: str, tracking: Tracking, folder: Path) -> int:
    """Run, record and compare all of them; the exit code."""
    name = f"reproduces {targets[0].trial.name if len(targets) == 1 else what}"
    verdicts: list[tuple[Target, Verdict | str]] = []
    with ExitStack() as stack:
        spool = stack.enter_context(Spool.held(resume.address(tracking, name)))
        recorder = Recorder(spool, tracking, name, None)
        recorder.start_sweep(f"Again, from the config of `{what}`.", [])
        recorder.start()
        status = "KILLED"
        try:
            with Display(len(targets)) as display:
                for target, event in _events(targets, folder):
                    trial = target.trial
                    match event:
                        case None:
                            tags = {"reproduces": target.reproduces}
                            recorder.start_trial(trial, trial.name, again=True, tags=tags)
                            display.started(trial.id, trial.name, 0, 1)
                        case Report():
                            display.reported(trial.id, event)
                            recorder.log(trial, event.epoch, event.metrics)
                        case TrialResult():
                            now = recorder.end_trial(trial, event)
                            verdicts.append((target, compare(target.recorded, now)))
                            display.ended(Outcome(trial, "", event.status, event, event.reason))
                        case Failure():
                            files = {"traceback.txt": event.traceback.encode()}
                            recorder.fail_trial(trial, event.reason, files)
                            verdicts.append((target, event.reason))
                            display.ended(Outcome(trial, "", "failed", reason=event.reason))
            status = "FINISHED"
        finally:
            recorder.kill_trials()
            text = "".join(f"{line}\n" for line in _lines(verdicts))
            recorder.end_sweep(status, f"```\n{text}```", {"verdict.txt": text})
            sent = recorder.finish(tracking.patience_s)
    console = Console()
    for line in _lines(verdicts):
        good = not line.startswith(("verdict: different", "failed"))
        styled = line.startswith(("verdict", "failed"))
        console.print(Text(line, ("green" if good else "bold red") * styled), soft_wrap=True)
    if not sent:
        console.print(f"Not all is recorded ({recorder.trouble}); masksweep sync sends the rest.")
    well = all(isinstance(v, Verdict) and v.good for _, v in verdicts)
    return int(not (well and sent))


def _lines(verdicts: Sequence[tuple[Target, Verdict | str]]) -> list[str]:
    """What a person reads: all of one trial; of several only what is amiss, and the counts."""
    lines: list[str] = []
    words: dict[str, int] = {}
    for target, verdict in verdicts:
        word = "failed" if isinstance(verdict, str) else verdict.word
        words[word] = words.get(word, 0) + 1
        if len(verdicts) > 1 and word == "identical":
            continue
        lines += [f"{target.said}: {target.trial.name}"]
        lines += [f"failed: {verdict}"] if isinstance(verdict, str) else verdict.lines()
    if len(verdicts) > 1:
        lines.append(", ".join(f"{count} {word}" for word, count in words.items()))
    return lines


Event = Report | TrialResult | Failure | None
"""None is the start of a trial."""


def _events(targets: Sequence[Target], folder: Path) -> Iterator[tuple[Target, Event]]:
    """Run the trials, each after the other; processes are what a sweep's workers would be."""
    groups: dict[Spec, list[Target]] = {}
    for target in targets:
        need = target.trial.resources
        spec = Spec(1, need.num_gpus, need.memory, target.trial.train.threads)
        groups.setdefault(spec, []).append(target)
    context = get_context("spawn")
    for spec, members in groups.items():
        mine, theirs = context.Pipe()
        tasks = [Task.of(t.trial, folder / f"{i}.log") for i, t in enumerate(members)]
        process = context.Process(target=_run, args=(theirs, spec, tasks), daemon=True)
        process.start()
        theirs.close()
        try:
            for target in members:
                yield target, None
                yield from ((target, event) for event in _of_one(mine))
        finally:
            process.kill()
            process.join()
            mine.close()


def _of_one(pipe: Connection) -> Iterator[Event]:
    """The events of one trial, its end the last."""
    while True:
        try:
            event = pipe.recv()
        except (EOFError, ConnectionError):
            event = Failure("its process ended", "its process ended", "lost")
        if isinstance(event, Report | TrialResult | Failure):
            yield event
        if isinstance(event, TrialResult | Failure):
            return


def _run(pipe: Connection, spec: Spec, tasks: Sequence[Task]) -> None:
    # TensorFlow greets on stderr, past every setting; what goes wrong is sent to the parent
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    # nothing to go on from, and nothing kept
    work = TrialWork("memory://reproduce", every_s=1e9)
    work.setup(spec)

    def emit(event: Any) -> None:
        if isinstance(event, tuple) and not isinstance(event[1], Log):
            pipe.send(event[1])

    for task in tasks:
        found = work.run([task], emit)
        pipe.send(found if isinstance(found, Failure) else found[task.id])
