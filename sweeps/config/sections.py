"""The plain sections of a config: how long, how audited and timed, where, and what of a sweep."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from masksweep.sweeps.common import strict
from masksweep.sweeps.config.claim import Claim
from masksweep.sweeps.config.validation import Several, explain

Positive = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    @model_validator(mode="wrap")
    @classmethod
    def _strictly(cls, values: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        found = strict.faults("", cls, values) if isinstance(values, dict) else []
        refused = {fault.key for fault in found}
        try:
            if not found:
                return validate(values)
            validate({k: v for k, v in values.items() if k not in refused})
        except ValidationError as error:
            found += explain(error)
        raise Several(found)


class Train(Section):
    """How long, and in what steps."""

    epochs: Positive = 20
    steps: Positive | None = None
    """Training steps in all; if given, `epochs` does not count."""
    batch_size: Positive = 100
    shuffle: bool = True
    """A new order of the samples for each epoch; else the data's own, again and again."""
    threads: Positive = 1
    """TensorFlow's threads within an operation; they can change bits."""
    jit: Literal["auto"] | bool = "auto"
    """XLA; `auto` goes by strategy, model and device."""
    switch_at: Positive | None = None
    """Training step after which the masks are drawn anew, and what is masked then is held."""
    resume_at: Positive | None = None
    """Training step after which a fresh program goes on from a checkpoint, to the same bits."""


class Audit(Section):
    every: Annotated[int, Field(ge=1)] = 10
    """Steps between two counts of violations; the last step is always counted."""


class Speed(Section):
    rounds: Annotated[int, Field(ge=0)] = 9
    """Stretches of steps that are timed in turn with the dense control's; 0 times nothing."""


def _cards(number: float) -> float:
    if number > 1 and not number.is_integer():
        raise ValueError("must be a part of a card or whole cards")
    return number


class Resources(Section):
    """What one trial takes of a machine."""

    num_cpus: Annotated[float, Field(gt=0)] = 1
    num_gpus: Annotated[float, Field(ge=0), AfterValidator(_cards)] = 0
    memory: Positive | None = None
    """Bytes; null leaves it open."""


class Launch(Section):
    """Where trials run, and what happens when one fails. Only `pack` is part of their identity."""

    address: Text | None = None
    """A Ray cluster to join (`auto`, `ray://host:port`); null starts Ray here."""
    max_retries: Annotated[int, Field(ge=0)] = 2
    """How often a trial is run again whose worker or node was lost."""
    fail_fast: bool = False
    """Stop the sweep at the first trial that fails."""
    trial_timeout_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds that one attempt of a trial may take; null leaves it open. A pack has that times its
    width."""
    pack: Positive = 1
    """Trials that run side by side in one program, where they differ in seed, masks, held values
    and learning rate alone. The width can change bits, neighbours cannot."""


class Checkpoint(Section):
    """Where a long trial keeps its state on the way. No part of its identity."""

    every_s: Annotated[float, Field(gt=0)] = 60
    """Seconds between two checkpoints within an epoch."""
    path: Text | None = None
    """A folder that all workers see, or an fsspec URI (`s3://bucket/folder`); null takes
    `.masksweep/checkpoints` in the current folder."""


class Tracking(Section):
    uri: Text | None = None
    """MLflow's store; null takes MLFLOW_TRACKING_URI, or `mlflow.db` in the current folder."""
    experiment: Text = "masksweep"
    patience_s: Annotated[float, Field(ge=0)] = 120
    """Seconds that the end of a sweep waits for a store that is away; `masksweep sync` is later."""


class Sweep(Section):
    """What the trials have in common. No part of their identity."""

    name: Text | None = None
    """The parent run's name; null derives it from the overrides."""
    question: str | None = None
    """What the sweep is to settle, in a sentence."""
    parts: dict[str, dict[str, Any]] = {}
    """Parts of the sweep, each a grid of its own: override -> value or list of values."""
    claims: dict[str, Claim] = {}
    """What must come out, by a short name."""
    page: Literal["leaks"] | None = None
    """A page that is made of the results: `leaks` says for each trial what moved, and why."""
