"""Run a sweep: open the store, check the trials, start Ray, and close all of it in order."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from functools import partial

from masksweep.strategies.base import Invalid
from masksweep.sweeps.common.broken import Broken
from masksweep.sweeps.common.signals import Stop, Stopped
from masksweep.sweeps.common.spinner import doing
from masksweep.sweeps.config import feasible
from masksweep.sweeps.config.plan import Planned, public, refused, sweep_name, trials
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.driver import summary
from masksweep.sweeps.driver.summary import Ended
from masksweep.sweeps.driver.sweep import KEPT, Sweep
from masksweep.sweeps.driver.sweep_jobs import checkpoint_folder, jobs, log_folder
from masksweep.sweeps.launch.cluster import cluster
from masksweep.sweeps.launch.engine import Engine
from masksweep.sweeps.launch.worker import TrialWork, portable
from masksweep.sweeps.results import Answer
from masksweep.sweeps.tracking import resume
from masksweep.sweeps.tracking.store import exists, store_uri
from masksweep.sweeps.tracking.writable import require_state, require_store
from masksweep.sweeps.training import checkpoint
from masksweep.sweeps.training.preflight import Ask, Preflight, check


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
        ended = Ended(ended_by=f"The sweep was stopped: {broken}. {KEPT}")
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
            checkpoint.check(checkpoint_folder(first))
            if first.launch.address is None:
                ask = stack.enter_context(Preflight()).ask
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
    work = TrialWork(checkpoint_folder(first), first.checkpoint.every_s)
    joined = first.launch.address is not None
    return stack.enter_context(Engine(jobs(planned, log_folder(name)), work, joined=joined))
