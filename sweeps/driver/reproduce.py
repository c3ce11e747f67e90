"""`masksweep reproduce`: runs a trial again from its config file, and compares the results."""

from __future__ import annotations

import argparse
import sys
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.audit.opening import exists
from masksweep.sweeps.common import escape
from masksweep.sweeps.common.limits import INTERRUPTED_SEND_SECONDS, STATE_FOLDER
from masksweep.sweeps.common.parser import Parser
from masksweep.sweeps.common.redact import redact
from masksweep.sweeps.common.signals import SignalHandler
from masksweep.sweeps.common.spinner import show_status
from masksweep.sweeps.common.text import printable
from masksweep.sweeps.components import plugins
from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.config.plan import PlannedTrial
from masksweep.sweeps.config.sections import Tracking
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.driver.compare_runs import Verdict, compare
from masksweep.sweeps.driver.progress import Display
from masksweep.sweeps.driver.sweep_jobs import jobs
from masksweep.sweeps.driver.trial_watcher import TrialWatcher
from masksweep.sweeps.launch.local_process import LocalProcess
from masksweep.sweeps.launch.worker import TrialWork
from masksweep.sweeps.tracking import resume, run_config
from masksweep.sweeps.tracking.recorder import Recorder
from masksweep.sweeps.tracking.run_config import RecordedResults
from masksweep.sweeps.tracking.sender import Sender
from masksweep.sweeps.tracking.spool import Spool
from masksweep.sweeps.tracking.store import REPRODUCTION_PREFIX, RUN_ID, StoreUnavailable, store_uri
from masksweep.sweeps.tracking.writable import require_state, require_store
from masksweep.sweeps.tracking.writer import Tracker
from masksweep.sweeps.training import checkpoint


@dataclass(frozen=True)
class Target:
    """A recorded run that is to be run again."""

    source: str
    """The run's id or the file's path, as it was given on the command line."""
    trial: Trial
    recorded: RecordedResults

    @property
    def tags(self) -> dict[str, str]:
        """Tags of the new run that name the run it reproduces."""
        run = {"reproduces": self.source} if RUN_ID.fullmatch(self.source) else {}
        return {**run, "reproduces.trial": self.recorded.trial}


def reproduce(arguments: Sequence[str]) -> int:
    """Runs `masksweep reproduce RUN_ID | FILE`, and returns the exit code.

    Returns:
        0 if all results are the same, at least within the tolerance of rounding, and are recorded;
        else 1.

    Raises:
        Invalid: There is no such run or file, or it cannot be read.
    """
    about = "Run a trial again, and compare."
    parser = Parser("masksweep reproduce", description=about, epilog=plugins.HELP)
    parser.add_argument("what", metavar="RUN_ID | config.yaml", help="a run, or its config file")
    parser.add_argument(
        "--sweep", action="store_true", help="all trials of a sweep, by name or run id"
    )
    parser.add_argument("--uri", help="as tracking.uri; default: the store that run uses")
    parser.add_argument(
        "--data", metavar="PATH", help="where the data are, if they were too large for a copy"
    )
    options = parser.parse_args(arguments)
    if options.data is not None and not exists("--data", options.data):
        raise Invalid("--data", options.data, "no such file or folder")
    with tempfile.TemporaryDirectory() as folder:
        targets = _targets(options, Path(folder))
        return _reproduce_all(targets, options.what, options.uri, Path(folder))


def _targets(options: argparse.Namespace, folder: Path) -> list[Target]:
    """Returns the trials to run again; files of runs in the store are copied into the folder."""
    source, sweep, uri = options.what, options.sweep, options.uri
    data = None if options.data is None else str(Path(options.data).absolute())
    path = Path(source)
    if not sweep and exists("reproduce", source) and path.is_file():
        return [_target(source, path, data)]
    if not sweep and not RUN_ID.fullmatch(source):
        raise Invalid("reproduce", source, "neither a file nor the id of a run (32 hex digits)")
    from masksweep.sweeps.tracking import stored_runs

    try:
        with show_status(f"Fetching run {source}"):
            targets = []
            for run in stored_runs.finished_run_ids(uri, source) if sweep else [source]:
                run_folder = folder / run
                run_folder.mkdir()
                files = stored_runs.download(uri, run, run_config.is_file_of_run, run_folder)
                if run_config.FILE_NAME not in files:
                    raise Invalid("run", run, f"has no {run_config.FILE_NAME}: no trial's run")
                targets.append(_target_of_run(run, run_folder, data))
            return targets
    except StoreUnavailable as error:
        raise Invalid(
            "tracking.uri", redact(store_uri(uri)), f"cannot be reached: {error}"
        ) from error


def _target(name: str, path: Path, data: str | None) -> Target:
    """Reads a run's config file, which must have recorded results."""
    trial, recorded = run_config.read(path, data)
    if recorded is None:
        allowed = f"without `{run_config.RESULTS_KEY}`, which a run's has when it has ended well"
        raise Invalid("config", path, allowed)
    if trial.data.is_elsewhere:
        allowed = "was not copied, as it is a folder or large; name it with --data PATH"
        raise Invalid("data.path", getattr(trial.data, "path", ""), allowed)
    return Target(name, trial, recorded)


def _target_of_run(run: str, folder: Path, data: str | None) -> Target:
    """Reads the config file of a run, which was copied into the folder."""
    try:
        return _target(run, folder / run_config.FILE_NAME, data)
    except Invalid as error:
        raise Invalid("run", run, str(error).replace(f"{folder}/", "")) from error


def _reproduce_all(targets: Sequence[Target], source: str, uri: str | None, folder: Path) -> int:
    """Runs, records and compares all targets, and returns the exit code."""
    first, tracking = targets[0], Tracking(uri=uri)
    require_state()
    require_store(uri)
    label = f"{first.trial.name}, {first.recorded.trial[:8]}"
    name = f"{REPRODUCTION_PREFIX}{label if len(targets) == 1 else source}"
    verdicts: dict[str, Verdict | str] = {}
    with Spool.open_exclusively(resume.address(tracking, name)) as spool:
        with show_status("Opening the store"):
            tracker = _open_store(tracking, name)
        # the first signal stops the run between two records, a second one stops it immediately
        with SignalHandler(deferred=True) as stop:
            recorder = Recorder(spool, Sender(spool, tracking, name, tracker))
            files = plugins.recorded_files()
            recorder.start_sweep(f"Again, from the config of `{source}`.", [], files=files)
            recorder.sender.start()
            status = "KILLED"
            try:
                with Display(len(targets)) as display:
                    _run(targets, recorder, display, verdicts, folder, stop.check)
                status = "FINISHED"
            finally:
                recorder.kill_trials()
                text = "".join(f"{line}\n" for line in _result_lines(targets, verdicts))
                recorder.end_sweep(status, f"```\n{text}```", {"verdict.txt": text.encode()})
                if status == "KILLED":
                    sent = recorder.sender.finish(INTERRUPTED_SEND_SECONDS, hurry=True)
                else:
                    sent = recorder.sender.finish(tracking.patience_s, stop.check)
                if not sent:
                    print(f"Not all is recorded ({recorder.sender.trouble}).", file=sys.stderr)
                    print("Send the rest with: masksweep sync", file=sys.stderr)
    console = escape.console()
    for line in _result_lines(targets, verdicts):
        different = line.startswith(("verdict: different", "failed"))
        styled = different or line.startswith("verdict")
        console.print(Text(line, ("bold red" if different else "green") * styled), soft_wrap=True)
    same = all(isinstance(v, Verdict) and v.is_same for v in verdicts.values())
    return int(not (same and sent))


def _open_store(tracking: Tracking, name: str) -> Tracker | None:
    """Opens the store before time is spent on training.

    Returns None if the store is away; the records then wait on disk.
    """
    try:
        return Tracker(tracking, name)
    except StoreUnavailable as error:
        message = f"The tracking store cannot be reached ({error}); results are kept on disk."
        print(message, file=sys.stderr)
        return None


class _ReproductionWatcher(TrialWatcher):
    """Compares each trial with what was recorded of it, when it ends."""

    def __init__(
        self,
        targets: Sequence[Target],
        verdicts: dict[str, Verdict | str],
        recorder: Recorder,
        display: Display,
        logs: Path,
        checkpoints: str,
        tick: Callable[[], None],
    ) -> None:
        super().__init__(
            _planned(targets),
            recorder,
            display,
            logs=logs,
            checkpoints=checkpoints,
            rerun=True,
            tags={t.trial.id: t.tags for t in targets},
        )
        self._recorded = {t.trial.id: t.recorded for t in targets}
        self._verdicts, self._tick = verdicts, tick

    def tick(self) -> None:
        self._tick()

    def trial_recorded(self, outcome: Outcome, record: RecordedResults | None) -> None:
        key = outcome.trial.id
        before = self._recorded[key]
        self._verdicts[key] = compare(before, record) if record else outcome.reason
        checkpoint.clear(self._checkpoints, key)


def _planned(targets: Sequence[Target]) -> list[PlannedTrial]:
    return [PlannedTrial(t.trial, ()) for t in targets]


def _run(
    targets: Sequence[Target],
    recorder: Recorder,
    display: Display,
    verdicts: dict[str, Verdict | str],
    folder: Path,
    tick: Callable[[], None],
) -> None:
    """Runs and records the targets.

    Adds to `verdicts`, by trial id: the verdict, or the reason why the trial failed.
    """
    # not a temporary folder: records that still wait refer to large files in this folder
    checkpoints = (STATE_FOLDER / "reproduced" / uuid.uuid4().hex).absolute()
    watcher = _ReproductionWatcher(
        targets, verdicts, recorder, display, folder, str(checkpoints), tick
    )
    work = TrialWork(str(checkpoints), every_s=1e9)
    try:
        with LocalProcess(work) as process:
            process.run(watcher, jobs(_planned(targets), folder))
    finally:
        checkpoint.clear(str(checkpoints), "rounds")
        for empty in (checkpoints, checkpoints.parent, STATE_FOLDER):
            with suppress(OSError):
                empty.rmdir()


def _result_lines(targets: Sequence[Target], verdicts: Mapping[str, Verdict | str]) -> list[str]:
    """Returns the lines that are shown to the user.

    Of a single trial these are all lines. Of several trials these are the lines of those that are
    not identical, and the counts.
    """
    lines: list[str] = []
    words: dict[str, int] = {}
    for target in targets:
        verdict = verdicts.get(target.trial.id)
        if verdict is None:
            continue  # the run was interrupted before this trial
        word = "failed" if isinstance(verdict, str) else verdict.agreement
        words[word] = words.get(word, 0) + 1
        if len(targets) > 1 and word == "identical":
            continue
        lines += [f"{target.source}: {target.trial.name}"]
        lines += [f"failed: {verdict}"] if isinstance(verdict, str) else verdict.explanation()
    if len(targets) > 1:
        lines.append(", ".join(f"{count} {word}" for word, count in words.items()))
    # a file from someone else may hold control characters
    return [printable(line) for line in lines]
