"""One sweep: check every trial, run them on Ray, record them, and say what came out."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf, open_dict
from rich.console import Console

from sweeps import engine
from sweeps.config import Trial, parse
from sweeps.launcher import Composed
from sweeps.progress import Display
from sweeps.report import Outcome, as_markdown, as_text, table
from sweeps.trial import TrialResult

Mode = Literal["run", "plan", "check"]
INTERRUPTED = 130


class TrialWork:
    """What a worker does: trials, on one TensorFlow."""

    def setup(self, spec: engine.Spec) -> None:
        from sweeps.trial import prepare_process

        prepare_process(spec.threads, spec.num_gpus)

    def run(self, payload: Any, emit: engine.Emit) -> TrialResult:
        from sweeps import trial

        return trial.run(parse(payload), lambda epoch, metrics: emit((epoch, metrics)))


@dataclass
class Sweep:
    """What `masksweep run` and `masksweep plan` do with the jobs that Hydra composed."""

    arguments: Sequence[str]
    mode: Mode = "run"
    as_json: bool = False
    exit_code: int = 0
    _outcomes: dict[str, Outcome] = field(default_factory=dict)

    def launch(self, jobs: Sequence[Composed]) -> list[JobReturn]:
        """Plan or run the jobs; each job's return holds its trial's objective."""
        trials = [_trial(job) for job in jobs]
        # the dense control is the same trial under every pattern: it runs once
        distinct = {t.id: (t, job) for t, job in reversed(list(zip(trials, jobs, strict=True)))}
        plan = dict(reversed(distinct.items()))
        display = Display(len(plan))
        refused: dict[str, str] = {}
        if self.mode != "plan":
            from sweeps.preflight import check

            with display.doing(f"Checking {len(plan)} trials"):
                refused = check([t for t, _ in plan.values()])
        described = [
            {
                "id": trial.id,
                "name": trial.name,
                "overrides": list(job.overrides),
                **(
                    {"state": "skipped", "reason": refused[trial.id]}
                    if trial.id in refused
                    else {"state": "to run"}
                ),
            }
            for trial, job in plan.values()
        ]
        if self.mode == "run":
            self._run([t for t, _ in plan.values()], refused, described, display)
        else:
            self._show(described)
        return [self._returned(trial, job) for trial, job in zip(trials, jobs, strict=True)]

    def _show(self, described: Sequence[Mapping[str, Any]]) -> None:
        if self.as_json:
            print(json.dumps({"trials": described}, indent=2))
            return
        for trial in described:
            print(f"{trial['id'][:12]}  {trial['name']}  {trial.get('reason', '')}".rstrip())
        skipped = sum(t["state"] == "skipped" for t in described)
        print(f"{len(described)} trials: {len(described) - skipped} to run, {skipped} skipped")

    def _run(
        self,
        trials: Sequence[Trial],
        refused: Mapping[str, str],
        described: Sequence[Mapping[str, Any]],
        display: Display,
    ) -> None:
        from sweeps.tracker import Tracker, store_uri

        first = trials[0]
        name = first.sweep.name or derived_name(self.arguments)
        uri = store_uri(first.tracking.uri)
        with display.doing("Opening the store"):
            tracker = Tracker(uri, first.tracking.experiment)
            note = _note(first.sweep.question, self.arguments)
            tracker.start_sweep(name, note, described)
        by_id = {trial.id: trial for trial in trials}

        def end(key: str, result: Any) -> None:
            trial = by_id[key]
            if isinstance(result, engine.Failure):
                outcome = Outcome(trial, "failed", reason=result.reason)
                tracker.fail_trial(trial, result.reason, result.traceback)
            else:
                outcome = Outcome(trial, result.status, result, result.reason)
                tracker.end_trial(trial, result)
            self._outcomes[key] = outcome
            display.ended(outcome)

        status = "FAILED"
        try:
            with display:
                for key, reason in refused.items():
                    tracker.start_trial(by_id[key])
                    end(key, TrialResult("skipped", reason))
                engine.run(
                    [_job(trial) for trial in trials if trial.id not in refused],
                    TrialWork(),
                    on_start=lambda key: tracker.start_trial(by_id[key]),
                    on_event=lambda key, event: tracker.log(by_id[key], event[1], event[0]),
                    on_end=end,
                    address=first.launch.address,
                )
            failed = [o for o in self._outcomes.values() if o.status == "failed"]
            status = "FAILED" if failed else "FINISHED"
            self.exit_code = 1 if failed else 0
        except KeyboardInterrupt:
            status, self.exit_code = "KILLED", INTERRUPTED
        finally:
            tracker.kill_open_trials()
            outcomes = [self._outcomes[t.id] for t in trials if t.id in self._outcomes]
            text, shown = (as_text(outcomes), as_markdown(outcomes)) if outcomes else ("", "")
            tracker.end_sweep(status, f"{note}\n{shown}", text)
        self._summary(outcomes, name)

    def _summary(self, outcomes: Sequence[Outcome], name: str) -> None:
        console = Console()
        if outcomes:
            console.print()
            console.print(table(outcomes))
        for outcome in outcomes:
            if outcome.status != "ok":
                print(f"{outcome.status}: {outcome.trial.name}: {outcome.reason}")
        if self.exit_code == INTERRUPTED:
            print("Interrupted; what had finished is kept.", file=sys.stderr)
        print(f"\nOpen the results with: masksweep ui   (sweep {name!r})")

    def _returned(self, trial: Trial, job: Composed) -> JobReturn:
        outcome = self._outcomes.get(trial.id)
        returned = JobReturn(overrides=list(job.overrides), cfg=job.config)
        returned.status = JobStatus.COMPLETED
        if outcome is not None and outcome.status == "failed":
            returned.status = JobStatus.FAILED
            returned.return_value = RuntimeError(outcome.reason)
        elif outcome is not None:
            returned.return_value = outcome.result.metrics.get(trial.objective)
        return returned


def _trial(job: Composed) -> Trial:
    config = job.config.copy()
    with open_dict(config):
        del config["hydra"]
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    return parse({str(key): value for key, value in plain.items()})


def _job(trial: Trial) -> engine.Job:
    need = trial.resources
    spec = engine.Spec(need.num_cpus, need.num_gpus, need.memory, trial.train.threads)
    return engine.Job(trial.id, trial.resolved(), spec)


def derived_name(arguments: Sequence[str]) -> str:
    """A sweep's name from its overrides: the same ones, the same name."""
    said = [a for a in arguments if not a.startswith(("launch.", "tracking.", "-"))]
    text = " ".join(said) or "default"
    short = hashlib.sha256(text.encode()).hexdigest()[:8]
    return text if len(text) <= 60 else f"{text[:50]}... {short}"


def _note(question: str | None, arguments: Sequence[str]) -> str:
    said = [a for a in arguments if not a.startswith("tracking.")]
    command = f"    masksweep run {shlex.join(said)}\n"
    return f"{question or ''}\n\nRun again with\n\n{command}".lstrip()
