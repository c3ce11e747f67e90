"""One running sweep: records and shows its trials, and closes it with its results."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping, Sequence

from masksweep.sweeps.common.limits import INTERRUPTED_SEND_SECONDS
from masksweep.sweeps.common.signals import SignalHandler, Stopped
from masksweep.sweeps.common.sweep_failed import SweepFailed
from masksweep.sweeps.components import plugins
from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.config.plan import PlannedTrial
from masksweep.sweeps.driver import summary
from masksweep.sweeps.driver.progress import Display
from masksweep.sweeps.driver.summary import SweepResult
from masksweep.sweeps.driver.sweep_jobs import checkpoint_folder, jobs, log_folder
from masksweep.sweeps.driver.trial_watcher import TrialWatcher
from masksweep.sweeps.launch.engine import Engine
from masksweep.sweeps.launch.job import Failure
from masksweep.sweeps.report import build, claims, leak_atlas
from masksweep.sweeps.report.claims import CheckedClaim
from masksweep.sweeps.report.results_table import any_control_held, as_text
from masksweep.sweeps.results import TrialResult
from masksweep.sweeps.tracking.recorder import Recorder
from masksweep.sweeps.tracking.run_config import RecordedResults
from masksweep.sweeps.tracking.stored_sweep import OF_EACH_TRIAL

CONTINUE_HINT = "Finished trials are kept; the same command continues."


class FailFast(Exception):
    """A trial failed in a sweep with `launch.fail_fast`, which is to stop then."""


class SweepRun(TrialWatcher):
    """A sweep: runs its trials, checks its claims, and closes its parent run.

    Args:
        planned: The plan of the sweep.
        recorder: Records the sweep.
        stop: Tells whether the user has interrupted the sweep.
        name: Name of the sweep.
        command: The command that runs the sweep again.
        rerun: Whether trials are recorded although the store has them.
    """

    def __init__(
        self,
        planned: Sequence[PlannedTrial],
        recorder: Recorder,
        stop: SignalHandler,
        name: str,
        command: str,
        rerun: bool,
    ) -> None:
        previous = [(p, p.previous_result.result) for p in planned if p.previous_result]
        done = {
            p.trial.id: Outcome(p.trial, p.variant, result.status, result, result.reason)
            for p, result in previous
        }
        first = planned[0].trial
        super().__init__(
            planned,
            recorder,
            Display(len(planned), done=len(done)),
            logs=log_folder(name),
            checkpoints=checkpoint_folder(first),
            rerun=rerun,
        )
        self.outcomes.update(done)
        self._planned, self._stop, self._name, self._command = planned, stop, name, command
        self._question, self._launch = first.sweep.question or "", first.launch
        objectives = {p.trial.objective or "" for p in planned}
        self._objective = objectives.pop() if len(objectives) == 1 else OF_EACH_TRIAL
        self._ticked = 0.0
        self._stop_reason = ""
        self._lost: list[str] = []
        """Ids of trials that the store had, and no longer has."""
        self._has_new_results = False
        """Whether a trial has ended in this run."""

    def run(self, engine: Engine | None) -> SweepResult:
        """Runs the trials that are to run, and closes the sweep.

        Returns when the store has all records, or when the patience for a store that is away is
        over.

        Args:
            engine: The workers; None if no trial is to run.
        """
        status, exit_code = "FAILED", 1
        checked: list[CheckedClaim] = []
        self._logs.mkdir(parents=True, exist_ok=True)
        scores = list(dict.fromkeys(p.trial.score_metric.key for p in self._planned))
        note = summary.note(self._question, self._command, [], [])
        plan = [p.describe() for p in self._planned]
        tags = {"sweep.question": self._question, "sweep.command": self._command}
        tags["sweep.objective"] = self._objective
        self._recorder.start_sweep(note, plan, scores, tags, plugins.recorded_files())
        self._recorder.sender.start()
        not_run = [p for p in self._planned if p.state != "to run"]
        with self._display:
            try:
                for p in not_run:
                    if p.state == "skipped":
                        self.end(p.trial.id, TrialResult("skipped", p.refusal))
                if engine:
                    engine.run(
                        self,
                        jobs(self._planned, self._logs),
                        max_retries=self._launch.max_retries,
                        timeout_s=self._launch.trial_timeout_s,
                    )
                checked = self._check_claims()
                good = all(o.status != "failed" for o in self.outcomes.values())
                good = good and not any_control_held(self.outcomes.values())
                good = good and all(c.passed is not False for c in checked)
                status, exit_code = ("FINISHED", 0) if good else ("FAILED", 1)
            except Stopped as stopped:
                status, exit_code = "KILLED", stopped.exit_code
            except FailFast as failed:
                self._stop_reason = f"Stopped at {failed}, which failed (launch.fail_fast)."
            except SweepFailed as broken:
                self._stop_reason = f"The sweep was stopped: {broken}. {CONTINUE_HINT}"
            finally:
                ended = [self.outcomes[k] for k in self._by_id if k in self.outcomes]
                self._recorder.kill_trials()
                note, files = self._describe(ended, checked, status)
                self._recorder.end_sweep(status, note, files, build.count_trials(ended))
                exit_code = self._send_rest(exit_code)
        unsent, refused = self._recorder.sender.waiting, self._recorder.sender.refused
        trouble = self._recorder.sender.trouble if unsent else ""
        return SweepResult(
            ended, self.failed_logs, exit_code, unsent, refused, trouble, self._stop_reason,
            checked, len(self._lost),
        )  # fmt: skip

    def _describe(
        self, ended: Sequence[Outcome], checked: Sequence[CheckedClaim], status: str
    ) -> tuple[str, dict[str, bytes]]:
        """Returns the sweep's description and its files by name.

        A failure here must not prevent the sweep's run from being closed. So if the files cannot be
        made, the description has no tables and there are no files.
        """
        try:
            note = summary.note(self._question, self._command, ended, checked)
            files = {"table.txt": as_text(ended, checked).encode(), **self._page(ended)}
        except Exception as error:
            print(f"masksweep: no table was made: {error!r}", file=sys.stderr)
            return summary.note(self._question, self._command, [], []), {}
        # trials that were done before may be compared by another metric now
        if status != "KILLED" and (self._has_new_results or self._objective):
            self._display.phase("Drawing the report")
            files |= build.build_report(
                self._name, self._question, self._command, ended, self.environments
            )
        return note, files

    def _page(self, outcomes: Sequence[Outcome]) -> dict[str, bytes]:
        """Returns the page that the sweep asked for, by file name, and saves it with the logs."""
        if self._planned[0].trial.sweep.page is None:
            return {}
        pages = {"leaks.html": leak_atlas.page(outcomes, self._name).encode()}
        for name, content in pages.items():
            with contextlib.suppress(OSError):  # the store has the page too
                (self._logs / name).write_bytes(content)
        return pages

    def _check_claims(self) -> list[CheckedClaim]:
        """Checks the sweep's claims, after every trial has ended."""
        parts = {key: p.parts for key, p in self._by_id.items()}
        sweep_claims = self._planned[0].trial.sweep.claims
        return claims.check(sweep_claims, list(self.outcomes.values()), parts)

    def _send_rest(self, exit_code: int) -> int:
        """Waits until the store has all records or the patience is over; returns the exit code."""
        self._display.phase("Sending the last results to the store")
        patience = self._planned[0].trial.tracking.patience_s
        try:
            if exit_code > 128:
                patience = min(INTERRUPTED_SEND_SECONDS, patience)
                sent = self._recorder.sender.finish(patience, hurry=True)
            else:
                sent = self._recorder.sender.finish(patience, self.tick)
        except Stopped as stopped:
            return stopped.exit_code
        # not after an interruption: the user waits for the command to end
        if exit_code <= 128 and (sent or not self._recorder.sender.away_s):
            self._lost = self._recorder.sender.find_lost(
                key for key, o in self.outcomes.items() if o.status != "failed"
            )
        return exit_code or int(not sent or bool(self._lost))

    def ended(self, key: str, result: Mapping[str, TrialResult | Failure] | Failure) -> None:
        super().ended(key, result)
        failed = next((t for t in key.split() if self.outcomes[t].status == "failed"), None)
        if failed and self._launch.fail_fast:
            raise FailFast(self._by_id[failed].name)

    def trial_recorded(self, outcome: Outcome, record: RecordedResults | None) -> None:
        self._has_new_results = True

    def tick(self) -> None:
        self._stop.check()
        self._show_store()

    def _show_store(self) -> None:
        """Shows the state of the store, at most once per second."""
        if time.monotonic() - self._ticked > 1:
            self._ticked = time.monotonic()
            self._display.store(self._recorder.sender.waiting, self._recorder.sender.away_s)
