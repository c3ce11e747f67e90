"""The schema of one trial: its settings, and what follows from them."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, model_validator

from masksweep.strategies.base import Strategy
from masksweep.strategies.errors import Invalid
from masksweep.strategies.held import Held
from masksweep.strategies.patterns import Pattern, Scored
from masksweep.strategies.plan import Plan
from masksweep.strategies.registry import STRATEGIES, Registry
from masksweep.strategies.schedules import MaskSchedule
from masksweep.strategies.schedules.static import Static
from masksweep.strategies.schedules.swap import Swap
from masksweep.sweeps.components.datasets import DataSet
from masksweep.sweeps.components.datasets.arrays import score_name
from masksweep.sweeps.components.groups import GROUPS
from masksweep.sweeps.components.losses import DEFAULT_LOSS, OWN_LOSSES
from masksweep.sweeps.components.metrics import OWN_METRICS
from masksweep.sweeps.components.models import Model
from masksweep.sweeps.components.optimizers import Optimizer
from masksweep.sweeps.components.schedules import SCHEDULES as LEARNING_RATES
from masksweep.sweeps.config import training_checks
from masksweep.sweeps.config.fields import ComparisonStrategy, Globs, Targets, component
from masksweep.sweeps.config.score_metric import MEASURED, PARTS, ScoreMetric
from masksweep.sweeps.config.sections import (
    Audit,
    Checkpoint,
    Launch,
    Resources,
    Section,
    Speed,
    Start,
    Sweep,
    Text,
    Tracking,
    Train,
)


class TrialSchema(Section):
    """The settings of one training run."""

    strategy: Annotated[Strategy, component("strategy")]
    pattern: Annotated[Pattern, component("pattern")]
    held: Annotated[Held, component("held")]
    schedule: Annotated[MaskSchedule, component("schedule")] = Static()
    """How the masks change in the course of the training."""
    model: Annotated[Model, component("model")]
    data: Annotated[DataSet, component("data")]
    optimizer: Annotated[Optimizer, component("optimizer")]
    components: dict[str, str] = {}
    """Origin of each component that does not ship with Masksweep, by group (`learning_rate`,
    `loss`, `loss.OUTPUT` and `metric.NAME` for those that settings name): a distribution and its
    version, or the digest of a file. It is recorded with a trial. If it is given, the component
    installed here must have the same origin."""
    targets: Targets = None
    """Globs for the variables that are masked, as `layer/variable`; a glob that begins with `!`
    excludes. null selects every kernel but the last, and `inner` every kernel but the first and
    the last; with several outputs all kernels that make one stand for the last."""
    trainable: Globs = ["*"]
    """Globs for the variables that are trained."""
    statistics: list[str] | None = None
    """Globs for the non-trainable weights that are updated, as the moving statistics of
    BatchNormalization; null selects those that `trainable` matches. A layer whose statistics are
    all excluded computes like a Keras layer with `trainable = False`."""
    outputs_held: list[Annotated[int, Field(ge=0)]] = []
    """Indices, from 0, of the outputs of the model whose value must not change."""
    compare: Annotated[Strategy | None, ComparisonStrategy] = None
    """A second strategy, or its name. It is trained in lockstep with the trial's own, to find
    the step at which their weights start to differ. The dense control has none."""
    seed: Annotated[int, Field(ge=0, strict=True)] = 0
    objective: Text | None = None
    """The metric that trials are compared by: of a part of the data, as `validation/loss` or
    `test/auc`, or one of `MEASURED`. null means `test/accuracy` or `test/mse`, by the task."""
    start: Start = Start()
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
            if origin != (installed := self.origins.get(group, "what ships with Masksweep")):
                raise Invalid(f"components.{group}", origin, f"here it is {installed}")
        if self.train.jit is True and not self.strategy.xla:
            raise Invalid("train.jit", True, f"{self.strategy.name} does not compile under XLA")
        for name, claim in self.sweep.claims.items():
            for key in (*claim.trials, *(claim.minus or ())):
                if key not in _selectable():
                    raise Invalid(
                        f"sweep.claims.{name}", key, "must be a setting of a trial, part or role"
                    )
        if self.sweep.page == "leaks" and self.audit.every != 1:
            raise Invalid("audit.every", self.audit.every, "1 with sweep.page=leaks")
        if isinstance(self.pattern, Scored) and self.held.name != "zero":
            allowed = f"zero with pattern={self.pattern.name}, which chooses weights by magnitude"
            raise Invalid("held", self.held.name, allowed)
        if self.train.jit is True and self.compare and not self.compare.xla:
            raise Invalid("train.jit", True, f"{self.compare.name} does not compile under XLA")
        training_checks.check(self.train, self.data, self.optimizer, self.compare is not None)
        if self.train.mixed_precision and not self.model.takes_policy:
            allowed = f"must be null with model={self.model.name}, whose layers have their policies"
            raise Invalid("train.mixed_precision", self.train.mixed_precision, allowed)
        if self.compare == self.strategy:
            raise Invalid("compare", self.strategy.name, "must be another one than the trial's own")
        if self.compare and (self.train.switch_at or self.train.resume_at):
            raise Invalid("compare", self.compare.name, "not with train.switch_at or resume_at")
        if self.train.switch_at and (isinstance(self.pattern, Scored) or self.pattern.needs_model):
            raise Invalid("train.switch_at", self.train.switch_at, f"not with {self.pattern.name}")
        if not isinstance(self.schedule, Static) and self.strategy.role != "dense":
            events = {
                "train.switch_at": self.train.switch_at,
                "train.early_stopping": self.train.early_stopping,
                "outputs_held": self.outputs_held,
                "compare": self.compare,
                self.still_reason: self.still_reason == "train.epochs=0",
            }
            training_checks.check_schedule(self.schedule, self.pattern, events)
        objective = self.score_metric.key
        recorded = [training_checks.recorded_metrics(self.train, self.data, p) for p in PARTS]
        metrics = [*(name for of_part in recorded for name in of_part), *MEASURED]
        if objective not in metrics:
            raise Invalid("objective", objective, f"must be one of {', '.join(metrics)}")
        if self.still_reason == "train.epochs=0":
            if self.compare:
                raise Invalid("compare", self.compare.name, "not with train.epochs=0")
            if objective.startswith("train/"):
                raise Invalid("objective", objective, "needs train.epochs > 0; test/loss does not")
        if objective.startswith("validation/") and not self.data.has_validation:
            raise Invalid("objective", objective, "needs data.validation > 0; test/loss does not")
        rate = self.start.learning_rate or self.optimizer.learning_rate
        if self.start.epochs and not rate:
            raise Invalid("start.learning_rate", "null", "needed, as optimizer.learning_rate is 0")
        return self

    @property
    def mask_schedule(self) -> MaskSchedule:
        """The schedule of the masks; `train.switch_at` is the short form for one swap."""
        return Swap((self.train.switch_at,)) if self.train.switch_at else self.schedule

    @property
    def running_strategy(self) -> Strategy:
        """The strategy as it trains: for masks that move one by one, if the schedule moves them."""
        if not self.moves_masks or isinstance(self.mask_schedule, Swap):
            return self.strategy
        return self.strategy.for_moving_masks(self.resources.num_gpus > 0)

    @property
    def moves_masks(self) -> bool:
        """Whether the masks change in the course of the training."""
        return self.strategy.role != "dense" and not isinstance(self.mask_schedule, Static)

    @property
    def origins(self) -> dict[str, str]:
        """Origin of each component or its layers, by group, if it does not ship with Masksweep."""
        components = {group: (GROUPS[group], getattr(self, group)) for group in GROUPS}
        components["compare"] = STRATEGIES, self.compare
        by_group = {g: registry.origin(c.name) for g, (registry, c) in components.items() if c}
        by_group["model"] = by_group["model"] or self.model.layers_origin
        by_group |= {g: registry.origin(name) for g, (registry, name) in self._parts.items()}
        return {group: origin for group, origin in by_group.items() if origin}

    @property
    def still_reason(self) -> str:
        """The setting with which no weight can train, as `train.epochs=0`; empty if weights can."""
        if not self.train.steps and not self.train.epochs:
            return "train.epochs=0"
        return "" if self.optimizer.learning_rate else "optimizer.learning_rate=0"

    @property
    def _parts(self) -> dict[str, tuple[Registry[Any], str]]:
        """Registry and name of the components that settings name, by a key of `components`."""
        parts: dict[str, tuple[Registry[Any], str]] = {}
        if schedule := self.optimizer.schedule:
            parts["learning_rate"] = LEARNING_RATES, schedule.name
        for output, loss in self.losses.items():
            if loss in OWN_LOSSES:
                parts[f"loss.{output}" if output else "loss"] = OWN_LOSSES, loss
        metrics = [name for names in self.metrics.values() for name in names]
        return parts | {f"metric.{n}": (OWN_METRICS, n) for n in metrics if n in OWN_METRICS}

    @property
    def losses(self) -> dict[str, str]:
        """Names of the losses by the names of the outputs; the name of an only output is empty."""
        tasks = self.data.all_tasks.items()
        return {output: self.train.loss_of(output, DEFAULT_LOSS[task]) for output, task in tasks}

    @property
    def metrics(self) -> dict[str, list[str]]:
        """Names of `train.metrics` by the names of the outputs, as `losses`."""
        return self.train.metrics_by_output(next(iter(self.data.all_tasks)))

    @property
    def jit(self) -> bool:
        """Whether XLA compiles the training step, whatever the plan is."""
        return self.compiles_with_xla(Plan())

    def compiles_with_xla(self, plan: Plan) -> bool:
        """Returns whether XLA compiles the training step under a plan.

        Args:
            plan: The masked weights. A strategy may choose by them what it does.
        """
        if self.train.jit != "auto":
            return self.train.jit
        on_gpu = self.resources.num_gpus > 0
        gains = on_gpu or self.model.gains_by_xla
        return gains and self.running_strategy.compiles_with_xla(plan, on_gpu)

    @property
    def width(self) -> int:
        """Number of trials that run side by side in this trial's program; 1 if it runs alone."""
        return 1 if self.run_alone_reason else self.launch.pack

    @property
    def run_alone_reason(self) -> str:
        """Why the trial must run alone, whatever its network is; empty if it need not."""
        if not self.jit:
            return "without XLA (train.jit)"
        if self.train.switch_at or self.train.resume_at:
            return "train.switch_at and train.resume_at need a trial that runs alone"
        if self.train.match_flops:
            return "train.match_flops gives each trial a number of steps of its own"
        if self.moves_masks:
            return f"schedule={self.schedule.name} changes masks between steps"
        if self.compare:
            return "compare trains a second model in lockstep"
        if self.train.mixed_precision == "mixed_float16":
            return "train.mixed_precision=mixed_float16 skips a step by a condition"
        if self.train.early_stopping:
            return "train.early_stopping ends each trial at a step of its own"
        overwritten = self.optimizer.use_ema and self.optimizer.ema_overwrite_frequency
        return "optimizer.ema_overwrite_frequency is a condition in the step" if overwritten else ""

    @property
    def _has_frozen_statistics(self) -> bool:
        """Whether `trainable` alone can stop statistics from being updated."""
        return self.model.has_statistics and self.trainable != ["*"]

    @property
    def score_metric(self) -> ScoreMetric:
        """The metric that trials are compared by."""
        task = self.data.task
        return ScoreMetric(self.objective or f"test/{score_name(task)}", task)


@cache
def _selectable() -> frozenset[str]:
    """Returns the keys by which a claim can select trials: `part`, `role`, and keys of a trial."""
    schema: type[BaseModel] = TrialSchema
    excluded = {"components", "sweep", "launch", "checkpoint", "tracking"}
    keys = {"part", "role", *schema.model_fields} - excluded
    for group, registry in {**GROUPS, "compare": STRATEGIES}.items():
        keys |= {f"{group}.{f.name}" for component in registry.values() for f in fields(component)}
    sections: dict[str, type[BaseModel]] = {
        "start": Start, "train": Train, "audit": Audit, "speed": Speed
    }  # fmt: skip
    for key, section in sections.items():
        keys |= {f"{key}.{name}" for name in section.model_fields}
    return frozenset(keys)
