"""One sweep as it goes on: each event is shown and recorded, and its end says what came out."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping, Sequence

from masksweep.sweeps.common.broken import Broken
from masksweep.sweeps.common.limits import HURRY_SECONDS
from masksweep.sweeps.common.signals import Stop, Stopped
from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.config.plan import Planned
from masksweep.sweeps.driver import summary
from masksweep.sweeps.driver.progress import Display
from masksweep.sweeps.driver.summary import Ended
from masksweep.sweeps.driver.sweep_jobs import checkpoint_folder, jobs, log_folder
from masksweep.sweeps.driver.trial_watcher import TrialWatcher
from masksweep.sweeps.launch.engine import Engine
from masksweep.sweeps.launch.job import Failure
from masksweep.sweeps.report import build, claims, leak_atlas
from masksweep.sweeps.report.claims import Checked
from masksweep.sweeps.report.results_table import as_text, controls_hold
from masksweep.sweeps.results import TrialResult
from masksweep.sweeps.tracking.recorder import Recorder
from masksweep.sweeps.tracking.run_config import Recorded

KEPT = "What had finished is kept; the same command goes on."


class FailFast(Exception):
    """A trial failed, and the sweep is to stop at the first that does."""


class Sweep(TrialWatcher):
    """A sweep: its trials, what is said of them at the end, and the claims that it makes."""

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
        done = {
            p.trial.id: Outcome(p.trial, p.variant, p.found.result.status, p.found.result,
                                p.found.result.reason)
            for p in planned
            if p.found
        }  # fmt: skip
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
        self._planned, self._stop, self._name, self._again = planned, stop, name, again
        self._question, self._launch = first.sweep.question or "", first.launch
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
        self._logs.mkdir(parents=True, exist_ok=True)
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
                        self.end(p.trial.id, TrialResult("skipped", p.refusal))
                if engine:
                    engine.run(
                        self,
                        jobs(self._planned, self._logs),
                        max_retries=self._launch.max_retries,
                        timeout_s=self._launch.trial_timeout_s,
                    )
                checked = self._check_claims()
                well = all(o.status != "failed" for o in self.outcomes.values())
                well = well and not controls_hold(self.outcomes.values())
                well = well and all(c.passed is not False for c in checked)
                status, exit_code = ("FINISHED", 0) if well else ("FAILED", 1)
            except Stopped as stopped:
                status, exit_code = "KILLED", stopped.exit_code
            except FailFast as failed:
                self._ended_by = f"Stopped at {failed}, which failed (launch.fail_fast)."
            except Broken as broken:
                self._ended_by = f"The sweep was stopped: {broken}. {KEPT}"
            finally:
                found = [self.outcomes[k] for k in self._by_id if k in self.outcomes]
                self._recorder.kill_trials()
                note, files = self._told(found, checked, status)
                self._recorder.end_sweep(status, note, files, build.counts(found))
                exit_code = self._send_rest(exit_code)
        unsent, refused = self._recorder.waiting, self._recorder.refused
        trouble = self._recorder.trouble if unsent else ""
        return Ended(
            found, self.failed_logs, exit_code, unsent, refused, trouble, self._ended_by, checked,
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
            files |= build.report(self._name, self._question, self._again, found, self.environments)
        return note, files

    def _page(self, found: Sequence[Outcome]) -> dict[str, bytes]:
        """The page that the sweep asked for, also in the folder of logs."""
        if self._planned[0].trial.sweep.page is None:
            return {}
        made = {"leaks.html": leak_atlas.page(found, self._name).encode()}
        for name, content in made.items():
            with contextlib.suppress(OSError):  # the store has it too
                (self._logs / name).write_bytes(content)
        return made

    def _check_claims(self) -> list[Checked]:
        """The sweep's claims, once every trial has ended."""
        parts = {key: p.parts for key, p in self._by_id.items()}
        given = self._planned[0].trial.sweep.claims
        return claims.check(given, list(self.outcomes.values()), parts)

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
                key for key, o in self.outcomes.items() if o.status != "failed"
            )
        return exit_code or int(not sent or bool(self._lost))

    def ended(self, key: str, result: Mapping[str, TrialResult | Failure] | Failure) -> None:
        super().ended(key, result)
        failed = next((t for t in key.split() if self.outcomes[t].status == "failed"), None)
        if failed and self._launch.fail_fast:
            raise FailFast(self._by_id[failed].name)

    def finished(self, outcome: Outcome, record: Recorded | None) -> None:
        self._new = True

    def tick(self) -> None:
        self._stop.check()
        self._show_store()

    def _show_store(self) -> None:
        if time.monotonic() - self._ticked > 1:
            self._ticked = time.monotonic()
            self._display.store(self._recorder.waiting, self._recorder.away_s)
