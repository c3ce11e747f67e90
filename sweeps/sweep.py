"""One sweep: check every trial, run them on Ray, record them, and say what came out."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from rich.console import Console

from sweeps import engine
from sweeps.config import Trial, parse, recorded
from sweeps.launcher import Composed
from sweeps.plan import Planned, derived_name, public
from sweeps.progress import Display, doing
from sweeps.report import Outcome, as_markdown, as_text, controls_hold, table
from sweeps.trial import TrialResult

INTERRUPTED = 130


class TrialWork:
    """What a worker does: trials, on one TensorFlow."""

    def setup(self, spec: engine.Spec) -> None:
        from sweeps.prepare import prepare_process

        prepare_process(spec.threads, spec.num_gpus)

    def run(self, payload: Any, emit: engine.Emit) -> TrialResult:
        from sweeps import trial

        return trial.run(parse(payload), lambda epoch, metrics: emit((epoch, metrics)))


def run(planned: Sequence[Planned], arguments: Sequence[str]) -> tuple[list[Outcome], int]:
    """Run and record every trial that is not refused; what came out, and the exit code."""
    first = planned[0].trial
    name = first.sweep.name or derived_name(arguments)
    jobs = [_job(p.trial) for p in planned if not p.refusal]
    with contextlib.ExitStack() as stack:
        with doing("Starting Ray"):
            stack.enter_context(engine.cluster(first.launch.address))
        for job in jobs:
            engine.slots(job.spec)
        outcomes, exit_code = _record(planned, jobs, name, _note(first, arguments))
    _summary(outcomes, name, exit_code)
    return outcomes, exit_code


def _record(
    planned: Sequence[Planned], jobs: Sequence[engine.Job], name: str, note: str
) -> tuple[list[Outcome], int]:
    from sweeps.tracker import Tracker

    by_id = {p.trial.id: p for p in planned}
    tracking = planned[0].trial.tracking
    with doing("Opening the store"):
        tracker = Tracker(tracking)
        tracker.start_sweep(name, note, [p.described() for p in planned])
    found: dict[str, Outcome] = {}
    status, exit_code = "FAILED", 1

    def start(key: str) -> None:
        tracker.start_trial(by_id[key].trial, by_id[key].name)

    with Display(len(planned)) as display:

        def end(key: str, result: TrialResult | engine.Failure) -> None:
            trial, variant = by_id[key].trial, by_id[key].variant
            if isinstance(result, engine.Failure):
                found[key] = Outcome(trial, variant, "failed", reason=result.reason)
                tracker.fail_trial(trial, result.reason, result.traceback)
            else:
                found[key] = Outcome(trial, variant, result.status, result, result.reason)
                tracker.end_trial(trial, result)
            display.ended(found[key])

        try:
            for p in planned:
                if p.refusal:
                    start(p.trial.id)
                    end(p.trial.id, TrialResult("skipped", p.refusal))
            engine.run(
                jobs,
                TrialWork(),
                on_start=start,
                on_event=lambda key, event: tracker.log(by_id[key].trial, event[1], event[0]),
                on_end=end,
            )
            well = all(o.status != "failed" for o in found.values())
            well = well and not controls_hold(found.values())
            status, exit_code = ("FINISHED", 0) if well else ("FAILED", 1)
        except KeyboardInterrupt:
            status, exit_code = "KILLED", INTERRUPTED
        finally:
            outcomes = [found[p.trial.id] for p in planned if p.trial.id in found]
            tracker.kill_open_trials()
            tracker.end_sweep(status, f"{as_markdown(outcomes)}\n{note}", as_text(outcomes))
    return outcomes, exit_code


def _summary(outcomes: Sequence[Outcome], name: str, exit_code: int) -> None:
    if outcomes:
        console = Console()
        console.print()
        console.print(table(outcomes))
    for outcome in outcomes:
        if outcome.status != "ok":
            print(f"{outcome.status}: {outcome.name}: {outcome.reason}")
    if exit_code == INTERRUPTED:
        print("Interrupted; what had finished is kept.", file=sys.stderr)
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


def _job(trial: Trial) -> engine.Job:
    need = trial.resources
    spec = engine.Spec(need.num_cpus, need.num_gpus, need.memory, trial.train.threads)
    config = recorded(trial)
    for group in ("pattern", "held"):
        if path := config[group].get("path"):
            # a worker's current folder is its own
            config[group]["path"] = str(Path(path).absolute())
    return engine.Job(trial.id, config, spec)


def _note(first: Trial, arguments: Sequence[str]) -> str:
    command = shlex.join(["masksweep", "run", *public(arguments)])
    again = f"Run again with\n\n    {command[:4000]}\n"
    return "\n\n".join(filter(None, [first.sweep.question, again]))
