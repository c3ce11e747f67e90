"""Runs a sweep: opens the store, checks the trials, starts Ray, and closes all of it in order."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from functools import partial

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.common.signals import SignalHandler, Stopped
from masksweep.sweeps.common.spinner import show_status
from masksweep.sweeps.common.sweep_failed import SweepFailed
from masksweep.sweeps.components import plugins
from masksweep.sweeps.config import feasible
from masksweep.sweeps.config.plan import (
    PlannedTrial,
    count_trials,
    recordable_overrides,
    sweep_name,
    with_answers,
)
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.driver import summary
from masksweep.sweeps.driver.summary import SweepResult
from masksweep.sweeps.driver.sweep import CONTINUE_HINT, SweepRun
from masksweep.sweeps.driver.sweep_jobs import checkpoint_folder, jobs, log_folder
from masksweep.sweeps.launch.cluster import cluster
from masksweep.sweeps.launch.engine import Engine
from masksweep.sweeps.launch.worker import TrialWork, portable_config
from masksweep.sweeps.results import PreflightAnswer
from masksweep.sweeps.tracking import resume
from masksweep.sweeps.tracking.store import may_have_content, store_uri
from masksweep.sweeps.tracking.writable import require_state, require_store
from masksweep.sweeps.training import checkpoint
from masksweep.sweeps.training.preflight import AskPreflight, Preflight, check


def run(
    planned: Sequence[PlannedTrial], arguments: Sequence[str], *, rerun: bool = False
) -> SweepResult:
    """Runs and records every trial of a plan that is not done and not refused.

    Args:
        planned: The plan of the sweep.
        arguments: Arguments of the command line, from which the sweep's name is derived.
        rerun: Whether trials that are done run again.

    Raises:
        Invalid: The sweep cannot run. Raised before the first trial starts; nothing was written
            then.
    """
    name = sweep_name(planned[0].trial, arguments)
    try:
        result = _run(planned, arguments, name, rerun)
    except Stopped as stopped:
        result = SweepResult(exit_code=stopped.exit_code)
    except SweepFailed as broken:
        result = SweepResult(stop_reason=f"The sweep was stopped: {broken}. {CONTINUE_HINT}")
    summary.print_after(result, name, arguments, planned[0].trial.tracking.uri)
    return result


def _run(
    planned: Sequence[PlannedTrial], arguments: Sequence[str], name: str, rerun: bool
) -> SweepResult:
    """Opens what the sweep needs, runs it, and closes everything when it ends."""
    first = planned[0].trial
    require_state()
    require_store(first.tracking.uri)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(SignalHandler())
        engine: Engine | None = None
        ask: AskPreflight
        try:  # the preflight loads TensorFlow in another process while the store is opened
            feasible.check([p.trial for p in planned])
            checkpoint.check(checkpoint_folder(first))
            if first.launch.address is None:
                ask = stack.enter_context(Preflight()).ask
            else:
                engine = _start_engine(stack, planned, name)
                ask = partial(_ask_worker, engine)
        except Invalid as error:
            if not may_have_content(store_uri(first.tracking.uri)):
                raise
            ask = partial(_raise_when_asked, error)  # raised only if there is a trial to run
        planned, recorder, away = stack.enter_context(resume.open_sweep(planned, name, rerun))
        summary.print_before(planned, away)
        if any(p.state == "to run" for p in planned):
            planned = _with_preflight(planned, ask)
            if engine is None and any(p.state == "to run" for p in planned):
                engine = _start_engine(stack, planned, name)
        stop.deferred = True
        flags, overrides = plugins.flags(recorded=True), recordable_overrides(arguments)
        command = shlex.join(["masksweep", "run", *flags, *overrides])[:4000]
        return SweepRun(planned, recorder, stop, name, command, rerun).run(engine)


def _with_preflight(planned: Sequence[PlannedTrial], ask: AskPreflight) -> list[PlannedTrial]:
    """Returns the plan with the answers of the preflight.

    Raises:
        Invalid: The masks of a trial cannot be made.
    """
    trials_to_run = [p.trial for p in planned if p.state == "to run"]
    with show_status(f"Checking {count_trials(len(trials_to_run))}"):
        return with_answers(planned, check(trials_to_run, ask))


def _raise_when_asked(
    error: Invalid, trials_to_check: Sequence[Trial]
) -> Sequence[PreflightAnswer]:
    """Raises the error when the preflight is asked."""
    raise error


def _ask_worker(engine: Engine, trials_to_check: Sequence[Trial]) -> Sequence[PreflightAnswer]:
    """Runs `preflight.check_plans` in a worker."""
    configs = [portable_config(t) for t in trials_to_check]
    try:
        answers: Sequence[PreflightAnswer] = engine.ask("refusals", configs)
    except LookupError as error:
        raise Invalid("launch.address", trials_to_check[0].launch.address, str(error)) from error
    return answers


def _start_engine(
    stack: contextlib.ExitStack, planned: Sequence[PlannedTrial], name: str
) -> Engine:
    """Starts or joins Ray, and returns workers for the trials to run; the stack closes them."""
    first = planned[0].trial
    with show_status("Starting Ray" if first.launch.address is None else "Joining Ray"):
        stack.enter_context(cluster(first.launch.address))
    work = TrialWork(checkpoint_folder(first), first.checkpoint.every_s)
    joined = first.launch.address is not None
    return stack.enter_context(Engine(jobs(planned, log_folder(name)), work, joined=joined))
