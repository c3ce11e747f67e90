"""Trials that differ in values alone, trained side by side; each keeps results of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from masksweep.strategies.core import audit
from masksweep.sweeps.common.memory import Peak
from masksweep.sweeps.common.storage import Folder
from masksweep.sweeps.results import Apart, Report, TrialResult
from masksweep.sweeps.training import evaluation, leak_cause, program, run_trial, setup, timing
from masksweep.sweeps.training.evaluation import Snapshot
from masksweep.sweeps.training.loop import Run, TrainingLoop
from masksweep.sweeps.training.program import Lane, Shape
from masksweep.sweeps.training.setup import Start
from masksweep.sweeps.training.state import Member
from masksweep.sweeps.training.vectorized import Packed, Unpackable

Found = TrialResult | Exception


def run(members: Sequence[Member], shelf: Folder | None = None) -> list[Found]:
    """Run trials that agree in all but values; what each came to, or what ended it, and no other.

    Those whose masks need programs of different shapes, or whose checkpoints are of different
    steps, run in packs of their own. Raises `Apart` where several cannot run side by side; a single
    one runs alone then, with the reason as the tag `trial.alone`.
    """
    if members and members[0].trial.width == 1:
        return [_run_alone(m, shelf) for m in members]
    peak, found = Peak(), dict[int, Found]()
    groups: dict[tuple[Shape, int], dict[int, _Begun]] = {}
    for number, member in enumerate(members):
        try:
            start = run_trial.begin(member.trial, shelf)
            if isinstance(start, TrialResult):
                found[number] = start
                continue
            shape = setup.shape(start)
            if shape in _alone:
                return _apart(members, shelf, _alone[shape])
            begun = _begin(start, member)
            groups.setdefault((shape, begun.run.at.found.steps), {})[number] = begun
        except Apart:
            raise
        except Exception as error:
            found[number] = error
    for (shape, _), group in groups.items():
        try:
            found |= zip(group, _train(list(group.values()), peak), strict=True)
        except Unpackable as error:
            _alone[shape] = str(error)
            program.forget(replace(shape, width=members[0].trial.width))
            note = f"runs alone, as others of its kind: {error}"
            members[0].emit(Report(0, 1, 1, note=note))
            return _apart(members, shelf, str(error))
        except Exception as error:  # memory, for one: which of them can do without the others?
            if len(members) > 1:
                note = f"the trials of its pack run alone: {error}"
                members[0].emit(Report(0, 1, 1, note=note))
                raise Apart(str(error)) from error
            return [error]
    return [found[n] for n in range(len(members))]


_alone: dict[Shape, str] = {}
"""Why no pack of these can be compiled, as this process found."""


def _apart(members: Sequence[Member], shelf: Folder | None, reason: str) -> list[Found]:
    if len(members) > 1:
        raise Apart(reason)
    return [_run_alone(members[0], shelf, reason)]


def _run_alone(member: Member, shelf: Folder | None, reason: str = "") -> Found:
    try:
        found = run_trial.run(member.trial, member.emit, member.checkpoints, shelf)
    except Exception as error:
        return error
    return replace(found, tags={**found.tags, "trial.alone": reason}) if reason else found


@dataclass(eq=False)
class _Begun:
    """A trial of a pack where it begins."""

    run: Run
    lane: Lane
    """Its values."""
    before: Snapshot
    first: Mapping[str, float]
    """Gradients of the first step."""


def _begin(start: Start, member: Member) -> _Begun:
    """A trial at its start, or at its newest checkpoint."""
    packed = setup.packed_for(start)
    lane = setup.lane(packed, start)
    one = packed.look(lane)
    first = evaluation.gradients(start, one, setup.first_batch(start))
    before, run = evaluation.snapshot(start, one), Run(start, member.emit, member.checkpoints)
    # a trial that has run alone meanwhile was on another path, to rounding
    resumed = run.resume(one.training, " in a pack")
    return _Begun(run, [*resumed, *lane[len(resumed) :]], before, first)


def _train(begun: Sequence[_Begun], peak: Peak) -> list[Found]:
    """Trials of one shape that are at the same step, to the end."""
    packed: Packed = setup.packed_for(begun[0].run.start)
    compiled = packed.compile_seconds
    loop = TrainingLoop([b.run for b in begun], packed)
    packed.fill([b.lane for b in begun])
    for each in begun:
        each.lane = []  # large, and in the program now
    loop.train()
    shared = {"speed/compile_s": (packed.compile_seconds - compiled) / len(begun)}
    if (largest := peak.bytes()) is not None:
        shared["memory/peak_bytes"] = largest  # of all of them: none could do with less
    results = _audited(begun, packed)
    validation, test = loop.scores("validation"), loop.scores("test")
    timed = _timed(loop, packed) if results else {}
    for number, result in results.items():
        own = {**begun[number].first, **validation[number], **test[number]}
        metrics = {**result.metrics, **own, **shared, **timed}
        tags = {**result.tags, **timing.tags(metrics)}
        results[number] = replace(result, metrics=metrics, tags=tags)
    return [b.run.error or results[number] for number, b in enumerate(begun)]


def _audited(begun: Sequence[_Begun], packed: Packed) -> dict[int, TrialResult]:
    """The results of those that trained to the end, by number; all lanes are finalized."""
    lanes, loader = packed.lanes(), audit.Loader()
    results: dict[int, TrialResult] = {}
    for number, each in enumerate(begun):
        run = each.run
        if run.error is not None:
            continue
        with run.ending():
            one = packed.look(lanes[number])
            finalizing = leak_cause.finalize(one)
            lanes[number] = packed.lane()
            results[number] = run_trial.ended(
                run.start, run.start.plan, one, each.before, run.at, finalizing, loader
            )
    packed.fill(lanes)
    return results


def _timed(loop: TrainingLoop, packed: Packed) -> dict[str, float]:
    starts = [run.start for run in loop.runs]
    if not starts[0].trial.speed.rounds:
        return {}
    try:
        return evaluation.step_time_of_pack(starts, packed, (loop.x, loop.y, loop.order))
    except Exception as error:  # memory, for one; what was found is not lost with it
        run = loop.active[0]
        run.note = f"the pack was not timed: {error}"
        run.report(run.at.found.steps)
        return {}
