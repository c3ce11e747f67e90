"""Checks and builds Keras optimizers for a training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from masksweep.strategies.core.audit import one_if_equal
from masksweep.strategies.errors import Invalid
from masksweep.strategies.plan import Array

COPIES_WEIGHTS = (keras.optimizers.ScheduleFreeAdamW,)
"""Optimizers whose slots start as a copy of the weights. They are not supported: `keras.Model.fit`
builds the optimizer inside its first step, and in a graph it loses this copy. So `fit` does not
define one result with which a training could agree."""


def _with_inner_optimizers(optimizer: Any) -> list[Any]:
    """Returns the optimizer and the optimizers inside it.

    A `LossScaleOptimizer` has one inner optimizer, a `MultiOptimizer` has several.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return list(dict.fromkeys([optimizer, inner, *getattr(inner, "optimizers", [])]))


def require_usable(optimizer: Any) -> None:
    """Checks that an optimizer can be used.

    Raises:
        Invalid: The optimizer or an inner one was already built, or does not train as under
            `keras.Model.fit`.
    """
    for part in _with_inner_optimizers(optimizer):
        if part.built:
            allowed = "must be new: it was built for the variables of another training"
            raise Invalid("optimizer", part.name, allowed)
        if isinstance(part, COPIES_WEIGHTS):
            allowed = "starts its slots from the weights, which fit loses in a graph; not supported"
            raise Invalid("optimizer", part.name, allowed)
        if isinstance(part, keras.optimizers.MultiOptimizer) and not part.optimizers:
            allowed = "must have a keras.optimizers.OptimizerMap, not a function of the variable"
            raise Invalid("optimizer", part.name, allowed)


def with_loss_scaling(optimizer: Any, model: Any) -> Any:
    """Wraps the optimizer as `keras.Model.compile(auto_scale_loss=True)` does.

    Under the dtype policy `mixed_float16` the result is a `keras.optimizers.LossScaleOptimizer`,
    else the optimizer itself.
    """
    scales = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    if scales or model.dtype_policy.name != "mixed_float16":
        return optimizer
    return keras.optimizers.LossScaleOptimizer(optimizer, name="loss_scale_optimizer")


Slots = dict[int, list[tuple[Any, Array]]]
"""By the `id` of each trained variable: pairs (slot of the optimizer, its initial value)."""


def build(optimizer: Any, variables: Sequence[Any]) -> Slots:
    """Builds the optimizer for variables, and finds their slots.

    Args:
        optimizer: An optimizer that was not built yet.
        variables: The variables that it will train.

    Returns:
        All slots that have the shape of their variable.
    """
    scope = keras.name_scope(optimizer.name, caller=optimizer)
    with recording_slots(optimizer, variables) as slots, scope:
        optimizer.build(variables)
    return slots


@contextmanager
def recording_slots(optimizer: Any, variables: Sequence[Any]) -> Iterator[Slots]:
    """Records the slots that an optimizer makes inside a `with` block.

    Keras has no mapping from a variable to its slots. It makes each slot with
    `add_variable_from_reference`, so this method is wrapped inside the block.

    Args:
        optimizer: The optimizer.
        variables: The variables whose slots are recorded.

    Yields:
        The slots of the shape of their variable; they are added as they are made.
    """
    slots: Slots = {id(v): [] for v in variables}

    def recording(add_variable: Callable[..., Any]) -> Callable[..., Any]:
        def make_and_record(reference_variable: Any, *args: Any, **kwargs: Any) -> Any:
            slot = add_variable(reference_variable, *args, **kwargs)
            variable_slots = slots.get(id(reference_variable))
            if variable_slots is not None and slot.shape == reference_variable.shape:
                # the initial value becomes a constant of the graph, which XLA keeps for the life of
                # the process, so a scalar is stored where possible
                variable_slots.append((slot, one_if_equal(np.asarray(slot.numpy()))))
            return slot

        return make_and_record

    parts = _with_inner_optimizers(optimizer)
    for part in parts:
        part.add_variable_from_reference = recording(part.add_variable_from_reference)
    try:
        yield slots
    finally:
        for part in parts:
            del part.add_variable_from_reference
