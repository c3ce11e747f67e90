"""The plain sections of a config: training, audit, timing, resources, launch, tracking, sweep."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.common import strict
from masksweep.sweeps.components import keras_loading
from masksweep.sweeps.config.claim import Claim
from masksweep.sweeps.config.fields import ClassWeight, Jit, Loss, LossWeights, Metrics
from masksweep.sweeps.config.validation import MultipleInvalid, explain

Positive = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """Base class of the sections: unknown keys and values of the wrong type are invalid."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    @model_validator(mode="wrap")
    @classmethod
    def _strictly(cls, values: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        faults = strict.type_errors("", cls, values) if isinstance(values, dict) else []
        refused_keys = {fault.key for fault in faults}
        try:
            if not faults:
                return validate(values)
            validate({k: v for k, v in values.items() if k not in refused_keys})
        except ValidationError as error:
            faults += explain(error)
        raise MultipleInvalid(faults)


class Start(Section):
    """Where the weights of a trial start, if not at values that are drawn from its seed.

    These are no settings of `model`, because they are for all models, also those of plugins, and do
    not change the program of a training: trials with other starts share it.
    """

    path: Text | None = None
    """A `.keras` file. Each weight and moving statistic of the model takes the values that the file
    has under the same name. What the file has beyond that is not used."""
    run: Text | None = None
    """Id of an MLflow run of a trial in the store of the sweep, whose `model.keras` is the file. It
    is not part of the identity, which has the digest of the file."""
    new: list[str] = []
    """Globs on weights that the file may lack, or that may have more outputs (a longer last axis)
    than in the file. What the file lacks is drawn."""
    epochs: Annotated[int, Field(ge=0)] = 0
    """Number of epochs in which the dense model is trained before its weights are masked. The
    trials of a seed share this training. The data order, batch size and optimizer are those of the
    trial, but it has no schedule and no early stopping. The optimizer's slots are reset when the
    masks are made."""
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Learning rate of these epochs; null takes that of the trial."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.path is not None:
            keras_loading.checked_state(self.path)
        elif self.run is not None:
            allowed = "fetched by masksweep run, plan and submit only; else give start.path"
            raise Invalid("run", self.run, allowed)
        elif self.new:
            raise Invalid("new", self.new, "needs start.path or start.run")
        if self.learning_rate is not None and not self.epochs:
            raise Invalid("learning_rate", self.learning_rate, "needs start.epochs")
        return self


class EarlyStopping(Section):
    """When a training ends early, as under `keras.callbacks.EarlyStopping`."""

    patience: Positive
    """Number of epochs without a better value after which the training ends."""
    monitor: Text = "validation/loss"
    """The metric that is compared, on the validation samples."""


def _patience_alone(value: Any) -> Any:
    return {"patience": value} if type(value) is int else value


class Train(Section):
    """Length of the training and its settings."""

    epochs: Annotated[int, Field(ge=0)] = 20
    """Number of passes over the training data; 0 trains nothing, which shows what the masks alone
    do to the score."""
    steps: Positive | None = None
    """Total number of training steps; if given, `epochs` is ignored."""
    match_flops: Literal["dense"] | None = None
    """`dense` scales the number of steps so that the training spends the FLOPs of as many steps of
    the dense model: a sparse training is longer then. null takes the steps as given."""
    batch_size: Positive = 100
    """Samples per training step."""
    shuffle: bool = True
    """Whether each epoch has a new order of the samples; if false, every epoch has the order of
    the data."""
    threads: Positive = 1
    """Number of TensorFlow threads within one operation. It can change bits of the result."""
    jit: Jit = "auto"
    """Whether XLA compiles the training step; `auto` decides by strategy, model and device."""
    switch_at: Positive | None = None
    """Number of training steps after which new masks are drawn; the newly masked weights are
    held from then on."""
    resume_at: Positive | None = None
    """Number of training steps after which a new program continues from a checkpoint. The result
    has the same bits as without the break."""
    loss: Loss = None
    """Name of the Keras loss, such as `huber`, or its name and settings, which are kept as the text
    `huber(delta=2)`; null selects it by the task. For a model with several outputs also a loss for
    each of some outputs, by their names."""
    loss_weights: LossWeights = None
    """Factors of the losses of several outputs, by their names, as in `keras.Model.compile`. An
    output that is not named has the factor 1; null: all have."""
    metrics: Metrics = None
    """Names of Keras metrics, such as `top_k_categorical_accuracy`, that are recorded beside the
    loss and the accuracy on the validation and test samples. For a model with several outputs, the
    names by output; a list is for the first output. null records no others."""
    class_weight: ClassWeight = None
    """Weight of each class in the loss of the training, as in `keras.Model.fit`: a list, or
    `balanced`, by which each class counts the same; null weighs all samples the same."""

    early_stopping: Annotated[EarlyStopping | None, BeforeValidator(_patience_alone)] = None
    """When the training ends before its last step; then, and after the last step, the weights of
    the best epoch are restored. In a config a number is the patience. null trains all steps."""

    mixed_precision: Literal["mixed_float16", "mixed_bfloat16"] | None = None
    """The Keras dtype policy of the model: layers compute with 16 bits, and the weights have 32.
    null means `float32`."""

    def loss_of(self, output: str, default: str) -> str:
        """Name of the loss of one of several outputs.

        Args:
            output: Name of the output; empty for the only one.
            default: Name of the loss of its task.
        """
        loss = self.loss.get(output) if isinstance(self.loss, dict) else self.loss
        return loss or default

    def metrics_by_output(self, first: str) -> dict[str, list[str]]:
        """Names of the metrics by the name of the output, which is empty for the only one.

        Args:
            first: Name of the first output, which a list of metrics is for.
        """
        return self.metrics if isinstance(self.metrics, dict) else {first: self.metrics or []}


class Audit(Section):
    """How often masked weights are checked during training."""

    every: Annotated[int, Field(ge=1)] = 10
    """Training steps between two counts of violations. Violations are always counted after the
    last step."""


class Speed(Section):
    """How the training step is timed."""

    rounds: Annotated[int, Field(ge=0)] = 9
    """Number of timed stretches of steps, alternating with stretches of the dense control; 0
    disables timing."""


def _fraction_or_whole(number: float) -> float:
    if number > 1 and not number.is_integer():
        raise ValueError("must be a fraction of one GPU, or whole GPUs")
    return number


class Resources(Section):
    """Resources of a machine that one trial takes."""

    num_cpus: Annotated[float, Field(gt=0)] = 1
    """CPU cores; fractions are allowed."""
    num_gpus: Annotated[float, Field(ge=0), AfterValidator(_fraction_or_whole)] = 0
    """GPUs: a fraction of one, or a whole number."""
    memory: Positive | None = None
    """Main memory in bytes; null sets no limit."""


class Launch(Section):
    """Where trials run, and what happens when one fails.

    Only `pack` is part of a trial's identity.
    """

    address: Text | None = None
    """Address of the Ray cluster to join (`auto`, `ray://host:port`); null starts Ray on this
    machine."""
    max_retries: Annotated[int, Field(ge=0)] = 2
    """Number of times a trial is run again after its worker or node was lost."""
    fail_fast: bool = False
    """Whether the sweep stops at the first trial that fails."""
    trial_timeout_s: Annotated[float, Field(gt=0)] | None = None
    """Time limit for one attempt of a trial, in seconds; null sets no limit. The limit of a pack
    is this value times its width."""
    pack: Positive = 1
    """Number of trials that run side by side in one program. They may differ only in seed,
    masks, held values and learning rate. The width can change bits of a result; the other trials
    of a pack cannot."""


class Checkpoint(Section):
    """Where a long trial saves its state during training. Not part of a trial's identity."""

    every_s: Annotated[float, Field(gt=0)] = 60
    """Seconds between two checkpoints within an epoch."""
    path: Text | None = None
    """A folder that all workers can reach, or an fsspec URI (`s3://bucket/folder`); null uses
    `.masksweep/checkpoints` in the current folder."""


class Tracking(Section):
    """Where results are recorded. Not part of a trial's identity."""

    uri: Text | None = None
    """URI of the MLflow store; null uses MLFLOW_TRACKING_URI, or `mlflow.db` in the current
    folder."""
    experiment: Text = "masksweep"
    """Name of the MLflow experiment."""
    patience_s: Annotated[float, Field(ge=0)] = 120
    """Seconds that the end of a sweep waits for a store that is away. Later, `masksweep sync`
    sends the remaining records."""


class Sweep(Section):
    """Settings of the sweep as a whole. Not part of a trial's identity."""

    name: Text | None = None
    """Name of the parent run; null derives it from the overrides."""
    question: str | None = None
    """The question that the sweep is to answer, as a sentence."""
    parts: dict[str, dict[str, Any]] = {}
    """Parts of the sweep by name. Each part is a grid: a value or a list of values by override."""
    claims: dict[str, Claim] = {}
    """Statements about the results by a short name; they are tested at the end."""
    page: Literal["leaks"] | None = None
    """An extra page made from the results. `leaks` shows for each trial which masked weights
    moved, and why."""
