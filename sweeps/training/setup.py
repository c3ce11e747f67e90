"""What a trial starts from: a process, a model, a plan, a program, the order of its data."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from masksweep.strategies.base import Array, Invalid, Plan, Weight
from masksweep.sweeps.common.seeding import derive, permutation
from masksweep.sweeps.components.datasets.base import Arrays
from masksweep.sweeps.config.trial import Trial

if TYPE_CHECKING:
    from masksweep.sweeps.components.initializers import Network
    from masksweep.sweeps.training.program import Lane, Program, Shape
    from masksweep.sweeps.training.vectorized import Packed


@dataclass(frozen=True)
class Start:
    """A trial's model, data and plan before the first step."""

    trial: Trial
    data: Arrays
    model: Any
    """A Keras model of the trial's network; trials share it, so do not read its weights."""
    weights: Mapping[str, Array]
    """The initial values of its trainable weights by name."""
    state: list[Array]
    """Those of its non-trainables: moving statistics, seeds."""
    plan: Plan


def prepare_process(threads: int, num_gpus: float = 0) -> None:
    """Set what TensorFlow fixes at its first use. Call it once, before any other use of it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if not num_gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
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


def gpu_limit(num_gpus: float, number: int) -> int | None:
    """MiB that a process with this share of a card may take of it; None for whole cards.

    A tenth of the share is left to CUDA itself, which takes its part outside of the limit.
    `number` counts the visible cards. Ray shares cards out and does not cap memory. Not yet run
    on a GPU.
    """
    if num_gpus >= 1:
        return None
    import pynvml

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    which = visible[number].strip() if number < len(visible) and visible[number] else str(number)
    pynvml.nvmlInit()
    try:
        handle = (
            pynvml.nvmlDeviceGetHandleByIndex(int(which))
            if which.isdigit()
            else pynvml.nvmlDeviceGetHandleByUUID(which)
        )
        total = pynvml.nvmlDeviceGetMemoryInfo(handle).total
    finally:
        pynvml.nvmlShutdown()
    return int(0.9 * num_gpus * total / 2**20)


def start(trial: Trial, data: Arrays | None = None) -> Start:
    """Build what the trial starts from, on its own data if none is given.

    Raises `Invalid` where its plan cannot be made.
    """
    data = data or trial.data.load()
    net = network(trial, data)
    weights, state = net.initial(derive(trial.seed, "weights"))
    plan = plan_for(trial, net.weights, weights, data.outputs)
    return Start(trial, data, net.model, weights, state, plan)


def network(trial: Trial, data: Arrays) -> Network:
    """The trial's network, whose initial values depend on the seed alone."""
    from masksweep.sweeps.components import initializers

    return initializers.network(trial.model, data.shape, data.outputs)


def plan_for(
    trial: Trial, weights: list[Weight], initial: Mapping[str, Array], outputs: int
) -> Plan:
    """The trial's plan. Raises `Invalid` where targets, masks or held values do not fit."""
    if trial.strategy.role == "dense":
        return Plan()
    for index in trial.outputs_held:
        if index >= outputs:
            allowed = f"must be below {outputs}, the outputs of the model"
            raise Invalid("outputs_held", index, allowed)
    return _plan(trial, weights, initial, derive(trial.seed, "masks"))


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
            if error.key in (f.name for f in fields(getattr(trial, group))):
                raise Invalid(f"{group}.{error.key}", error.value, error.allowed) from error
        raise


def program_for(start: Start) -> Program:
    """The compiled program of the trial's shape, reset to its start."""
    from masksweep.sweeps.training.program import kept

    wanted = shape(start)
    found: Program = kept(wanted, lambda: _program(start, wanted))
    return _reset(found, start)


def packed_for(start: Start) -> Packed:
    """The compiled program for packs of trials of this shape."""
    from masksweep.sweeps.training.program import kept
    from masksweep.sweeps.training.vectorized import Packed

    wanted = replace(shape(start), width=start.trial.width)
    found: Packed = kept(wanted, lambda: Packed(_program(start, wanted)))
    return found


def lane(packed: Packed, start: Start) -> Lane:
    """The values of a trial at its start."""
    return _values(packed.one, start)


def fresh_program(start: Start) -> Program:
    """As `program_for`, and kept for no other trial."""
    return _reset(_program(start, shape(start)), start)


def _program(start: Start, wanted: Shape) -> Program:
    """A new one, with a model of its own."""
    from masksweep.sweeps.training.program import Program

    model = network(start.trial, start.data).build(derive(start.trial.seed, "weights"))
    return Program(wanted, model, _taken(start))


def _taken(start: Start) -> Plan:
    """The plan in the shapes that the trial's program takes.

    In a pack each entry has a held value of its own, so that trials may differ in their kind.
    """
    if start.trial.width == 1:
        return start.plan
    each = tuple(replace(w, held=np.array(w.held, order="C")) for w in start.plan.weights)
    return replace(start.plan, weights=each)


def shape(start: Start) -> Shape:
    """What shapes the graph of the trial's program."""
    from masksweep.sweeps.training.program import Shape

    trial, data = start.trial, start.data
    return Shape.of(
        _taken(start),
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


def _reset(made: Program, start: Start) -> Program:
    made.training.put(_values(made, start))
    return made


def _values(made: Program, start: Start) -> Lane:
    return made.start(start.weights, start.state, start.plan, start.trial.optimizer.learning_rate)


def refusal(trial: Trial, plan: Plan) -> str | None:
    """Why the trial's strategy, or the one that it is compared with, cannot hold the plan."""
    if reason := trial.strategy.refuses(plan):
        return reason
    if trial.compare and (reason := trial.compare.refuses(plan)):
        return f"compare: {trial.compare.name}: {reason}"
    return None


def switched(trial: Trial, weights: Sequence[Weight], plan: Plan, now: Mapping[str, Array]) -> Plan:
    """The plan after the masks were drawn anew, from the effective weights by name as they are.

    Raises `Invalid` where the pattern draws the same ones again, or others than fit the program.
    """
    if not plan.weights:
        return plan
    new = _plan(trial, weights, now, derive(trial.seed, "masks/switched"))
    layout, at = trial.strategy.bind().layout, trial.train.switch_at
    pairs = [(w.mask, v.mask) for w, v in zip(plan.weights, new.weights, strict=True)]
    if all(np.array_equal(*pair) for pair in pairs):
        raise Invalid("train.switch_at", at, f"{trial.pattern.name} draws no other masks")
    if any(layout(one).shape != layout(other).shape for one, other in pairs):
        raise Invalid("train.switch_at", at, f"{trial.pattern.name} draws masks of other sizes")
    return new


def schedule(trial: Trial, samples: int) -> tuple[int, int]:
    """(steps of an epoch, steps in all). An epoch's last samples are left out if no full batch."""
    batch = trial.train.batch_size
    if not samples:
        raise Invalid("data.validation", trial.data.validation, "leaves no training sample")
    if batch > samples:
        raise Invalid("train.batch_size", batch, f"must be at most {samples}, the training samples")
    epoch = samples // batch
    total = trial.train.steps or trial.train.epochs * epoch
    for key in ("switch_at", "resume_at"):
        at = getattr(trial.train, key)
        if at and at >= total:
            raise Invalid(f"train.{key}", at, f"must be below {total}, the training steps")
    return epoch, total


def first_batch(start: Start) -> tuple[Any, Any]:
    """The inputs and targets of the first step."""
    import tensorflow as tf

    x, y = start.data.train
    rows = order(start.trial, len(x), 0)[0]
    return tf.constant(x[rows]), tf.constant(y[rows])


def order(trial: Trial, samples: int, number: int) -> Array:
    """The samples of the batches of one epoch (from 0), `[steps, batch]` int32."""
    steps, batch = schedule(trial, samples)[0], trial.train.batch_size
    rows = (
        permutation(samples, trial.seed, f"order/{number}")
        if trial.train.shuffle
        else np.arange(samples, dtype=np.int32)
    )
    return rows[: steps * batch].reshape(steps, batch)
