"""`apply`: a Keras model whose masked weights are held."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from masksweep.strategies.core import keras_internals
from masksweep.strategies.core.selection import INNER
from masksweep.strategies.core.weights import current_values, describe
from masksweep.strategies.errors import Invalid
from masksweep.strategies.keras_model.choices import (
    HeldChoice,
    LossChoice,
    PatternChoice,
    StrategyChoice,
    choose_held,
    choose_loss,
    choose_masks,
    choose_strategies,
)
from masksweep.strategies.keras_model.data_choice import DataChoice, choose_data
from masksweep.strategies.keras_model.masked_model import MaskedModel
from masksweep.strategies.keras_model.plain_model import require_supported
from masksweep.strategies.keras_model.schedule_choice import choose_schedule
from masksweep.strategies.patterns.problem import Problem
from masksweep.strategies.plan import MaskedWeight, Plan
from masksweep.strategies.schedules import MaskSchedule
from masksweep.strategies.schedules.static import Static
from masksweep.strategies.schedules.swap import Swap


def apply(
    model: Any,
    pattern: PatternChoice,
    strategy: StrategyChoice = "hard_mask",
    *,
    held: HeldChoice = "zero",
    targets: Sequence[str] | str | None = None,
    schedule: MaskSchedule | None = None,
    seed: int = 0,
    data: DataChoice = None,
    loss: LossChoice = None,
) -> MaskedModel:
    """Returns a Keras model that trains `model` while its masked weights are held.

    The result is used as any Keras model: `compile`, `fit`, `evaluate`, `predict`, `save`,
    `keras.models.load_model`, callbacks. In another process, `load_model` finds it if
    `masksweep.strategies` was imported after Keras.

    `model` itself is trained: its variables are used, except those of weights for which the
    strategy trains other values, such as the kept ones only. So do not use `model` or its layers
    afterwards, as for a model of its features; use the masked model, or `export_plain()`.

    Weights have names such as `hidden/kernel`: the name of the layer and of its variable.

    Args:
        model: A built Keras model: Sequential, Functional or a subclass. It must not override
            `train_step` or the like. Enable LoRA before; later it is refused, as is quantization.
        pattern: Which weights are masked: a pattern, such as `Random(0.9)`; a function
            `(name, shape) -> mask` (None: not masked); or a dict of patterns or masks by glob on
            weight names, of which the first that matches decides. In a mask, True or 1 means that
            an entry trains, and False or 0 that it is held. A mask may also be a DataFrame or a
            SciPy sparse matrix, such as an adjacency matrix: what is not 0 trains.
        strategy: How they are held: a strategy or its name, or a dict of these by glob.
        held: The values at which they are held: a number, `"zero"`, `"init"` (frozen where they
            are), a `Held`, or a dict of these or of arrays by glob.
        schedule: How the masks move while `fit` trains, such as `RigL()`, which takes from the
            pattern how many entries of each weight to keep. The length of the training is that of
            the first call of `fit`; without `fit` call `begin_schedule`. None keeps the masks.
        targets: Globs on the names of the weights to mask, or one glob. A glob that begins with `!`
            excludes, as in `["*kernel", "!first/*"]`. None means, for a pattern: every kernel
            except the last one, or those of all output layers if there are several
            (`Autoregressive` and `Causal`: every kernel). `"inner"` excludes the first kernel too.
            In a subclassed model, first and last go by the order in which it makes its layers.
            Weights of frozen layers (`trainable=False`) cannot be named: freeze them after `apply`.
            Schedules that drop and grow, such as `RigL`, then leave their masks as they are.
        seed: Seed of the masks.
        data: Inputs and targets `[samples, ...]`, from which patterns such as `SNIP` and `GraSP`
            choose samples; or a `tf.data.Dataset` of batches of both, of which they take the first
            samples. Other patterns ignore them.
        loss: The loss of these patterns: the name of a loss of Keras, a `keras.losses.Loss`, or a
            function `(targets, outputs) -> loss`.

    Returns:
        The masked model.

    Raises:
        Invalid: (a `ValueError`) An argument is not allowed, or a strategy refuses. Its message
            names the weight, and says what is allowed.

    Example:
        >>> import keras, numpy as np
        >>> from masksweep import strategies
        >>> layers = [keras.Input((8,)), keras.layers.Dense(16, "relu", name="hidden"),
        ...           keras.layers.Dense(1, name="output")]
        >>> masked = strategies.apply(keras.Sequential(layers), strategies.Random(0.75))
        >>> masked.compile("adam", "mse")
        >>> history = masked.fit(np.ones((32, 8)), np.ones(32), verbose=0)
        >>> strategies.audit(masked).ok
        True
        >>> kernel = masked.export_plain().get_layer("hidden").kernel.numpy()
        >>> float((kernel == 0).mean())
        0.75

        With a schedule the masks move while the model trains:

        >>> moving = strategies.apply(keras.Sequential(layers), strategies.Random(0.75),
        ...                           schedule=strategies.RigL(frequency=4))
        >>> moving.compile("adam", "mse")
        >>> history = moving.fit(np.eye(64, 8), np.ones(64), batch_size=4, verbose=0)
        >>> [change.step for change in moving.mask_changes]
        [0, 4, 8]
        >>> strategies.audit(moving).ok
        True
    """
    if isinstance(model, MaskedModel):
        raise Invalid("model", model.name, "is masked already; use what export_plain() returns")
    require_supported(model)
    weights, initial = describe(model), current_values(model)
    for variable in model.non_trainable_variables:
        keras_internals.draw(variable)
    state = [np.asarray(v.numpy()) for v in model.non_trainable_variables]
    problem = Problem(model, initial, state, *choose_data(data), choose_loss(loss))
    chosen = [targets] if isinstance(targets, str) and targets != INNER else targets
    masks = choose_masks(pattern, weights, initial, chosen, seed, problem)
    held_values = choose_held(held, initial.of(masks))
    planned = [w for w in weights if w.name in masks]
    plan = Plan(tuple(MaskedWeight(w, masks[w.name], held_values[w.name]) for w in planned))
    strategies = choose_strategies(strategy, list(masks))
    if schedule is not None and not isinstance(schedule, Static | Swap):
        strategies = {name: s.for_moving_masks() for name, s in strategies.items()}
    moves = choose_schedule(schedule, pattern, held, seed, strategies, plan)
    return MaskedModel(model, strategies, plan, schedule=moves)
