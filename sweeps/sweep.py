"""One sweep: check every trial, run them on Ray, record them, and say what came out."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue
from rich.console import Console

from strategies.base import Invalid
from sweeps import engine
from sweeps.config import Trial, parse, recorded
from sweeps.launcher import Composed
from sweeps.progress import Display, doing
from sweeps.report import Outcome, as_markdown, as_text, controls_hold, table, variants
from sweeps.trial import TrialResult

INTERRUPTED = 130


@dataclass(frozen=True)
class Planned:
    """One trial of a sweep before it runs."""

    trial: Trial
    overrides: Sequence[str]
    variant: str = ""
    """What tells it apart from trials of the same strategy and pattern, as `adamw`."""
    refusal: str = ""
    """Why its strategy cannot hold its plan; only the preflight can tell."""

    @property
    def name(self) -> str:
        return ", ".join(filter(None, [self.trial.name, self.variant]))

    def described(self) -> dict[str, Any]:
        """As `masksweep plan --json` prints it."""
        found = {
            "id": self.trial.id,
            "name": self.name,
            "overrides": public(self.overrides),
            "state": "skipped" if self.refusal else "to run",
        }
        return found | ({"reason": self.refusal} if self.refusal else {})


def public(overrides: Sequence[str]) -> list[str]:
    """The overrides that may be shown and recorded: an address may hold a password."""
    return [o for o in overrides if not o.lstrip("+~").startswith(("tracking.", "launch."))]


def plan(jobs: Sequence[Composed], trials: Sequence[Trial]) -> list[Planned]:
    """Every distinct trial of the jobs, `trials` being what each describes, in order.

    The dense control is the same trial under every pattern, so it is planned once. Raises
    `Invalid` if two of any others say the same, or what belongs to the sweep as a whole is swept
    over.
    """
    if not jobs:
        raise Invalid("overrides", "", "must give one trial at least")
    for key in ("launch", "tracking", "sweep"):
        if any(getattr(t, key) != getattr(trials[0], key) for t in trials):
            raise Invalid(key, "", "one for the whole sweep, no list")
    distinct: dict[str, Planned] = {}
    for trial, job in zip(trials, jobs, strict=True):
        if trial.id in distinct and trial.strategy.role != "dense":
            said = " ".join(public(job.overrides))
            raise Invalid("seed", trial.seed, f"each trial once; said again by {said}")
        distinct.setdefault(trial.id, Planned(trial, job.overrides))
    told = variants([p.trial for p in distinct.values()])
    return [replace(p, variant=told[p.trial.id]) for p in distinct.values()]


def preflight(planned: Sequence[Planned]) -> list[Planned]:
    """The plan with its refusals. Raises `Invalid` for targets and masks that do not fit."""
    from sweeps.preflight import check

    with doing(f"Checking {_trials(len(planned))}"):
        refused = check([p.trial for p in planned])
    return [replace(p, refusal=refused.get(p.trial.id, "")) for p in planned]


def show(planned: Sequence[Planned], as_json: bool) -> None:
    """Print a plan."""
    if as_json:
        print(json.dumps({"trials": [p.described() for p in planned]}, indent=2))
        return
    for p in planned:
        skipped_for = f"  skipped: {p.refusal}" if p.refusal else ""
        print(f"{p.trial.id[:12]}  {p.name}{skipped_for}")
    skipped = sum(bool(p.refusal) for p in planned)
    print(f"{_trials(len(planned))}: {len(planned) - skipped} to run, {skipped} skipped")


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


def trial_of(job: Composed) -> Trial:
    """The trial that a job's config describes. Raises `Invalid`."""
    try:
        plain = {
            str(key): OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
            if OmegaConf.is_config(node := job.config[key])
            else node
            for key in job.config
            if key != "hydra"
        }
    except MissingMandatoryValue as error:
        raise Invalid(str(error.full_key), "???", "must be given") from error
    return parse(plain)


def _job(trial: Trial) -> engine.Job:
    need = trial.resources
    spec = engine.Spec(need.num_cpus, need.num_gpus, need.memory, trial.train.threads)
    config = recorded(trial)
    for group in ("pattern", "held"):
        if path := config[group].get("path"):
            # a worker's current folder is its own
            config[group]["path"] = str(Path(path).absolute())
    return engine.Job(trial.id, config, spec)


def _trials(count: int) -> str:
    return f"{count} trial" if count == 1 else f"{count} trials"


def derived_name(arguments: Sequence[str]) -> str:
    """A sweep's name from its overrides: the same ones, the same name."""
    said = public([a for a in arguments if not a.startswith("-")])
    text = " ".join(said) or "default"
    short = hashlib.sha256(text.encode()).hexdigest()[:8]
    return text if len(text) <= 60 else f"{text[:50]}... {short}"


def _note(first: Trial, arguments: Sequence[str]) -> str:
    command = shlex.join(["masksweep", "run", *public(arguments)])
    again = f"Run again with\n\n    {command[:4000]}\n"
    return "\n\n".join(filter(None, [first.sweep.question, again]))
