"""A trial: its identity, its names, and its config. Does not import TensorFlow, Ray or MLflow."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

from pydantic import ValidationError, model_validator

from masksweep.strategies.base import Strategy
from masksweep.strategies.core.npz import digest
from masksweep.strategies.errors import Invalid
from masksweep.strategies.patterns import Scored
from masksweep.strategies.registry import STRATEGIES
from masksweep.strategies.schedules.static import Static
from masksweep.sweeps.common import strict
from masksweep.sweeps.components.groups import GROUPS
from masksweep.sweeps.components.losses import DEFAULT_LOSS
from masksweep.sweeps.components.named_files import GROUPS_WITH_FILES, with_files
from masksweep.sweeps.config.display import flatten, label
from masksweep.sweeps.config.schema import TrialSchema
from masksweep.sweeps.config.sections import Speed, Start
from masksweep.sweeps.config.validation import MultipleInvalid, as_identity, as_section, explain


class Trial(TrialSchema):
    """One training run, completely described by its resolved config."""

    @model_validator(mode="after")
    def _has_pruning_trial(self) -> Self:
        if isinstance(self.pattern, Scored) and self.pattern.found_with is not None:
            _ = self.pruning_trial  # checks its settings
        return self

    @property
    def control(self) -> Trial:
        """The dense trial that this trial's speed is compared with."""
        return self.with_strategy(STRATEGIES["dense"]())

    @property
    def pruning_trial(self) -> Trial:
        """The trial of the earlier pruning rounds, for a pattern that depends on earlier trainings.

        It is this trial with the settings of `pattern.found_with`.

        Raises:
            Invalid: `pattern.found_with` has a setting of another section or names a file, or a
                value is invalid.
        """
        plain = self.resolved() | {"compare": None}
        overrides = self.pattern.found_with if isinstance(self.pattern, Scored) else None
        for group, settings in (overrides or {}).items():
            if group not in ("train", "data", "optimizer"):
                key = f"pattern.found_with.{group}"
                raise Invalid(key, settings, "settings of train, data or optimizer")
            if "path" in settings:  # only files of the trial's own sections are recorded
                raise Invalid(
                    f"pattern.found_with.{group}.path", settings["path"], "must be left out"
                )
            plain[group] = {**({} if "name" in settings else plain[group]), **settings}
        if overrides is not None:
            plain["pattern"] |= {"found_with": None}
        try:
            return parse(plain | {"objective": None})
        except Invalid as error:
            raise Invalid(f"pattern.found_with.{error.key}", error.value, error.allowed) from error

    def with_strategy(self, strategy: Strategy) -> Trial:
        """Returns the same trial with another strategy, and without a comparison."""
        other = self.model_copy(update={"strategy": strategy, "compare": None})
        for cached in ("id", "settings"):  # values that were cached for the original strategy
            other.__dict__.pop(cached, None)
        return other

    def canonical(self) -> dict[str, Any]:
        """Returns all settings that can change a bit of the result, as plain data.

        Left out are settings with their default value, so that a later version can add a setting
        without changing the identity of older trials, and settings that say where a trial runs. A
        file is represented by the digest of its content. The dense control has no mask, so settings
        of masks are left out.
        """
        components: dict[str, Any] = {
            "strategy": self.strategy,
            "model": self.model,
            "data": self.data,
            "optimizer": self.optimizer,
        }
        config: dict[str, Any] = {
            "seed": self.seed,
            "jit": self.jit,
            "trainable": self.trainable,
            "train": self.train.model_dump(exclude_defaults=True, exclude={"jit"}),
            "audit": self.audit.model_dump(exclude_defaults=True),
        }
        if self.statistics is not None or self._has_frozen_statistics:
            config["statistics"] = self.statistics
        if self.width > 1:
            config["pack"] = self.width
        if self.speed != Speed():
            config["speed"] = self.speed.model_dump()
        if self.start != Start():
            config["start"] = self.start.model_dump(exclude_defaults=True, exclude={"run"})
        if self.strategy.role == "dense":
            config["train"].pop("match_flops", None)  # its steps are those that others match
        else:
            components |= {"pattern": self.pattern, "held": self.held}
            if not isinstance(self.schedule, Static):
                components["schedule"] = self.schedule
            config |= {"targets": self.targets, "outputs_held": self.outputs_held}
            if self.compare:
                components["compare"] = self.compare
        config |= {group: as_identity(value) for group, value in components.items()}
        known = components.keys() | self._parts.keys()
        if origins := {g: o for g, o in self.origins.items() if g in known}:
            config["components"] = origins

        def content(key: str, path: str) -> str:
            return f"sha256:{self.data.digest if key == 'data.path' else digest(path)}"

        config = with_files(config, content)
        for group in config.keys() - {*GROUPS_WITH_FILES}:  # of a plugin's component
            if isinstance(section := config[group], dict) and section.get("path"):
                section["path"] = f"sha256:{digest(section['path'])}"
        if "path" not in config["data"] and self.data.digest:
            config["data"]["sha256"] = self.data.digest
        if self.train.steps is not None:
            config["train"].pop("epochs", None)
        self._simplify(config["train"])
        return config

    def _simplify(self, train: dict[str, Any]) -> None:
        """Leaves settings by output out of the canonical config where they have the default."""
        tasks = self.data.all_tasks
        own = {o: loss for o, loss in self.losses.items() if loss != DEFAULT_LOSS[tasks[o]]}
        metrics = {o: names for o, names in self.metrics.items() if names}
        settings: dict[str, Any] = {"loss": own, "metrics": metrics}
        if isinstance(self.train.loss, str) and own:
            settings["loss"] = self.train.loss
        if metrics.keys() == {next(iter(tasks))}:
            (settings["metrics"],) = metrics.values()
        weights = self.train.loss_weights or {}
        settings["loss_weights"] = {o: weight for o, weight in weights.items() if weight != 1}
        for key, value in settings.items():
            train.pop(key, None)
            if value:
                train[key] = value

    @cached_property
    def id(self) -> str:
        """The trial's identity: SHA-256 of the canonical config, in hexadecimal."""
        text = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The whole config as a flat mapping with dotted keys."""
        return flatten(self.resolved())

    @property
    def sparsity(self) -> float | None:
        """The sparsity that the pattern was asked for.

        None for the dense control, and for a pattern that is not given by a sparsity.
        """
        unset = self.strategy.role == "dense" or getattr(self.pattern, "indices", None)
        return None if unset else getattr(self.pattern, "sparsity", None)

    @property
    def label(self) -> str:
        """The strategy with its settings that are not default, as `weight_mask(form=product)`."""
        return label(self.strategy)

    @property
    def pattern_label(self) -> str:
        """The pattern, the schedule if it is not static, and the held values if they are not zero,
        as `random 0.9, rigl, held init`; `-` if nothing is masked."""
        if self.strategy.role == "dense":
            return "-"
        sparsity = self.sparsity
        text = f"{self.pattern.name} {sparsity:g}" if sparsity is not None else label(self.pattern)
        if not isinstance(self.schedule, Static):
            text = f"{text}, {label(self.schedule)}"
        return text if self.held.name == "zero" else f"{text}, held {label(self.held)}"

    @property
    def name(self) -> str:
        """A name with strategy, pattern, sparsity and seed."""
        parts = [self.label, *([] if self.pattern_label == "-" else [self.pattern_label])]
        return ", ".join([*parts, f"seed {self.seed}"])

    def resolved(self) -> dict[str, Any]:
        """Returns the whole config as plain data, from which `parse` builds the same trial."""
        config = self.model_dump(exclude={"sweep", "components"}, exclude_defaults=False)
        for group in GROUPS:
            config[group] = as_section(getattr(self, group))
        config["compare"] = as_section(self.compare) if self.compare else None
        return config | ({"components": self.origins} if self.origins else {})


def recorded_config(trial: Trial) -> dict[str, Any]:
    """Returns the resolved config as it is recorded.

    Settings that say where the trial ran are left out, because they may hold secrets.
    """
    config = trial.resolved()
    public = {k: v for k, v in config.items() if k not in ("tracking", "launch", "checkpoint")}
    return public | ({"launch": {"pack": trial.width}} if trial.width > 1 else {})


def parse(config: Mapping[str, Any]) -> Trial:
    """Returns the trial that a resolved config describes.

    Raises:
        Invalid: The config is not valid; the error has the key, the value and the allowed range.
    """
    if faults := [*strict.control_character_errors("", config)]:
        raise MultipleInvalid(faults)
    try:
        return Trial.model_validate(dict(config))
    except ValidationError as error:
        raise MultipleInvalid(explain(error)) from error
