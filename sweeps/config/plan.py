"""The plan of a sweep: its trials, checked before the first of them starts."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.common.redact import holds_secret, redact
from masksweep.sweeps.config.composed import ComposedJob
from masksweep.sweeps.config.selection import select
from masksweep.sweeps.config.trial import Trial, parse
from masksweep.sweeps.config.validation import MultipleInvalid, single_faults
from masksweep.sweeps.config.variants import variants

if TYPE_CHECKING:
    from masksweep.sweeps.config.claim import Claim
    from masksweep.sweeps.results import PreflightAnswer, StoredResult

MAX_REPORTED_FAULTS = 20
"""Largest number of faults that are reported at once."""


@dataclass(frozen=True)
class PlannedTrial:
    """One trial in the plan of a sweep."""

    trial: Trial
    overrides: Sequence[str]
    variant: str = ""
    """Settings that distinguish the trial from others of the same strategy and pattern, as
    `adamw`."""
    refusal: str = ""
    """Why the strategy cannot hold the trial's masks; set by the preflight."""
    cut_off: str = ""
    """Units and inputs that the masks leave without any connection; set by the preflight."""
    chosen: str = ""
    """What the strategy chooses for the masks, as `format: block`; set by the preflight."""
    previous_result: StoredResult | None = None
    """The result, if the trial finished in an earlier run of the sweep."""
    parts: frozenset[str] = frozenset()
    """Names of the parts of the sweep that the trial belongs to."""

    @property
    def name(self) -> str:
        return ", ".join(filter(None, [self.trial.name, self.variant]))

    @property
    def state(self) -> str:
        """`done`, `skipped` or `to run`."""
        if self.previous_result:
            return "done"
        return "skipped" if self.refusal else "to run"

    def describe(self) -> dict[str, Any]:
        """Returns the entry of the trial in `masksweep plan --json`."""
        entry = {
            "id": self.trial.id,
            "name": self.name,
            "overrides": recordable_overrides(self.overrides),
            "state": self.state,
        }
        notes = {"reason": self.refusal, "cut_off": self.cut_off, "chosen": self.chosen}
        return entry | {key: text for key, text in notes.items() if text}


def recordable_overrides(overrides: Sequence[str]) -> list[str]:
    """Returns the overrides that may be shown and recorded.

    Left out are overrides of `tracking`, `launch` and `checkpoint`, and overrides with an address
    that may hold a password or token. `launch.pack` is included, because it is part of a trial's
    identity.
    """
    return [
        o
        for o in overrides
        if (
            re.split(r"[^\w]", o.lstrip("+~"))[0] not in ("tracking", "launch", "checkpoint")
            or re.match(r"\+*launch\.pack=", o)  # part of a trial's identity
        )
        and not holds_secret(o)
    ]


def plan(jobs: Sequence[ComposedJob], trials: Sequence[Trial]) -> list[PlannedTrial]:
    """Returns the distinct trials of the jobs, in order.

    The dense control is the same trial under every pattern, so it is planned only once.

    Args:
        jobs: The composed jobs of the sweep.
        trials: The trial of each job, in the order of the jobs.

    Raises:
        Invalid: There is no job, two jobs other than dense controls describe the same trial, a
            setting of the whole sweep has several values, or a claim cannot pair its trials by
            seed.
    """
    for section in ("launch", "checkpoint", "tracking", "sweep"):
        if any(getattr(t, section) != getattr(trials[0], section) for t in trials):
            raise _one_for_all(section, trials)
    distinct: dict[str, PlannedTrial] = {}
    parts: dict[str, set[str]] = {}
    for trial, job in zip(trials, jobs, strict=True):
        parts.setdefault(trial.id, set()).add(job.part)
        if trial.id in distinct and trial.strategy.role != "dense":
            duplicate = " ".join(recordable_overrides(job.overrides))
            allowed = f"each trial must be described once; described again by {duplicate}"
            raise Invalid("seed", trial.seed, allowed)
        distinct.setdefault(trial.id, PlannedTrial(trial, job.overrides))
    labels = variants([p.trial for p in distinct.values()])
    planned = [
        replace(p, variant=labels[i], parts=frozenset(parts[i])) for i, p in distinct.items()
    ]
    check_pairs(trials[0].sweep.claims, planned)
    return planned


def _one_for_all(section: str, trials: Sequence[Trial]) -> Invalid:
    """Returns the fault: a setting of the whole sweep that differs between its trials."""
    for name in type(getattr(trials[0], section)).model_fields:
        values = [getattr(getattr(t, section), name) for t in trials]
        others = [v for v in values if v != values[0]]
        if others:
            values_text = redact(f"{values[0]},{others[0]}")
            return Invalid(f"{section}.{name}", values_text, "must be one for the whole sweep")
    return Invalid(section, "", "must be one for the whole sweep")


def sort_by_program(planned: Sequence[PlannedTrial]) -> list[PlannedTrial]:
    """Returns the same trials, with those that use the same compiled program next to each other.

    A worker keeps only its most recently compiled programs. Trials with the same program stay in
    their order; they differ only in values that the program takes as inputs (seed, masks, held
    values, and the learning rate without a schedule).
    """
    groups: dict[str, list[PlannedTrial]] = {}
    for p in planned:
        config = p.trial.canonical()
        names = ("strategy", "model", "data", "trainable", "jit", "optimizer")
        program_config = {k: config[k] for k in names}
        if p.trial.width > 1 or p.trial.optimizer.schedule is None:
            program_config["optimizer"] = {**config["optimizer"], "learning_rate": None}
        program_config |= {key: config.get(key) for key in ("targets", "statistics")}
        groups.setdefault(json.dumps(program_config, sort_keys=True), []).append(p)
    return [p for members in groups.values() for p in members]


def group_into_packs(planned: Sequence[PlannedTrial]) -> list[list[PlannedTrial]]:
    """Groups the trials into packs: trials that run side by side in one program.

    A trial that can only run alone is a group of one. A pack has at most `launch.pack` trials.
    """
    groups: dict[str, list[PlannedTrial]] = {}
    for p in sort_by_program(planned):
        config = p.trial.canonical()
        shared_config = {k: v for k, v in config.items() if k not in ("seed", "pattern", "held")}
        shared_config["optimizer"] = {**config["optimizer"], "learning_rate": None}
        shared_config["resources"] = p.trial.resources.model_dump()
        key = json.dumps(shared_config, sort_keys=True) if p.trial.width > 1 else p.trial.id
        groups.setdefault(key, []).append(p)
    return [
        members[i : i + members[0].trial.width]
        for members in groups.values()
        for i in range(0, len(members), members[0].trial.width)
    ]


def with_answers(
    planned: Sequence[PlannedTrial], answers: Mapping[str, PreflightAnswer]
) -> list[PlannedTrial]:
    """Returns the plan with the answers of the preflight filled in.

    Args:
        planned: The plan.
        answers: Answer of the preflight by trial id. A trial without an answer counts as accepted.
    """
    return [
        replace(p, refusal=answer.refusal, cut_off=answer.cut_off, chosen=answer.chosen)
        if (answer := answers.get(p.trial.id))
        else replace(p, refusal="", cut_off="", chosen="")
        for p in planned
    ]


def print_plan(planned: Sequence[PlannedTrial], as_json: bool) -> None:
    """Prints a plan, as text or as JSON."""
    if as_json:
        print(json.dumps({"trials": [p.describe() for p in planned]}, indent=2))
        return
    for p in planned:
        suffix = f"  {p.state}" if p.state != "to run" else ""
        suffix += f": {p.refusal}" if p.refusal else ""
        suffix += f"  cut off: {p.cut_off}" if p.cut_off else ""
        suffix += f"  {p.chosen}" if p.chosen else ""
        print(f"{p.trial.id[:12]}  {p.name}{suffix}")
    print_counts(planned)


def print_counts(planned: Sequence[PlannedTrial]) -> None:
    """Prints what is read from files, and how many trials there are in each state."""
    for name in dict.fromkeys(text for p in planned for text in _files(p.trial) if text):
        print(name)
    print(count_by_state(planned))
    new = [p for p in planned if p.state == "to run"]
    if any(p.trial.launch.pack > 1 for p in new):
        alone = sum(p.trial.width == 1 for p in new)
        suffix = f", {count_trials(alone)} alone" if alone else ""
        width, count = new[0].trial.launch.pack, len(group_into_packs(new)) - alone
        print(
            f"side by side: {count} {'pack' if count == 1 else 'packs'} of at most {width}{suffix}"
        )


def _data_from_file(trial: Trial) -> str:
    """Returns the task of data from a file, which may follow from its content; else empty."""
    path = getattr(trial.data, "path", None)
    return f"data={trial.data.name} data.path={path}: {trial.data.task}" if path else ""


def _files(trial: Trial) -> tuple[str, str]:
    """Returns what the plan says of the trial's data and start, if these are from files."""
    return _data_from_file(trial), _start_from_file(trial)


def _start_from_file(trial: Trial) -> str:
    """Returns which weights a trial starts from, as `start.run=... start.path=...: ...`."""
    start = trial.start
    if start.path is None:
        return ""
    run = f"start.run={start.run} " if start.run else ""
    new = f", without the new outputs of {', '.join(start.new)}" if start.new else ""
    return f"{run}start.path={start.path}: its weights are the initial ones{new}"


def count_by_state(planned: Sequence[PlannedTrial]) -> str:
    """Returns the number of trials in each state, as `60 trials: 48 done, 12 to run`."""
    states = [p.state for p in planned]
    counts = [f"{states.count(s)} {s}" for s in ("done", "to run", "skipped") if s in states]
    return f"{count_trials(len(planned))}: {', '.join(counts)}"


def parse_trials(jobs: Sequence[ComposedJob]) -> list[Trial]:
    """Returns the trial that each job's config describes.

    Raises:
        Invalid: A config is invalid. Reports the faults of all jobs together, at most
            `MAX_REPORTED_FAULTS` of them.
    """
    parsed: list[Trial] = []
    faults: list[Invalid] = []
    for job in jobs:
        try:
            parsed.append(parse(job.values))
        except Invalid as error:
            faults = single_faults(MultipleInvalid([*faults, error]))
            if len(faults) >= MAX_REPORTED_FAULTS:
                break
    if faults:
        raise MultipleInvalid(faults[:MAX_REPORTED_FAULTS])
    return parsed


def count_trials(count: int) -> str:
    """Returns a count with its noun, as `1 trial` or `3 trials`."""
    return f"{count} trial" if count == 1 else f"{count} trials"


def sweep_name(trial: Trial, arguments: Sequence[str]) -> str:
    """Returns the name of a sweep: `sweep.name`, or a name derived from the overrides.

    The same overrides always give the same name.

    Args:
        trial: A trial of the sweep.
        arguments: Arguments of the command line. Only overrides count, not flags and their values.
    """
    if trial.sweep.name:
        return trial.sweep.name
    given = [a for a in arguments if not a.startswith("-") and ("=" in a or a.startswith("~"))]
    overrides = recordable_overrides(given)
    text = " ".join(overrides) or "default"
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return text if len(text) <= 60 else f"{text[:50]}... {digest}"


def check_pairs(claims: Mapping[str, Claim], planned: Sequence[PlannedTrial]) -> None:
    """Checks that each claim with `minus` can pair its trials by seed.

    Runs before the first trial, so that no training time is spent on a sweep that cannot be judged.

    Args:
        claims: The claims by name.
        planned: The plan of the sweep.

    Raises:
        Invalid: A selection of a claim has two trials of the same seed.
    """
    parts = {p.trial.id: p.parts for p in planned}
    for name, claim in claims.items():
        selections = {"trials": claim.trials, "minus": claim.minus}
        for key, selection in selections.items() if claim.minus is not None else ():
            seeds = [p.trial.seed for p in select(selection, planned, parts)]
            for seed in seeds:
                if seeds.count(seed) > 1:
                    message = f"{selection} has two trials of seed {seed}; one for each seed"
                    raise Invalid(f"sweep.claims.{name}", key, message)
