"""Trains trials that share a program side by side. Each trial has its own result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from masksweep.strategies.core import audit
from masksweep.sweeps.common.memory import PeakMemory
from masksweep.sweeps.common.storage import Folder
from masksweep.sweeps.results import MustRunAlone, Report, TrialResult
from masksweep.sweeps.training import evaluation, leak_cause, program, run_trial, setup, timing
from masksweep.sweeps.training.evaluation import Snapshot
from masksweep.sweeps.training.loop import Run, TrainingLoop
from masksweep.sweeps.training.program import Lane, Shape
from masksweep.sweeps.training.setup import Start
from masksweep.sweeps.training.state import Member
from masksweep.sweeps.training.vectorized import Packed, Unpackable

MemberResult = TrialResult | Exception
"""The result of a trial, or the exception that ended it."""


def run(members: Sequence[Member], shelf: Folder | None = None) -> list[MemberResult]:
    """Runs trials side by side in one program.

    The trials may differ in values only: seed, masks, held values, learning rate. If their masks
    need programs of different shapes, or their checkpoints are of different steps, they run in
    several packs, one after the other.

    Args:
        members: The trials, with their reports and checkpoints.
        shelf: Folder for the weights of pruning rounds (see `iterative_pruning`).

    Returns:
        For each trial its result, or the exception that ended it. An exception of one trial does
        not end the others. A single trial that cannot run in a pack runs alone, and its result has
        the reason as the tag `trial.alone`.

    Raises:
        MustRunAlone: There are several trials, and they cannot run side by side. Run each by
            itself.
    """
    if members and members[0].trial.width == 1:
        return [_run_alone(m, shelf) for m in members]
    peak, outcomes = PeakMemory(), dict[int, MemberResult]()
    groups: dict[tuple[Shape, int], dict[int, _Begun]] = {}
    for number, member in enumerate(members):
        try:
            start = run_trial.begin(member.trial, shelf)
            if isinstance(start, TrialResult):
                outcomes[number] = start
                continue
            shape = setup.shape(start)
            if shape in _alone:
                return _apart(members, shelf, _alone[shape])
            begun = _begin(start, member)
            groups.setdefault((shape, begun.run.at.found.steps), {})[number] = begun
        except MustRunAlone:
            raise
        except Exception as error:
            outcomes[number] = error
    for (shape, _), group in groups.items():
        try:
            outcomes |= zip(group, _train(list(group.values()), peak), strict=True)
        except Unpackable as error:
            _alone[shape] = str(error)
            program.drop(replace(shape, width=members[0].trial.width))
            note = f"trials of this shape run alone: {error}"
            members[0].emit(Report(0, 1, 1, note=note))
            return _apart(members, shelf, str(error))
        except Exception as error:  # such as too little memory: each trial may still run alone
            if len(members) > 1:
                note = f"the trials of this pack run alone: {error}"
                members[0].emit(Report(0, 1, 1, note=note))
                raise MustRunAlone(str(error)) from error
            return [error]
    return [outcomes[n] for n in range(len(members))]


_alone: dict[Shape, str] = {}
"""Shapes that this process could not compile for packs, each with the reason."""


def _apart(members: Sequence[Member], shelf: Folder | None, reason: str) -> list[MemberResult]:
    if len(members) > 1:
        raise MustRunAlone(reason)
    return [_run_alone(members[0], shelf, reason)]


def _run_alone(member: Member, shelf: Folder | None, reason: str = "") -> MemberResult:
    try:
        result = run_trial.run(member.trial, member.emit, member.checkpoints, shelf)
    except Exception as error:
        return error
    return replace(result, tags={**result.tags, "trial.alone": reason}) if reason else result


@dataclass(eq=False)
class _Begun:
    """A trial of a pack at its first step in this process."""

    run: Run
    lane: Lane
    """Values of the trial's variables."""
    before: Snapshot
    """The model before the trial's first step."""
    first: Mapping[str, float]
    """Metrics of the gradients at the trial's first step."""


def _begin(start: Start, member: Member) -> _Begun:
    """Prepares a trial at its start, or at its newest usable checkpoint."""
    packed = setup.packed_for(start)
    lane = setup.lane(packed, start)
    single = packed.look(lane)
    gradients = evaluation.gradients(start, single, setup.first_batch(start))
    before, run = evaluation.snapshot(start, single), Run(start, member.emit, member.checkpoints)
    # checkpoints of a trial that ran alone are not used: its values differ by rounding
    resumed = run.resume(single.training, " in a pack")
    return _Begun(run, [*resumed, *lane[len(resumed) :]], before, gradients)


def _train(begun: Sequence[_Begun], peak: PeakMemory) -> list[MemberResult]:
    """Trains trials of one shape that are at the same step to their end."""
    packed: Packed = setup.packed_for(begun[0].run.start)
    seconds_before = packed.compile_seconds
    loop = TrainingLoop([b.run for b in begun], packed)
    packed.fill([b.lane for b in begun])
    for trial in begun:
        trial.lane = []  # frees memory: the values are in the program now
    loop.train()
    shared = {"speed/compile_s": (packed.compile_seconds - seconds_before) / len(begun)}
    if (peak_bytes := peak.bytes()) is not None:
        shared["memory/peak_bytes"] = peak_bytes  # of the whole pack: each trial needs all of it
    results = _audited(begun, packed)
    validation, test = loop.scores("validation"), loop.scores("test")
    speed_metrics = _timed(loop, packed) if results else {}
    for number, result in results.items():
        own_metrics = {**begun[number].first, **validation[number], **test[number]}
        metrics = {**result.metrics, **own_metrics, **shared, **speed_metrics}
        tags = {**result.tags, **timing.tags(metrics)}
        results[number] = replace(result, metrics=metrics, tags=tags)
    return [b.run.error or results[number] for number, b in enumerate(begun)]


def _audited(begun: Sequence[_Begun], packed: Packed) -> dict[int, TrialResult]:
    """Results of the trials that trained to the end, by number. Finalizes their lanes."""
    lanes, loader = packed.lanes(), audit.Loader()
    results: dict[int, TrialResult] = {}
    for number, trial in enumerate(begun):
        run = trial.run
        if run.error is not None:
            continue
        with run.ending():
            single = packed.look(lanes[number])
            by_finalizing = leak_cause.finalize(single)
            lanes[number] = packed.lane()
            results[number] = run_trial.ended(
                run.start, run.start.plan, single, trial.before, run.at, by_finalizing, loader
            )
    packed.fill(lanes)
    return results


def _timed(loop: TrainingLoop, packed: Packed) -> dict[str, float]:
    starts = [run.start for run in loop.runs]
    if not starts[0].trial.speed.rounds:
        return {}
    try:
        return evaluation.step_time_of_pack(starts, packed, (loop.x, loop.y, loop.order))
    except Exception as error:  # such as too little memory: the results are still good
        at, note = loop.active[0].at, f"the pack was not timed: {error}"
        loop.active[0].emit(Report(at.found.steps, at.found.steps, at.epochs, {}, note))
        return {}
