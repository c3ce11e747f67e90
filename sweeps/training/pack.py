"""Trains trials that share a program side by side. Each trial has its own result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from masksweep.strategies.core import audit
from masksweep.sweeps.common.memory import PeakMemory
from masksweep.sweeps.common.storage import Folder
from masksweep.sweeps.results import MustRunAlone, Report, TrialResult
from masksweep.sweeps.training import (
    batches,
    costs,
    evaluation,
    leak_cause,
    program_cache,
    run_trial,
    setup,
    timing,
)
from masksweep.sweeps.training.loop import TrainingLoop
from masksweep.sweeps.training.program import Lane
from masksweep.sweeps.training.program_shape import Shape
from masksweep.sweeps.training.setup import TrialStart
from masksweep.sweeps.training.snapshot import Snapshot, take_snapshot
from masksweep.sweeps.training.state import PackMember
from masksweep.sweeps.training.trial_result import EndedTraining, audited_result
from masksweep.sweeps.training.trial_run import TrialRun
from masksweep.sweeps.training.vectorized import PackedProgram, Unpackable

MemberResult = TrialResult | Exception
"""The result of a trial, or the exception that ended it."""


def run(members: Sequence[PackMember], rounds_folder: Folder | None = None) -> list[MemberResult]:
    """Runs trials side by side in one program.

    The trials may differ in values only: seed, masks, held values, learning rate. If their masks
    need programs of different shapes, or their checkpoints are of different steps, they run in
    several packs, one after the other.

    Args:
        members: The trials, with their reports and checkpoints.
        rounds_folder: Folder for the weights of pruning rounds (see `iterative_pruning`).

    Returns:
        For each trial its result, or the exception that ended it. An exception of one trial does
        not end the others. A single trial that cannot run in a pack runs alone, and its result has
        the reason as the tag `trial.alone`.

    Raises:
        MustRunAlone: There are several trials, and they cannot run side by side. Run each by
            itself.
    """
    if members and members[0].trial.width == 1:
        return [_run_alone(m, rounds_folder) for m in members]
    peak, outcomes = PeakMemory(), dict[int, MemberResult]()
    groups: dict[tuple[Shape, int], dict[int, _PreparedTrial]] = {}
    for number, member in enumerate(members):
        try:
            start = run_trial.build_start(member.trial, rounds_folder)
            if isinstance(start, TrialResult):
                outcomes[number] = start
                continue
            shape = setup.shape(start).of_pack(member.trial.width)
            if shape in _unpackable_shapes:
                return _run_alone_or_raise(members, rounds_folder, _unpackable_shapes[shape])
            prepared = _prepare(start, member)
            groups.setdefault((shape, prepared.run.position.found.steps), {})[number] = prepared
        except MustRunAlone:
            raise
        except Exception as error:
            outcomes[number] = error
    for (shape, _), group in groups.items():
        try:
            outcomes |= zip(group, _train(list(group.values()), peak), strict=True)
        except Unpackable as error:
            _unpackable_shapes[shape] = str(error)
            program_cache.drop_program(shape)
            note = f"trials of this shape run alone: {error}"
            members[0].emit(Report(0, 1, 1, note=note))
            return _run_alone_or_raise(members, rounds_folder, str(error))
        except Exception as error:  # such as too little memory: each trial may still run alone
            if len(members) > 1:
                note = f"the trials of this pack run alone: {error}"
                members[0].emit(Report(0, 1, 1, note=note))
                raise MustRunAlone(str(error)) from error
            return [error]
    return [outcomes[n] for n in range(len(members))]


_unpackable_shapes: dict[Shape, str] = {}
"""Shapes that this process could not compile for packs, each with the reason."""


def _run_alone_or_raise(
    members: Sequence[PackMember], rounds_folder: Folder | None, reason: str
) -> list[MemberResult]:
    if len(members) > 1:
        raise MustRunAlone(reason)
    return [_run_alone(members[0], rounds_folder, reason)]


def _run_alone(member: PackMember, rounds_folder: Folder | None, reason: str = "") -> MemberResult:
    try:
        result = run_trial.run(member.trial, member.emit, member.checkpoints, rounds_folder)
    except Exception as error:
        return error
    return replace(result, tags={**result.tags, "trial.alone": reason}) if reason else result


@dataclass(eq=False)
class _PreparedTrial:
    """A trial of a pack at its first step in this process."""

    run: TrialRun
    lane: Lane
    """Values of the trial's variables."""
    before: Snapshot
    """The model before the trial's first step."""
    gradient_metrics: Mapping[str, float]
    """Metrics of the gradients at the trial's first step."""


def _prepare(start: TrialStart, member: PackMember) -> _PreparedTrial:
    """Prepares a trial at its start, or at its newest usable checkpoint."""
    packed = setup.packed_for(start)
    lane = setup.start_lane(packed, start)
    single = packed.load_lane(lane)
    gradients = evaluation.gradients(start, single, batches.first_batch(start))
    before = take_snapshot(start, single)
    run = TrialRun(start, member.emit, member.checkpoints)
    # checkpoints of a trial that ran alone are not used: its values differ by rounding
    resumed = run.resume(single.training, " in a pack")
    return _PreparedTrial(run, [*resumed, *lane[len(resumed) :]], before, gradients)


def _train(prepared: Sequence[_PreparedTrial], peak: PeakMemory) -> list[MemberResult]:
    """Trains trials of one shape that are at the same step to their end."""
    packed: PackedProgram = setup.packed_for(prepared[0].run.start)
    seconds_before = packed.compile_seconds
    loop = TrainingLoop([b.run for b in prepared], packed)
    packed.set_lanes([b.lane for b in prepared])
    for trial in prepared:
        trial.lane = []  # frees memory: the values are in the program now
    loop.train()
    shared = {"speed/compile_s": (packed.compile_seconds - seconds_before) / len(prepared)}
    if (peak_bytes := peak.bytes()) is not None:
        shared["memory/peak_bytes"] = peak_bytes  # of the whole pack: each trial needs all of it
    results = _audit_trials(prepared, packed)
    validation, test = loop.scores("validation"), loop.scores("test")
    speed_metrics = _time_pack(loop, packed) if results else {}
    for number, result in results.items():
        own_metrics = {**prepared[number].gradient_metrics, **validation[number], **test[number]}
        metrics = {**result.metrics, **own_metrics, **shared, **speed_metrics}
        tags = {**result.tags, **timing.noise_tag(metrics)}
        results[number] = replace(result, metrics=metrics, tags=tags)
    return [b.run.error or results[number] for number, b in enumerate(prepared)]


def _audit_trials(
    prepared: Sequence[_PreparedTrial], packed: PackedProgram
) -> dict[int, TrialResult]:
    """Results of the trials that trained to the end, by number. Finalizes their lanes."""
    lanes, loader = packed.lanes(), audit.Loader()
    results: dict[int, TrialResult] = {}
    for number, trial in enumerate(prepared):
        run = trial.run
        if run.error is not None:
            continue
        with run.catching_errors():
            single = packed.load_lane(lanes[number])
            by_finalizing = leak_cause.finalize(single, run.position.found.steps)
            lanes[number] = packed.current_lane()
            ended = EndedTraining(
                run.start, run.start.plan, single, trial.before, run.position, by_finalizing
            )
            results[number] = audited_result(ended, loader)
    packed.set_lanes(lanes)
    return results


def _time_pack(loop: TrainingLoop, packed: PackedProgram) -> dict[str, float]:
    starts = [run.start for run in loop.runs]
    if not starts[0].trial.speed.rounds or not loop.total:
        return {}
    try:
        return costs.step_time_of_pack(starts, packed, loop.samples)
    except Exception as error:  # such as too little memory: the results are still good
        run, note = loop.active[0], f"the pack was not timed: {error}"
        steps = run.position.found.steps
        run.emit(Report(steps, steps, run.position.epochs, {}, note))
        return {}
