"""Changes the masks and the held values of weights during a training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import tensorflow as tf

from masksweep.strategies.core.held_weight import HeldWeight
from masksweep.strategies.core.keras_internals import is_average
from masksweep.strategies.plan import Array, Mask, Plan

FreshSlots = Literal["none", "regrown", "all"]
"""Which entries of the slots are reset at a change of the mask: none, those that train again, or
all."""


def reset_slots(
    value: Any, slots: Sequence[tuple[Any, Array]], entries: Mask | None = None
) -> None:
    """Sets the slots of a trained variable to their initial values.

    Args:
        value: The variable.
        slots: Pairs (slot of the optimizer, its initial value).
        entries: The entries to set, in the shape of the variable; None sets all.
    """
    for slot, fresh in slots:
        # the initial value of the slot for EMA is the weight itself
        initial = tf.cast(value if is_average(slot) else fresh, slot.dtype)
        initial = tf.broadcast_to(initial, slot.shape)
        slot.assign(initial if entries is None else tf.where(entries, initial, slot.value))


def switch(
    held: HeldWeight,
    arrays: Sequence[Array],
    slots: Sequence[tuple[Any, Array]],
    new: Any = None,
    fresh_slots: FreshSlots = "none",
) -> None:
    """Changes the mask and the held values during a training.

    Entries that are masked now get their held values. Entries that were masked before and train
    now start from their current values. If slots are of the kept values only, entries that were
    kept before keep theirs, and the others get initial values.

    Args:
        held: The weight.
        arrays: What its method `arrays` returned for the new mask.
        slots: Pairs (slot of the optimizer, its initial value).
        new: New values of the weight, in its dense shape; None keeps those that it has.
        fresh_slots: Which entries of the slots get their initial values.
    """
    shape, kept_before = held.weight.shape, held.kept.numpy()
    now = tf.identity(held.effective() if new is None else new)
    slots_now = []
    if not held.has_weight_order:
        for slot, fresh in slots:
            # the initial value of the slot for EMA is the weight itself
            fill = tf.fill(shape, fresh.flat[0] if fresh.size else 0.0)
            fill = now if is_average(slot) else tf.cast(fill, now.dtype)
            is_new = fresh_slots == "all"
            value = fill if is_new else held.to_weight_shape(slot.value, fill)
            slots_now.append((slot, value, fill))
    held.assign(arrays)
    kept = held.kept.numpy()
    # what is masked has no part in `value`, or one in a place that is left over
    held.value.assign(held.initial(tf.where(kept, now, held.held.value)))
    for slot, value, fill in slots_now:
        slot.assign(held.initial(tf.where(kept & kept_before, value, fill)))
    if held.has_weight_order and fresh_slots != "none":
        regrown = None if fresh_slots == "all" else kept & ~kept_before
        reset_slots(held.value, slots, regrown)


def switch_all(
    entries: Iterable[tuple[str, Any, HeldWeight | None]],
    slots: Mapping[int, Sequence[tuple[Any, Array]]],
    plan: Plan,
    weights: Mapping[str, Array] | None = None,
    fresh_slots: FreshSlots = "none",
) -> None:
    """Changes the masks of a model during a training; see `switch`.

    Args:
        entries: For each weight of the model: its name, the variable that trains, and how it is
            held (None if it is not masked).
        slots: Pairs (slot of the optimizer, its initial value), by the `id` of the variable.
        plan: The new masks and held values.
        weights: New values of weights by name, in their dense shapes.
        fresh_slots: Which entries of the slots get their initial values.

    Raises:
        Invalid: The plan's constants have other shapes than before. Nothing is changed then.
    """
    listed = list(entries)
    planned = {name: plan.find(name) for name, _, masked in listed if masked is not None}
    constants = {n: m.arrays(w) for n, _, m in listed if m and (w := planned[n])}
    for name, value, masked in listed:
        new = None if weights is None else weights.get(name)
        own_slots = slots.get(id(value), [])
        if masked is not None and name in constants:
            switch(masked, constants[name], own_slots, new, fresh_slots)
            continue
        if new is not None:
            value.assign(new)
        if fresh_slots == "all":
            reset_slots(value, own_slots)
