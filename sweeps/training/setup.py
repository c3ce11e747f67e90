"""Sets up a trial: the process, the model, the plan, the program and the order of the samples."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from masksweep.strategies.base import Array, Invalid, Plan, Weight
from masksweep.sweeps.common.seeding import derive_seed, permutation
from masksweep.sweeps.components.datasets.base import Arrays
from masksweep.sweeps.config.trial import Trial

if TYPE_CHECKING:
    from masksweep.sweeps.components.initializers import Network
    from masksweep.sweeps.training.program import Lane, Program, Shape
    from masksweep.sweeps.training.vectorized import PackedProgram


@dataclass(frozen=True)
class TrialStart:
    """A trial's model, data and plan before the first step."""

    trial: Trial
    data: Arrays
    model: Any
    """A Keras model of the trial's network, shared between trials. Do not read its weights: they
    may belong to another trial."""
    weights: Mapping[str, Array]
    """Initial values of the trainable weights by name."""
    state: list[Array]
    """Initial values of the non-trainable variables (moving statistics, seeds), in the model's
    order."""
    plan: Plan


def prepare_process(threads: int, num_gpus: float = 0) -> None:
    """Sets up TensorFlow: threads, GPU memory and deterministic operations.

    TensorFlow fixes these settings at its first use, so call this once, before any other use of it.

    Args:
        threads: TensorFlow's threads within one operation.
        num_gpus: GPUs of the process; a fraction for a share of one GPU, 0 to hide all GPUs.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if not num_gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    with _block_imports("matplotlib", "pandas", "sklearn"):
        import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    for number, gpu in enumerate(tf.config.list_physical_devices("GPU")):
        if limit := gpu_limit(num_gpus, number):
            device = tf.config.LogicalDeviceConfiguration(memory_limit=limit)
            tf.config.set_logical_device_configuration(gpu, [device])
        else:
            tf.config.experimental.set_memory_growth(gpu, True)
    tf.config.experimental.enable_op_determinism()


@contextmanager
def _block_imports(*packages: str) -> Iterator[None]:
    """Context in which packages that are not loaded yet cannot be imported.

    Keras imports these packages if it can, for wrappers and pictures that no trial uses. Without
    them TensorFlow and Keras load in two thirds of the time. After the context they can be imported
    as usual.
    """
    hidden = {name: None for name in packages if name not in sys.modules}
    sys.modules.update(hidden)  # type: ignore[arg-type]  # None: an import raises ImportError
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def gpu_limit(num_gpus: float, number: int) -> int | None:
    """GPU memory that a process with a share of a GPU may use, in MiB; None for whole GPUs.

    The limit is 90 % of the share: CUDA itself also needs memory, which TensorFlow's limit does not
    count. Ray assigns shares of GPUs to processes, but does not limit their memory. This function
    has not been run on a GPU yet.

    Args:
        num_gpus: GPUs of the process; a fraction for a share of one GPU.
        number: Index of the GPU among the visible ones, from 0.
    """
    if num_gpus >= 1:
        return None
    import pynvml

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    device = visible[number].strip() if number < len(visible) and visible[number] else str(number)
    pynvml.nvmlInit()
    try:
        handle = (
            pynvml.nvmlDeviceGetHandleByIndex(int(device))
            if device.isdigit()
            else pynvml.nvmlDeviceGetHandleByUUID(device)
        )
        total = pynvml.nvmlDeviceGetMemoryInfo(handle).total
    finally:
        pynvml.nvmlShutdown()
    return int(0.9 * num_gpus * total / 2**20)


def start(trial: Trial, data: Arrays | None = None) -> TrialStart:
    """Builds the model, the initial values and the plan of a trial.

    Args:
        trial: The trial.
        data: Data to use in place of the trial's own data set.

    Raises:
        Invalid: The trial's plan cannot be made.
    """
    data = data or trial.data.load()
    net = network(trial, data)
    weights, state = net.initial(derive_seed(trial.seed, "weights"))
    plan = plan_for(trial, net.weights, weights, data.outputs)
    return TrialStart(trial, data, net.model, weights, state, plan)


def network(trial: Trial, data: Arrays) -> Network:
    """The trial's network: its model, which all seeds share, and the initial values of a seed."""
    from masksweep.sweeps.components import initializers

    return initializers.network(trial.model, data.shape, data.outputs)


def plan_for(
    trial: Trial, weights: list[Weight], initial: Mapping[str, Array], outputs: int
) -> Plan:
    """The trial's plan: the masks and held values of its target weights; empty for `dense`.

    Args:
        trial: The trial.
        weights: Descriptions of the model's trainable weights.
        initial: Initial values of the trainable weights by name.
        outputs: Number of the model's outputs.

    Raises:
        Invalid: The targets, masks, held values or held outputs do not fit the model.
    """
    if trial.strategy.role == "dense":
        return Plan()
    for index in trial.outputs_held:
        if index >= outputs:
            allowed = f"must be below {outputs}, the outputs of the model"
            raise Invalid("outputs_held", index, allowed)
    return _plan(trial, weights, initial, derive_seed(trial.seed, "masks"))


def _plan(trial: Trial, weights: Sequence[Weight], initial: Mapping[str, Array], seed: int) -> Plan:
    from masksweep.strategies.core.weights import make_plan

    try:
        return make_plan(
            weights,
            initial,
            masks=trial.pattern.masks,
            held=trial.held.values,
            targets=trial.targets,
            outputs_held=trial.outputs_held,
            seed=seed,
        )
    except Invalid as error:
        for group in ("pattern", "held"):
            if error.key in (field.name for field in fields(getattr(trial, group))):
                raise Invalid(f"{group}.{error.key}", error.value, error.allowed) from error
        raise


def program_for(start: TrialStart) -> Program:
    """The process's program of the trial's shape, with all variables set to the trial's start."""
    from masksweep.sweeps.training.program import get_or_build

    wanted_shape = shape(start)
    program: Program = get_or_build(wanted_shape, lambda: _program(start, wanted_shape))
    return _reset(program, start)


def packed_for(start: TrialStart) -> PackedProgram:
    """The process's program that runs trials of this shape side by side; its values are not set."""
    from masksweep.sweeps.training.program import get_or_build
    from masksweep.sweeps.training.vectorized import PackedProgram

    wanted_shape = replace(shape(start), width=start.trial.width)

    def build() -> PackedProgram:
        return PackedProgram(_program(start, wanted_shape))

    packed: PackedProgram = get_or_build(wanted_shape, build)
    return packed


def start_lane(packed: PackedProgram, start: TrialStart) -> Lane:
    """The values of all variables of a trial at its start."""
    return _values(packed.single_program, start)


def fresh_program(start: TrialStart) -> Program:
    """As `program_for`, but always a new program, which no other trial reuses."""
    return _reset(_program(start, shape(start)), start)


def _program(start: TrialStart, wanted_shape: Shape) -> Program:
    """A new program of this shape, with its own Keras model."""
    from masksweep.sweeps.training.program import Program

    model = network(start.trial, start.data).build(derive_seed(start.trial.seed, "weights"))
    return Program(wanted_shape, model, _plan_in_program_layout(start))


def _plan_in_program_layout(start: TrialStart) -> Plan:
    """The plan with arrays in the memory layout that the trial's program takes.

    A held value that is the same for all entries may be stored once and broadcast. In a pack it is
    written out for each entry, so that trials with other kinds of held values share the program.
    """
    if start.trial.width == 1:
        return start.plan
    weights = tuple(replace(w, held=np.array(w.held, order="C")) for w in start.plan.weights)
    return replace(start.plan, weights=weights)


def shape(start: TrialStart) -> Shape:
    """All that determines the graph of the trial's program."""
    from masksweep.sweeps.training.program import Shape

    trial, data = start.trial, start.data
    return Shape.of(
        _plan_in_program_layout(start),
        trial.strategy,
        trial.optimizer,
        model=trial.model,
        inputs=data.shape,
        outputs=data.outputs,
        task=data.task,
        trainable=tuple(trial.trainable),
        statistics=None if trial.statistics is None else tuple(trial.statistics),
        jit=trial.jit,
    )


def _reset(program: Program, start: TrialStart) -> Program:
    program.training.assign_all(_values(program, start))
    return program


def _values(program: Program, start: TrialStart) -> Lane:
    return program.start(
        start.weights, start.state, start.plan, start.trial.optimizer.learning_rate
    )


def refusal(trial: Trial, plan: Plan) -> str | None:
    """Why the trial's strategy, or the strategy it is compared with, cannot hold the plan.

    Returns:
        The reason, or None if both can.
    """
    if reason := trial.strategy.refuses(plan):
        return reason
    if trial.compare and (reason := trial.compare.refuses(plan)):
        return f"compare: {trial.compare.name}: {reason}"
    return None


def switched_plan(
    trial: Trial, weights: Sequence[Weight], plan: Plan, now: Mapping[str, Array]
) -> Plan:
    """The plan with new masks and held values, drawn in the middle of a training.

    Args:
        trial: The trial; `trial.train.switch_at` is set.
        weights: Descriptions of the model's trainable weights.
        plan: The plan before.
        now: The effective weights by name, as they are at this step.

    Raises:
        Invalid: The pattern draws the same masks again, or masks whose sizes do not fit the
            compiled program.
    """
    if not plan.weights:
        return plan
    new_plan = _plan(trial, weights, now, derive_seed(trial.seed, "masks/switched"))
    layout, step = trial.strategy.bind().layout, trial.train.switch_at
    mask_pairs = [(w.mask, v.mask) for w, v in zip(plan.weights, new_plan.weights, strict=True)]
    if all(np.array_equal(*pair) for pair in mask_pairs):
        raise Invalid("train.switch_at", step, f"{trial.pattern.name} draws no other masks")
    if any(layout(old_mask).shape != layout(new_mask).shape for old_mask, new_mask in mask_pairs):
        raise Invalid("train.switch_at", step, f"{trial.pattern.name} draws masks of other sizes")
    return new_plan


def schedule(trial: Trial, samples: int) -> tuple[int, int]:
    """Number of steps of an epoch, and of the whole training.

    The last samples of an epoch are left out if they do not fill a batch.

    Args:
        trial: The trial.
        samples: Number of training samples.

    Raises:
        Invalid: There are fewer samples than one batch needs, or an event of the trial is not
            before the last step.
    """
    batch = trial.train.batch_size
    if not samples:
        raise Invalid("data.validation", trial.data.validation, "leaves no training sample")
    if batch > samples:
        raise Invalid("train.batch_size", batch, f"must be at most {samples}, the training samples")
    epoch = samples // batch
    total = trial.train.steps or trial.train.epochs * epoch
    for key in ("switch_at", "resume_at"):
        event_step = getattr(trial.train, key)
        if event_step and event_step >= total:
            raise Invalid(f"train.{key}", event_step, f"must be below {total}, the training steps")
    return epoch, total


def first_batch(start: TrialStart) -> tuple[Any, Any]:
    """The inputs and targets of the first step."""
    import tensorflow as tf

    x, y = start.data.train
    rows = order(start.trial, len(x), 0)[0]
    return tf.constant(x[rows]), tf.constant(y[rows])


def order(trial: Trial, samples: int, number: int) -> Array:
    """Indices of the samples in each batch of one epoch, `[steps, batch]` int32.

    Args:
        trial: The trial.
        samples: Number of training samples.
        number: Number of the epoch, from 0.
    """
    steps, batch = schedule(trial, samples)[0], trial.train.batch_size
    rows = (
        permutation(samples, trial.seed, f"order/{number}")
        if trial.train.shuffle
        else np.arange(samples, dtype=np.int32)
    )
    return rows[: steps * batch].reshape(steps, batch)
