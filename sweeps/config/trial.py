"""The typed schema of one trial, and its identity. Loads neither TensorFlow, Ray nor MLflow."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from functools import cache, cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    model_validator,
)

from masksweep.strategies.base import Invalid, Strategy
from masksweep.strategies.core.npz import digest
from masksweep.strategies.held import Held
from masksweep.strategies.patterns import Pattern, Scored
from masksweep.strategies.registry import STRATEGIES
from masksweep.sweeps.common import strict
from masksweep.sweeps.components.datasets import DataSet
from masksweep.sweeps.components.groups import GROUPS
from masksweep.sweeps.components.models import Model
from masksweep.sweeps.components.optimizers import Optimizer
from masksweep.sweeps.config.sections import (
    Audit,
    Checkpoint,
    Launch,
    Resources,
    Section,
    Speed,
    Sweep,
    Tracking,
    Train,
)
from masksweep.sweeps.config.validation import Several, build, explain, knobs

Globs = Annotated[list[str], Field(min_length=1)]


Objective = Literal[
    "train/loss", "train/accuracy", "train/mse",
    "validation/loss", "validation/accuracy", "validation/mse",
    "test/loss", "test/accuracy", "test/mse",
    "integrity/ok", "integrity/violations", "integrity/peak_violations",
    "speed/step_ms", "speed/ratio_to_dense",
]  # fmt: skip
"""Metrics that a sweeper can get back."""


def _named(group: str) -> BeforeValidator:
    return BeforeValidator(lambda given: build(group, given, GROUPS[group]))


def _reference(given: Any) -> Any:
    named = {"name": given} if isinstance(given, str) else given
    return None if given is None else build("compare", named, STRATEGIES)


class Trial(Section):
    """One training run, fully given by its resolved config."""

    strategy: Annotated[Strategy, _named("strategy")]
    pattern: Annotated[Pattern, _named("pattern")]
    held: Annotated[Held, _named("held")]
    model: Annotated[Model, _named("model")]
    data: Annotated[DataSet, _named("data")]
    optimizer: Annotated[Optimizer, _named("optimizer")]
    components: dict[str, str] = {}
    """Where the components come from that do not ship with Masksweep, by group: a distribution and
    its version, or a file's digest. Recorded with a trial; where it is given, it must hold here."""
    targets: Globs | None = None
    """Globs on `layer/variable`; null targets every kernel but the last."""
    trainable: Globs = ["*"]
    statistics: list[str] | None = None
    """Globs on the non-trainable weights that are updated, as the moving statistics of
    BatchNormalization; null takes those that `trainable` matches. A layer none of whose statistics
    is updated computes as a Keras layer with `trainable = False`."""
    outputs_held: list[Annotated[int, Field(ge=0)]] = []
    compare: Annotated[Strategy | None, BeforeValidator(_reference)] = None
    """A strategy, or its name: trained in step with the trial's own, to find where they part. The
    dense control takes none."""
    seed: Annotated[int, Field(ge=0, strict=True)] = 0
    objective: Objective | None = None
    """The metric that the trial is about; null takes `test/accuracy` or `test/mse`, by the task."""
    train: Train = Train()
    audit: Audit = Audit()
    speed: Speed = Speed()
    resources: Resources = Resources()
    launch: Launch = Launch()
    checkpoint: Checkpoint = Checkpoint()
    tracking: Tracking = Tracking()
    sweep: Sweep = Sweep()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for group, origin in self.components.items():
            if origin != (here := self.origins.get(group, "what ships with Masksweep")):
                raise Invalid(f"components.{group}", origin, f"here it is {here}")
        if self.train.jit is True and not self.strategy.xla:
            raise Invalid("train.jit", True, f"{self.strategy.name} does not compile under XLA")
        for name, claim in self.sweep.claims.items():
            for key in (*claim.trials, *(claim.minus or ())):
                if key not in _selectable():
                    raise Invalid(f"sweep.claims.{name}", key, "no key of a trial, part or role")
        if self.sweep.page == "leaks" and self.audit.every != 1:
            raise Invalid("audit.every", self.audit.every, "1 with sweep.page=leaks")
        if isinstance(self.pattern, Scored) and self.held.name != "zero":
            allowed = f"zero with pattern={self.pattern.name}, which goes by magnitude"
            raise Invalid("held", self.held.name, allowed)
        if self.train.jit is True and self.compare and not self.compare.xla:
            raise Invalid("train.jit", True, f"{self.compare.name} does not compile under XLA")
        if self.compare == self.strategy:
            raise Invalid("compare", self.strategy.name, "must be another one than the trial's own")
        if self.compare and (self.train.switch_at or self.train.resume_at):
            raise Invalid("compare", self.compare.name, "not with train.switch_at or resume_at")
        if self.train.switch_at and isinstance(self.pattern, Scored):
            raise Invalid("train.switch_at", self.train.switch_at, f"not with {self.pattern.name}")
        objective = self.objective or f"test/{self.score}"
        if self.data.validation == 0 and objective.startswith("validation/"):
            raise Invalid("objective", objective, "data.validation is 0; test/loss, ...")
        other = {"classification": "/mse", "regression": "/accuracy"}[self.data.task]
        if objective.endswith(other):
            raise Invalid("objective", objective, f"{self.data.name} is {self.data.task}")
        if isinstance(self.pattern, Scored) and self.pattern.found_with is not None:
            _ = self.rounds  # checks them
        return self

    @property
    def origins(self) -> dict[str, str]:
        """Where the components come from that do not ship with Masksweep, by group."""
        named = {group: (GROUPS[group], getattr(self, group)) for group in GROUPS}
        named["compare"] = STRATEGIES, self.compare
        found = {g: registry.origin(c.name) for g, (registry, c) in named.items() if c}
        return {group: origin for group, origin in found.items() if origin}

    @property
    def jit(self) -> bool:
        """Whether the training step is compiled by XLA."""
        if self.train.jit != "auto":
            return self.train.jit
        on_gpu = self.resources.num_gpus > 0
        return self.strategy.xla and (on_gpu or self.model.gains_by_xla)

    @property
    def width(self) -> int:
        """How many trials its program runs side by side; 1 where it can only run alone."""
        return 1 if self.alone else self.launch.pack

    @property
    def alone(self) -> str:
        """Why it can only run alone whatever its network is, if so."""
        if not self.jit:
            return "without XLA (train.jit)"
        if self.train.switch_at or self.train.resume_at:
            return "train.switch_at and train.resume_at are a single trial's"
        if self.compare:
            return "compare trains a second time, in step"
        overwritten = self.optimizer.use_ema and self.optimizer.ema_overwrite_frequency
        return "optimizer.ema_overwrite_frequency is a condition in the step" if overwritten else ""

    @property
    def _has_frozen_statistics(self) -> bool:
        """Whether `trainable` alone may keep statistics from being updated."""
        return self.model.has_statistics and self.trainable != ["*"]

    @property
    def control(self) -> Trial:
        """The dense trial that this one is timed against."""
        return self.under(STRATEGIES["dense"]())

    @property
    def rounds(self) -> Trial:
        """The training of the rounds before, of a pattern that goes by trainings.

        Raises `Invalid` where what they have otherwise does not fit.
        """
        plain = self.resolved() | {"compare": None}
        other = self.pattern.found_with if isinstance(self.pattern, Scored) else None
        for group, given in (other or {}).items():
            if group not in ("train", "data", "optimizer"):
                key = f"pattern.found_with.{group}"
                raise Invalid(key, given, "settings of train, data or optimizer")
            plain[group] = {**({} if "name" in given else plain[group]), **given}
        if other is not None:
            plain["pattern"] |= {"found_with": None}
        try:
            return parse(plain | {"objective": None})
        except Invalid as error:
            raise Invalid(f"pattern.found_with.{error.key}", error.value, error.allowed) from error

    def under(self, strategy: Strategy) -> Trial:
        """The same trial under another strategy."""
        other = self.model_copy(update={"strategy": strategy, "compare": None})
        for cached in ("id", "settings"):  # copied with the rest
            other.__dict__.pop(cached, None)
        return other

    def canonical(self) -> dict[str, Any]:
        """All that can change a bit of the result, without what is default and where it runs.

        Leaving defaults out lets a later version add a knob without changing old identities.
        Files count by their content. The dense control has no mask, so none is in it.
        """
        named: dict[str, Any] = {
            "strategy": self.strategy,
            "model": self.model,
            "data": self.data,
            "optimizer": self.optimizer,
        }
        found: dict[str, Any] = {
            "seed": self.seed,
            "jit": self.jit,
            "trainable": self.trainable,
            "train": self.train.model_dump(exclude_defaults=True, exclude={"jit"}),
            "audit": self.audit.model_dump(exclude_defaults=True),
        }
        if self.statistics is not None or self._has_frozen_statistics:
            found["statistics"] = self.statistics
        if self.width > 1:
            found["pack"] = self.width
        if self.speed != Speed():
            found["speed"] = self.speed.model_dump()
        if self.strategy.role != "dense":
            named |= {"pattern": self.pattern, "held": self.held}
            found |= {"targets": self.targets, "outputs_held": self.outputs_held}
            if self.compare:
                named["compare"] = self.compare
        found |= {group: knobs(value, defaults=False) for group, value in named.items()}
        if origins := {g: o for g, o in self.origins.items() if g in named}:
            found["components"] = origins
        for section in found.values():
            if isinstance(section, dict) and "path" in section:
                section["path"] = f"sha256:{digest(section['path'])}"
        if self.train.steps is not None:
            found["train"].pop("epochs", None)
        return found

    @cached_property
    def id(self) -> str:
        """SHA-256 of the canonical config."""
        text = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The whole config without nesting, by dotted keys."""
        return flat(self.resolved())

    @property
    def score(self) -> str:
        """What its test score is."""
        return "accuracy" if self.data.task == "classification" else "mse"

    @property
    def sparsity(self) -> float | None:
        """The sparsity that the pattern was asked for; None where it was asked otherwise."""
        otherwise = self.strategy.role == "dense" or getattr(self.pattern, "indices", None)
        return None if otherwise else getattr(self.pattern, "sparsity", None)

    @property
    def label(self) -> str:
        """The strategy with the knobs that are not default, as `weight_mask(form=product)`."""
        return label(self.strategy)

    @property
    def pattern_label(self) -> str:
        """The pattern and what is held, as `random 0.9 held zero`; `-` where nothing is masked."""
        if self.strategy.role == "dense":
            return "-"
        given = self.sparsity
        shown = f"{self.pattern.name} {given:g}" if given is not None else label(self.pattern)
        return shown if self.held.name == "zero" else f"{shown}, held {label(self.held)}"

    @property
    def name(self) -> str:
        """A name that says strategy, pattern, sparsity and seed."""
        parts = [self.label, *([] if self.pattern_label == "-" else [self.pattern_label])]
        return ", ".join([*parts, f"seed {self.seed}"])

    def resolved(self) -> dict[str, Any]:
        """The whole config as plain data; `parse` makes the same trial of it."""
        plain = self.model_dump(exclude={"sweep", "components"}, exclude_defaults=False)
        for group in GROUPS:
            plain[group] = knobs(getattr(self, group))
        plain["compare"] = knobs(self.compare) if self.compare else None
        return plain | ({"components": self.origins} if self.origins else {})


@cache
def _selectable() -> frozenset[str]:
    """What a claim may choose trials by: `part`, `role`, and the keys of `Trial.settings`."""
    whole: type[BaseModel] = Trial
    others = {"components", "sweep", "launch", "checkpoint", "tracking"}
    found = {"part", "role", *whole.model_fields} - others
    for group, registry in {**GROUPS, "compare": STRATEGIES}.items():
        found |= {f"{group}.{f.name}" for kind in registry.values() for f in fields(kind)}
    sections: dict[str, type[BaseModel]] = {"train": Train, "audit": Audit, "speed": Speed}
    for key, section in sections.items():
        found |= {f"{key}.{name}" for name in section.model_fields}
    return frozenset(found)


def recorded(trial: Trial) -> dict[str, Any]:
    """The resolved config as it is kept: without where it ran, which may hold secrets."""
    config = trial.resolved()
    kept = {k: v for k, v in config.items() if k not in ("tracking", "launch", "checkpoint")}
    return kept | ({"launch": {"pack": trial.width}} if trial.width > 1 else {})


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without nesting: `group` is its object's name, `group.key` a setting of it."""
    found: dict[str, Any] = {}
    for group, value in config.items():
        if isinstance(value, Mapping):
            found |= {group if k == "name" else f"{group}.{k}": v for k, v in value.items()}
        else:
            found[group] = value
    return found


def label(value: Any) -> str:
    """An object's name with the settings that are not default, as `random(sparsity=0.9)`."""
    settings = {k: v for k, v in knobs(value, defaults=False).items() if k not in ("name", "path")}
    inner = ", ".join(f"{k}={v}" for k, v in settings.items())
    return f"{value.name}({inner})" if inner and len(inner) < 40 else str(value.name)


def parse(config: Mapping[str, Any]) -> Trial:
    """The trial that a resolved config describes. Raises `Invalid` with key, value and range."""
    if found := [*strict.controls("", config)]:
        raise Several(found)
    try:
        return Trial.model_validate(dict(config))
    except ValidationError as error:
        raise Several(explain(error)) from error
