"""One sweep as it goes on: each event is shown and recorded, and its end says what came out."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from masksweep.sweeps.common.broken import Broken
from masksweep.sweeps.common.limits import HURRY_SECONDS
from masksweep.sweeps.common.signals import Stop, Stopped
from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.config.plan import Planned
from masksweep.sweeps.driver import summary
from masksweep.sweeps.driver.progress import Display
from masksweep.sweeps.driver.summary import Ended
from masksweep.sweeps.driver.sweep_jobs import checkpoint_folder, jobs, log_file, log_folder
from masksweep.sweeps.launch.engine import Engine
from masksweep.sweeps.launch.job import Failure, Watcher
from masksweep.sweeps.launch.worker import LOG_BYTES, Log
from masksweep.sweeps.report import build, claims, leak_atlas
from masksweep.sweeps.report.claims import Checked
from masksweep.sweeps.report.results_table import as_text, controls_hold
from masksweep.sweeps.results import TrialResult
from masksweep.sweeps.tracking.recorder import Recorder
from masksweep.sweeps.training import checkpoint

KEPT = "What had finished is kept; the same command goes on."


class FailFast(Exception):
    """A trial failed, and the sweep is to stop at the first that does."""


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
        log_folder(self._name).mkdir(parents=True, exist_ok=True)
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
                        jobs(self._planned, self._name),
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
                self._ended_by = f"The sweep was stopped: {broken}. {KEPT}"
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
                (log_folder(self._name) / name).write_bytes(content)
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
            log_file(p, self._name).unlink(missing_ok=True)  # an earlier run's
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
        path, printed = log_file(p, self._name), self._printed.pop(key, b"")
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
                checkpoint.clear(checkpoint_folder(p.trial), key)
        else:
            if told := result.artifacts.get("environment.txt"):
                self._where.setdefault(told.decode(), []).append(p.name)
            kept = replace(result, artifacts={})  # a sweep's models would not fit into memory
            outcome = Outcome(p.trial, p.variant, result.status, kept, result.reason)
            result = replace(result, artifacts={**result.artifacts, **files})
            self._recorder.end_trial(p.trial, result, retries)
            checkpoint.clear(checkpoint_folder(p.trial), key)
        self._outcomes[key] = outcome
        self._display.ended(outcome)

    def tick(self) -> None:
        self._stop.check()
        self._show_store()

    def _show_store(self) -> None:
        if time.monotonic() - self._ticked > 1:
            self._ticked = time.monotonic()
            self._display.store(self._recorder.waiting, self._recorder.away_s)
