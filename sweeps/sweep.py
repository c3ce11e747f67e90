"""One sweep: run on Ray what is not done yet, record it, and say what came out."""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from rich.console import Console

from sweeps import checkpoint, engine, resume
from sweeps.cluster import Spec, cluster, slots
from sweeps.config import Trial, recorded
from sweeps.job import Failure, Job, Watcher, Work
from sweeps.launcher import Composed
from sweeps.plan import Planned, counted, derived_name, preflight, public, trials
from sweeps.progress import Display, doing
from sweeps.recorder import Recorder
from sweeps.report import Outcome, as_markdown, as_text, controls_hold, table
from sweeps.spool import STATE
from sweeps.stopping import Stop, Stopped
from sweeps.trial import TrialResult
from sweeps.worker import Log, Task, TrialWork

HURRY_SECONDS = 3.0
"""How long the end of a sweep waits for the store after Ctrl-C."""


class FailFast(Exception):
    """A trial failed, and the sweep is to stop at the first that does."""


@dataclass
class Ended:
    """What came out of a sweep."""

    outcomes: list[Outcome] = field(default_factory=list)
    """Of the trials that ended, in this run or an earlier one, in the plan's order."""
    logs: dict[str, Path] = field(default_factory=dict)
    """Log of each trial that failed, by trial id."""
    exit_code: int = 1
    unsent: int = 0
    """Records that the store does not have."""
    refused: Sequence[str] = ()
    """Why the store would not take records."""
    trouble: str = ""
    """Why the store could not be reached, if records wait for it."""
    ended_by: str = ""
    """Why not every trial was run, if that was a trial's doing."""


def run(
    planned: Sequence[Planned], arguments: Sequence[str], *, rerun: bool = False
) -> tuple[list[Outcome], int]:
    """Run and record every trial that is not done and not refused; outcomes and exit code.

    With `rerun` those that are done run as well. Raises `Invalid` before the first trial starts,
    with nothing written.
    """
    name = planned[0].trial.sweep.name or derived_name(arguments)
    try:
        ended = _run(planned, arguments, name, rerun)
    except Stopped as stopped:
        ended = Ended(exit_code=stopped.exit_code)
    _summary(ended, name, arguments)
    return ended.outcomes, ended.exit_code


def _run(planned: Sequence[Planned], arguments: Sequence[str], name: str, rerun: bool) -> Ended:
    first = planned[0].trial
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(Stop())
        planned, recorder, away = stack.enter_context(resume.opened(planned, name, rerun))
        _say_plan(planned, away)
        if new := sum(p.state == "to run" for p in planned):
            with doing(f"Checking {trials(new)}"):
                planned = preflight(planned)
        jobs = [_job(p, name) for p in planned if p.state == "to run"]
        if jobs:
            with doing("Starting Ray" if first.launch.address is None else "Joining Ray"):
                stack.enter_context(cluster(first.launch.address))
            stop.install()
            for spec in {job.spec for job in jobs}:
                slots(spec)
            checkpoint.check(_checkpoints(first))
        stop.gentle = True
        work = TrialWork(_checkpoints(first), first.checkpoint.every_s)
        whole = Sweep(planned, recorder, stop, name, _note(first, arguments), rerun)
        return whole.run(jobs, work)


class Sweep(Watcher):
    """Hands what happens on to the recorder and the display."""

    def __init__(
        self,
        planned: Sequence[Planned],
        recorder: Recorder,
        stop: Stop,
        name: str,
        note: str,
        rerun: bool,
    ) -> None:
        self._planned, self._recorder, self._stop = planned, recorder, stop
        self._name, self._note, self._rerun = name, note, rerun
        self._launch = planned[0].trial.launch
        self._by_id = {p.trial.id: p for p in planned}
        self._outcomes = {
            p.trial.id: Outcome(p.trial, p.variant, p.found.result.status, p.found.result,
                                p.found.result.reason)
            for p in planned
            if p.found
        }  # fmt: skip
        self._display = Display(len(planned), done=len(self._outcomes))
        self._printed: dict[str, str] = {}
        self._retries: dict[str, int] = {}
        self._logs: dict[str, Path] = {}
        self._ticked = 0.0
        self._ended_by = ""

    def run(self, jobs: Sequence[Job], work: Work) -> Ended:
        """Run the jobs, and record them until the store has all or its patience is over."""
        status, exit_code = "FAILED", 1
        _logs(self._name).mkdir(parents=True, exist_ok=True)
        self._recorder.start_sweep(self._note, [p.described() for p in self._planned])
        self._recorder.start()
        with self._display:
            try:
                for p in self._planned:
                    if p.state == "skipped":
                        self._start(p.trial.id)
                        self.ended(p.trial.id, TrialResult("skipped", p.refusal))
                if jobs:
                    engine.run(
                        jobs,
                        work,
                        self,
                        max_retries=self._launch.max_retries,
                        timeout_s=self._launch.trial_timeout_s,
                    )
                well = all(o.status != "failed" for o in self._outcomes.values())
                well = well and not controls_hold(self._outcomes.values())
                status, exit_code = ("FINISHED", 0) if well else ("FAILED", 1)
            except Stopped as stopped:
                status, exit_code = "KILLED", stopped.exit_code
            except FailFast as failed:
                self._ended_by = f"Stopped at {failed}, which failed (launch.fail_fast)."
            finally:
                found = [self._outcomes[k] for k in self._by_id if k in self._outcomes]
                self._recorder.kill_trials()
                note = f"{as_markdown(found)}\n{self._note}"
                self._recorder.end_sweep(status, note, as_text(found))
                exit_code = self._send_rest(exit_code)
        unsent, refused = self._recorder.waiting, self._recorder.refused
        trouble = self._recorder.trouble if unsent else ""
        return Ended(found, self._logs, exit_code, unsent, refused, trouble, self._ended_by)

    def _send_rest(self, exit_code: int) -> int:
        """Wait until the store has all, or patience is over; the exit code of the sweep."""
        self._display.phase("Sending the last results to the store")
        patience = self._planned[0].trial.tracking.patience_s
        try:
            if exit_code > 128:
                sent = self._recorder.finish(min(HURRY_SECONDS, patience), hurry=True)
            else:
                sent = self._recorder.finish(patience, self.tick)
        except Stopped as stopped:
            return stopped.exit_code
        return exit_code if sent or exit_code else 1

    # -- as the engine goes on -----------------------------------------------------------------

    def started(self, key: str, worker: int) -> None:
        if key not in self._retries:
            self._start(key)
            self._retries[key] = 0
        self._display.started(key, self._by_id[key].name, worker)

    def _start(self, key: str) -> None:
        p = self._by_id[key]
        self._recorder.start_trial(p.trial, p.name, again=self._rerun)

    def event(self, key: str, event: Any) -> None:
        if isinstance(event, Log):
            self._printed[key] = event.text
            return
        self._display.reported(key, event)
        if event.metrics:
            self._recorder.log(self._by_id[key].trial, event.epoch, event.metrics)

    def retried(self, key: str, reason: str) -> None:
        self._retries[key] += 1
        self._display.retried(key, reason)

    def ended(self, key: str, result: TrialResult | Failure) -> None:
        p, retries = self._by_id[key], self._retries.pop(key, 0)
        log = self._printed.pop(key, "")
        files = {"log.txt": log.encode()} if log else {}
        if isinstance(result, Failure):
            outcome = Outcome(p.trial, p.variant, "failed", reason=result.reason)
            self._logs[key] = path = _log(p, self._name)
            if not path.exists():  # it was written on another machine, or never begun
                path.write_text(log or result.traceback)
            files["traceback.txt"] = result.traceback.encode()
            self._recorder.fail_trial(p.trial, result.reason, files, retries)
            if result.cause == "diverged":  # from its checkpoint it would do so again
                checkpoint.clear(_checkpoints(p.trial), key)
        else:
            kept = replace(result, artifacts={})  # a sweep's models would not fit into memory
            outcome = Outcome(p.trial, p.variant, result.status, kept, result.reason)
            result = replace(result, artifacts={**result.artifacts, **files})
            self._recorder.end_trial(p.trial, result, retries)
            checkpoint.clear(_checkpoints(p.trial), key)
        self._outcomes[key] = outcome
        self._display.ended(outcome)
        if outcome.status == "failed" and self._launch.fail_fast:
            raise FailFast(p.name)

    def tick(self) -> None:
        self._stop.check()
        self._show_store()

    def _show_store(self) -> None:
        if time.monotonic() - self._ticked > 1:
            self._ticked = time.monotonic()
            self._display.store(self._recorder.waiting, self._recorder.away_s)


def _say_plan(planned: Sequence[Planned], away: str) -> None:
    done = any(p.found for p in planned)
    if away:
        print(f"The store is away ({away}); results wait on disk.", file=sys.stderr)
    if done:
        print(f"{counted(planned)}.", file=sys.stderr)
        if warning := resume.other_code(planned):
            print(warning, file=sys.stderr)


def _summary(ended: Ended, name: str, arguments: Sequence[str]) -> None:
    if ended.outcomes:
        console = Console()
        console.print()
        console.print(table(ended.outcomes))
    for outcome in ended.outcomes:
        if outcome.status != "ok":
            log = ended.logs.get(outcome.trial.id)
            where = f"  (log: {log})" if log else ""
            print(f"{outcome.status}: {outcome.name}: {outcome.reason}{where}")
    if ended.refused:
        print(f"The store refused records: {'; '.join(ended.refused)}", file=sys.stderr)
    if ended.unsent:
        waiting = f"{ended.unsent} records wait on disk, in {STATE / 'spool'}."
        print(f"{waiting} Send them with: masksweep sync", file=sys.stderr)
        if ended.trouble:
            print(f"The store could not be reached: {ended.trouble}", file=sys.stderr)
    if ended.ended_by:
        print(ended.ended_by, file=sys.stderr)
    if ended.exit_code > 128:
        again = shlex.join(["masksweep", "run", *(a for a in arguments if a != "--rerun")])
        print(f"Interrupted; what had finished is kept. Go on with:\n  {again}", file=sys.stderr)
    if ended.outcomes:
        print(f"\nOpen the results with: masksweep ui   (sweep {name!r})")


def returned(job: Composed, trial: Trial, outcome: Outcome | None) -> JobReturn:
    """What a sweeper gets back for a job: its trial's objective."""
    found = JobReturn(overrides=list(job.overrides), cfg=job.config, status=JobStatus.COMPLETED)
    if outcome is not None and outcome.status == "failed":
        found.status = JobStatus.FAILED
        found.return_value = RuntimeError(outcome.reason)
    elif outcome is not None:
        found.return_value = outcome.result.metrics.get(trial.objective)
    return found


def _job(planned: Planned, name: str) -> Job:
    trial = planned.trial
    need = trial.resources
    spec = Spec(need.num_cpus, need.num_gpus, need.memory, trial.train.threads)
    config = recorded(trial)
    for group in ("pattern", "held"):
        if path := config[group].get("path"):
            # a worker's current folder is its own
            config[group]["path"] = str(Path(path).absolute())
    log = _log(planned, name)
    return Job(trial.id, Task(config, str(log.absolute())), spec)


def _log(planned: Planned, name: str) -> Path:
    """The file of a trial's log."""
    return _logs(name) / f"{_as_file(planned.name)}-{planned.trial.id[:8]}.log"


def _logs(name: str) -> Path:
    return STATE / "logs" / _as_file(name)


def _as_file(text: str) -> str:
    return re.sub(r"[^\w.=-]+", "_", text)[:80]


def _checkpoints(trial: Trial) -> str:
    given = trial.checkpoint.path or str(STATE / "checkpoints")
    return given if "://" in given else str(Path(given).absolute())


def _note(first: Trial, arguments: Sequence[str]) -> str:
    command = shlex.join(["masksweep", "run", *public(arguments)])
    again = f"Run again with\n\n    {command[:4000]}\n"
    return "\n\n".join(filter(None, [first.sweep.question, again]))
