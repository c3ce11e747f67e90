"""One sweep: run on Ray what is not done yet, record it, and say what came out."""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from masksweep.strategies.base import Invalid
from masksweep.sweeps.common.broken import Broken
from masksweep.sweeps.common.limits import HURRY_SECONDS, STATE
from masksweep.sweeps.common.signals import Stop, Stopped
from masksweep.sweeps.common.spinner import doing
from masksweep.sweeps.config import feasible
from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.config.plan import Planned, packs, public, refused, sweep_name, trials
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.driver import summary
from masksweep.sweeps.driver.progress import Display
from masksweep.sweeps.driver.summary import Ended
from masksweep.sweeps.launch.cluster import Spec, cluster
from masksweep.sweeps.launch.engine import Engine
from masksweep.sweeps.launch.job import Failure, Job, Watcher
from masksweep.sweeps.launch.worker import LOG_BYTES, Log, Task, TrialWork, portable
from masksweep.sweeps.report import build, claims, leak_atlas
from masksweep.sweeps.report.claims import Checked
from masksweep.sweeps.report.results_table import as_text, controls_hold
from masksweep.sweeps.results import Answer, TrialResult
from masksweep.sweeps.tracking import resume
from masksweep.sweeps.tracking.recorder import Recorder
from masksweep.sweeps.tracking.store import exists, store_uri
from masksweep.sweeps.tracking.writable import require_state, require_store
from masksweep.sweeps.training import checkpoint
from masksweep.sweeps.training.preflight import Ask, Child, check

KEPT = "What had finished is kept; the same command goes on."


class FailFast(Exception):
    """A trial failed, and the sweep is to stop at the first that does."""


def run(planned: Sequence[Planned], arguments: Sequence[str], *, rerun: bool = False) -> Ended:
    """Run and record every trial that is not done and not refused.

    With `rerun` those that are done run as well. Raises `Invalid` before the first trial starts,
    with nothing written.
    """
    name = sweep_name(planned[0].trial, arguments)
    try:
        ended = _run(planned, arguments, name, rerun)
    except Stopped as stopped:
        ended = Ended(exit_code=stopped.exit_code)
    except Broken as broken:
        ended = Ended(ended_by=f"{_stopped_by(broken)} {KEPT}")
    summary.after(ended, name, arguments)
    return ended


def _run(planned: Sequence[Planned], arguments: Sequence[str], name: str, rerun: bool) -> Ended:
    first = planned[0].trial
    require_state()
    require_store(first.tracking.uri)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(Stop())
        engine: Engine | None = None
        ask: Ask
        try:  # TensorFlow is loaded while the store is opened
            feasible.check([p.trial for p in planned])
            checkpoint.check(_checkpoints(first))
            if first.launch.address is None:
                ask = stack.enter_context(Child()).ask
            else:
                engine = _engine(stack, planned, name)
                ask = partial(_ask, engine)
        except Invalid as error:
            if not exists(store_uri(first.tracking.uri)):
                raise
            ask = partial(_raise, error)  # it does not matter if all is done
        planned, recorder, away = stack.enter_context(resume.opened(planned, name, rerun))
        summary.before(planned, away)
        if any(p.state == "to run" for p in planned):
            planned = _checked(planned, ask)
            if engine is None and any(p.state == "to run" for p in planned):
                engine = _engine(stack, planned, name)
        stop.gentle = True
        again = shlex.join(["masksweep", "run", *public(arguments)])[:4000]
        return Sweep(planned, recorder, stop, name, again, rerun).run(engine)


def _checked(planned: Sequence[Planned], ask: Ask) -> list[Planned]:
    """The plan with its refusals. Raises `Invalid` for a plan that cannot be made."""
    new = [p.trial for p in planned if p.state == "to run"]
    with doing(f"Checking {trials(len(new))}"):
        return refused(planned, check(new, ask))


def _raise(error: Invalid, given: Sequence[Trial]) -> Sequence[Answer]:
    raise error


def _ask(engine: Engine, given: Sequence[Trial]) -> Sequence[Answer]:
    """`preflight.answers` in a worker."""
    try:
        found: Sequence[Answer] = engine.ask("refusals", [portable(t) for t in given])
    except LookupError as error:
        raise Invalid("launch.address", given[0].launch.address, str(error)) from error
    return found


def _engine(stack: contextlib.ExitStack, planned: Sequence[Planned], name: str) -> Engine:
    """Workers for the trials that are to run, until the stack is closed."""
    first = planned[0].trial
    with doing("Starting Ray" if first.launch.address is None else "Joining Ray"):
        stack.enter_context(cluster(first.launch.address))
    jobs = _jobs(planned, name)
    work = TrialWork(_checkpoints(first), first.checkpoint.every_s)
    joined = first.launch.address is not None
    return stack.enter_context(Engine(jobs, work, joined=joined))


class Sweep(Watcher):
    """Hands what happens on to the recorder and the display."""

    def __init__(
        self,
        planned: Sequence[Planned],
        recorder: Recorder,
        stop: Stop,
        name: str,
        again: str,
        rerun: bool,
    ) -> None:
        """`again` is the command that runs it again."""
        self._planned, self._recorder, self._stop = planned, recorder, stop
        self._name, self._again, self._rerun = name, again, rerun
        self._question = planned[0].trial.sweep.question or ""
        self._launch = planned[0].trial.launch
        self._by_id = {p.trial.id: p for p in planned}
        self._outcomes = {
            p.trial.id: Outcome(p.trial, p.variant, p.found.result.status, p.found.result,
                                p.found.result.reason)
            for p in planned
            if p.found
        }  # fmt: skip
        self._display = Display(len(planned), done=len(self._outcomes))
        self._printed: dict[str, bytes] = {}
        self._where: dict[str, list[str]] = {}
        """Trials by what they ran on."""
        self._retries: dict[str, int] = {}
        self._logs: dict[str, Path] = {}
        self._ticked = 0.0
        self._ended_by = ""
        self._lost: list[str] = []
        """Trials that the store was given and does not have any more."""
        self._new = False
        """Whether a trial has ended here."""

    def run(self, engine: Engine | None) -> Ended:
        """Run what is to run, and record it until the store has all or its patience is over."""
        status, exit_code = "FAILED", 1
        checked: list[Checked] = []
        _logs(self._name).mkdir(parents=True, exist_ok=True)
        scores = list(dict.fromkeys(p.trial.score for p in self._planned))
        note = summary.note(self._question, self._again, [], [])
        plan = [p.described() for p in self._planned]
        tags = {"sweep.question": self._question, "sweep.command": self._again}
        self._recorder.start_sweep(note, plan, scores, tags)
        self._recorder.start()
        others = [p for p in self._planned if p.state != "to run"]
        with self._display:
            try:
                for p in others:
                    if p.state == "skipped":
                        self._end(p.trial.id, TrialResult("skipped", p.refusal))
                if engine:
                    engine.run(
                        self,
                        _jobs(self._planned, self._name),
                        max_retries=self._launch.max_retries,
                        timeout_s=self._launch.trial_timeout_s,
                    )
                checked = self._check_claims()
                well = all(o.status != "failed" for o in self._outcomes.values())
                well = well and not controls_hold(self._outcomes.values())
                well = well and all(c.passed is not False for c in checked)
                status, exit_code = ("FINISHED", 0) if well else ("FAILED", 1)
            except Stopped as stopped:
                status, exit_code = "KILLED", stopped.exit_code
            except FailFast as failed:
                self._ended_by = f"Stopped at {failed}, which failed (launch.fail_fast)."
            except Broken as broken:
                self._ended_by = f"{_stopped_by(broken)} {KEPT}"
            finally:
                found = [self._outcomes[k] for k in self._by_id if k in self._outcomes]
                self._recorder.kill_trials()
                note, files = self._told(found, checked, status)
                self._recorder.end_sweep(status, note, files, build.counts(found))
                exit_code = self._send_rest(exit_code)
        unsent, refused = self._recorder.waiting, self._recorder.refused
        trouble = self._recorder.trouble if unsent else ""
        return Ended(
            found, self._logs, exit_code, unsent, refused, trouble, self._ended_by, checked,
            len(self._lost),
        )  # fmt: skip

    def _told(
        self, found: Sequence[Outcome], checked: Sequence[Checked], status: str
    ) -> tuple[str, dict[str, bytes]]:
        """(the sweep's description, its files); where they cannot be made, without them.

        Whatever fails here must not keep the sweep's run from being closed.
        """
        try:
            note = summary.note(self._question, self._again, found, checked)
            files = {"table.txt": as_text(found, checked).encode(), **self._page(found)}
        except Exception as error:
            print(f"masksweep: no table was made: {error!r}", file=sys.stderr)
            return summary.note(self._question, self._again, [], []), {}
        if status != "KILLED" and self._new:
            self._display.phase("Drawing the report")
            files |= build.report(self._name, self._question, self._again, found, self._where)
        return note, files

    def _page(self, found: Sequence[Outcome]) -> dict[str, bytes]:
        """The page that the sweep asked for, also in the folder of logs."""
        if self._planned[0].trial.sweep.page is None:
            return {}
        made = {"leaks.html": leak_atlas.page(found, self._name).encode()}
        for name, content in made.items():
            with contextlib.suppress(OSError):  # the store has it too
                (_logs(self._name) / name).write_bytes(content)
        return made

    def _check_claims(self) -> list[Checked]:
        """The sweep's claims, once every trial has ended."""
        parts = {key: p.parts for key, p in self._by_id.items()}
        given = self._planned[0].trial.sweep.claims
        return claims.check(given, list(self._outcomes.values()), parts)

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
        # not after an interruption: whoever stopped it waits for it to end
        if exit_code <= 128 and (sent or not self._recorder.away_s):
            self._lost = self._recorder.lost(
                key for key, o in self._outcomes.items() if o.status != "failed"
            )
        return exit_code or int(not sent or bool(self._lost))

    # -- as the engine goes on -----------------------------------------------------------------

    def started(self, key: str, worker: int) -> None:
        trials = key.split()
        for one in trials:
            self._begin(one)
            self._display.started(one, self._by_id[one].name, worker, 1 / len(trials))

    def _begin(self, key: str) -> None:
        if key not in self._retries:
            self._retries[key] = 0
            p = self._by_id[key]
            _log(p, self._name).unlink(missing_ok=True)  # an earlier run's
            self._recorder.start_trial(p.trial, p.name, again=self._rerun)

    def event(self, key: str, event: Any) -> None:
        key, event = event
        if isinstance(event, Log):
            self._printed[key] = event.text.encode()
            return
        self._display.reported(key, event)
        if event.metrics:
            self._recorder.log(self._by_id[key].trial, event.epoch, event.metrics)

    def retried(self, key: str, reason: str) -> None:
        for one in key.split():
            self._retries[one] += 1
            self._display.retried(one, reason)

    def ended(self, key: str, result: Mapping[str, TrialResult | Failure] | Failure) -> None:
        trials = key.split()
        for one in trials:
            self._end(one, result if isinstance(result, Failure) else result[one])
        failed = next((t for t in trials if self._outcomes[t].status == "failed"), None)
        if failed and self._launch.fail_fast:
            raise FailFast(self._by_id[failed].name)

    def _end(self, key: str, result: TrialResult | Failure) -> None:
        self._new = True
        self._begin(key)  # it may fail before a worker has it
        p, retries = self._by_id[key], self._retries.pop(key)
        path, printed = _log(p, self._name), self._printed.pop(key, b"")
        if not printed and path.exists():  # the worker was killed before it could send it
            printed = path.read_bytes()[-LOG_BYTES:]
        files = {"log.txt": printed} if printed else {}
        if isinstance(result, Failure):
            outcome = Outcome(p.trial, p.variant, "failed", reason=result.reason)
            self._logs[key] = path
            if not path.exists():  # it was written on another machine, or never begun
                with contextlib.suppress(OSError):  # the store has it too
                    path.write_bytes(printed or result.traceback.encode())
            files["traceback.txt"] = result.traceback.encode()
            self._recorder.fail_trial(p.trial, result.reason, files, retries)
            if result.cause == "diverged":  # from its checkpoint it would do so again
                checkpoint.clear(_checkpoints(p.trial), key)
        else:
            if told := result.artifacts.get("environment.txt"):
                self._where.setdefault(told.decode(), []).append(p.name)
            kept = replace(result, artifacts={})  # a sweep's models would not fit into memory
            outcome = Outcome(p.trial, p.variant, result.status, kept, result.reason)
            result = replace(result, artifacts={**result.artifacts, **files})
            self._recorder.end_trial(p.trial, result, retries)
            checkpoint.clear(_checkpoints(p.trial), key)
        self._outcomes[key] = outcome
        self._display.ended(outcome)

    def tick(self) -> None:
        self._stop.check()
        self._show_store()

    def _show_store(self) -> None:
        if time.monotonic() - self._ticked > 1:
            self._ticked = time.monotonic()
            self._display.store(self._recorder.waiting, self._recorder.away_s)


def _stopped_by(broken: Broken) -> str:
    return f"The sweep was stopped: {broken}."


def _jobs(planned: Sequence[Planned], name: str) -> list[Job]:
    """Of what is to run."""
    return [_job(pack, name) for pack in packs([p for p in planned if p.state == "to run"])]


def _job(pack: Sequence[Planned], name: str) -> Job:
    """The job of trials that run side by side. Its key is their ids; alone, the trial's id."""
    first = pack[0].trial
    need = first.resources
    spec = Spec(need.num_cpus, need.num_gpus, need.memory, first.train.threads)
    tasks = [Task.of(p.trial, _log(p, name)) for p in pack]
    parts = tuple(_job([p], name) for p in pack) if len(pack) > 1 else ()
    # a short pack is filled up, so it takes as long as a full one
    return Job(" ".join(t.id for t in tasks), tasks, spec, first.width, parts)


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
