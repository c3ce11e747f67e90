"""What a sweep consists of: its trials, checked, before any of them starts."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from masksweep.strategies.base import Invalid
from masksweep.sweeps.common.redact import holds_secret, shown
from masksweep.sweeps.config.composed import Composed
from masksweep.sweeps.config.selection import selected
from masksweep.sweeps.config.trial import Trial, parse
from masksweep.sweeps.config.validation import Several, all_of
from masksweep.sweeps.config.variants import variants

if TYPE_CHECKING:
    from masksweep.sweeps.config.claim import Claim
    from masksweep.sweeps.results import Answer, Found

FAULTS = 20
"""Faults of a sweep that are told at once."""


@dataclass(frozen=True)
class Planned:
    """One trial of a sweep before it runs."""

    trial: Trial
    overrides: Sequence[str]
    variant: str = ""
    """What tells it apart from trials of the same strategy and pattern, as `adamw`."""
    refusal: str = ""
    """Why its strategy cannot hold its plan; only the preflight can tell."""
    cut_off: str = ""
    """Units and inputs that its masks leave without a connection; the preflight can tell."""
    found: Found | None = None
    """What it found, if it has finished in an earlier run of the sweep."""
    parts: frozenset[str] = frozenset()
    """The parts of the sweep that it belongs to."""

    @property
    def name(self) -> str:
        return ", ".join(filter(None, [self.trial.name, self.variant]))

    @property
    def state(self) -> str:
        if self.found:
            return "done"
        return "skipped" if self.refusal else "to run"

    def described(self) -> dict[str, Any]:
        """As `masksweep plan --json` prints it."""
        found = {
            "id": self.trial.id,
            "name": self.name,
            "overrides": public(self.overrides),
            "state": self.state,
        }
        more = {"reason": self.refusal, "cut_off": self.cut_off}
        return found | {key: text for key, text in more.items() if text}


def public(overrides: Sequence[str]) -> list[str]:
    """The overrides that may be shown and recorded: an address may hold a password."""
    return [
        o
        for o in overrides
        if (
            re.split(r"[^\w]", o.lstrip("+~"))[0] not in ("tracking", "launch", "checkpoint")
            or re.match(r"\+*launch\.pack=", o)  # part of what a trial is
        )
        and not holds_secret(o)
    ]


def plan(jobs: Sequence[Composed], trials: Sequence[Trial]) -> list[Planned]:
    """Every distinct trial of the jobs, `trials` being what each describes, in order.

    The dense control is the same trial under every pattern, so it is planned once. Raises
    `Invalid` if two of any others say the same, or what belongs to the sweep as a whole is swept
    over.
    """
    for section in ("launch", "checkpoint", "tracking", "sweep"):
        if any(getattr(t, section) != getattr(trials[0], section) for t in trials):
            raise _one_for_all(section, trials)
    distinct: dict[str, Planned] = {}
    parts: dict[str, set[str]] = {}
    for trial, job in zip(trials, jobs, strict=True):
        parts.setdefault(trial.id, set()).add(job.part)
        if trial.id in distinct and trial.strategy.role != "dense":
            said = " ".join(public(job.overrides))
            raise Invalid("seed", trial.seed, f"each trial once; said again by {said}")
        distinct.setdefault(trial.id, Planned(trial, job.overrides))
    told = variants([p.trial for p in distinct.values()])
    found = [replace(p, variant=told[i], parts=frozenset(parts[i])) for i, p in distinct.items()]
    check_pairs(trials[0].sweep.claims, found)
    return found


def _one_for_all(section: str, trials: Sequence[Trial]) -> Invalid:
    """What of a section of the whole sweep differs between its trials."""
    for name in type(getattr(trials[0], section)).model_fields:
        values = [getattr(getattr(t, section), name) for t in trials]
        if other := next((v for v in values if v != values[0]), None):
            said = shown(f"{values[0]},{other}")
            return Invalid(f"{section}.{name}", said, "one for the whole sweep, no list")
    return Invalid(section, "", "one for the whole sweep, no list")


def by_program(planned: Sequence[Planned]) -> list[Planned]:
    """The same, those of one program together: a worker keeps the newest few that it compiled.

    What only enters a program as values (seed, masks, held values, learning rate) is left in order.
    """
    groups: dict[str, list[Planned]] = {}
    for p in planned:
        config = p.trial.canonical()
        shaped = {k: config[k] for k in ("strategy", "model", "data", "trainable", "jit")}
        shaped["optimizer"] = {**config["optimizer"], "learning_rate": None}
        shaped |= {key: config.get(key) for key in ("targets", "statistics")}
        groups.setdefault(json.dumps(shaped, sort_keys=True), []).append(p)
    return [p for members in groups.values() for p in members]


def packs(planned: Sequence[Planned]) -> list[list[Planned]]:
    """Those that run side by side; each trial that can only run alone is by itself."""
    groups: dict[str, list[Planned]] = {}
    for p in by_program(planned):
        config = p.trial.canonical()
        alike = {k: v for k, v in config.items() if k not in ("seed", "pattern", "held")}
        alike["optimizer"] = {**config["optimizer"], "learning_rate": None}
        alike["resources"] = p.trial.resources.model_dump()
        key = json.dumps(alike, sort_keys=True) if p.trial.width > 1 else p.trial.id
        groups.setdefault(key, []).append(p)
    return [
        members[i : i + members[0].trial.width]
        for members in groups.values()
        for i in range(0, len(members), members[0].trial.width)
    ]


def refused(planned: Sequence[Planned], answers: Mapping[str, Answer]) -> list[Planned]:
    """The plan with its refusals and what is cut off, given by trial id."""
    return [
        replace(p, refusal=answer.refusal, cut_off=answer.cut_off)
        if (answer := answers.get(p.trial.id))
        else replace(p, refusal="", cut_off="")
        for p in planned
    ]


def show(planned: Sequence[Planned], as_json: bool) -> None:
    """Print a plan."""
    if as_json:
        print(json.dumps({"trials": [p.described() for p in planned]}, indent=2))
        return
    for p in planned:
        said = f"  {p.state}" if p.state != "to run" else ""
        said += f": {p.refusal}" if p.refusal else ""
        said += f"  cut off: {p.cut_off}" if p.cut_off else ""
        print(f"{p.trial.id[:12]}  {p.name}{said}")
    print(counted(planned))
    new = [p for p in planned if p.state == "to run"]
    if any(p.trial.launch.pack > 1 for p in new):
        alone = sum(p.trial.width == 1 for p in new)
        said = f", {trials(alone)} alone" if alone else ""
        width, count = new[0].trial.launch.pack, len(packs(new)) - alone
        print(f"side by side: {count} {'pack' if count == 1 else 'packs'} of at most {width}{said}")


def counted(planned: Sequence[Planned]) -> str:
    """How many there are in each state, as `60 trials: 48 done, 12 to run`."""
    states = [p.state for p in planned]
    said = [f"{states.count(s)} {s}" for s in ("done", "to run", "skipped") if s in states]
    return f"{trials(len(planned))}: {', '.join(said)}"


def trials_of(jobs: Sequence[Composed]) -> list[Trial]:
    """The trials that the jobs' configs describe. Raises `Invalid` with all that is wrong."""
    found: list[Trial] = []
    faults: list[Invalid] = []
    for job in jobs:
        try:
            found.append(parse(job.values))
        except Invalid as error:
            faults = all_of(Several([*faults, error]))
            if len(faults) >= FAULTS:
                break
    if faults:
        raise Several(faults[:FAULTS])
    return found


def trials(count: int) -> str:
    """A number of trials in words."""
    return f"{count} trial" if count == 1 else f"{count} trials"


def sweep_name(trial: Trial, arguments: Sequence[str]) -> str:
    """The name of the trial's sweep: as given, or from its overrides: the same, the same name."""
    if trial.sweep.name:
        return trial.sweep.name
    said = public([a for a in arguments if not a.startswith("-")])
    text = " ".join(said) or "default"
    short = hashlib.sha256(text.encode()).hexdigest()[:8]
    return text if len(text) <= 60 else f"{text[:50]}... {short}"


def check_pairs(claims: Mapping[str, Claim], planned: Sequence[Planned]) -> None:
    """Raise `Invalid` if a side of a paired difference has two trials of one seed.

    To be known before the first trial: after the last, all would have been in vain.
    """
    parts = {p.trial.id: p.parts for p in planned}
    for name, claim in claims.items():
        for selection in (claim.trials, claim.minus) if claim.minus is not None else ():
            seeds = [p.trial.seed for p in selected(selection, planned, parts)]
            for seed in seeds:
                if seeds.count(seed) > 1:
                    said = f"{selection} has two trials of seed {seed}; one for each seed"
                    raise Invalid(f"sweep.claims.{name}", "minus", said)
