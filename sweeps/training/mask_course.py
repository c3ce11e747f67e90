"""The masks in the course of a trial: what changes them, and what is recorded of the changes."""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np

from masksweep.strategies.errors import Invalid
from masksweep.strategies.mask_changes.changes import MaskChanges
from masksweep.strategies.mask_changes.record import ChangeRecord
from masksweep.strategies.plan import Array, Plan, Weight
from masksweep.strategies.schedules.base import Course, Masks
from masksweep.strategies.schedules.swap import Swap
from masksweep.sweeps.common.seeding import derive_seed
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.training import recovery, schedule_plot, setup
from masksweep.sweeps.training.flops import dense_step_flops, step_ratio_of_counts
from masksweep.sweeps.training.setup import TrialStart
from masksweep.sweeps.training.step_counts import step_counts


def course_of(trial: Trial, samples: int) -> Course:
    """The length of a trial's training.

    Args:
        trial: The trial.
        samples: Number of training samples.

    Raises:
        Invalid: The trial's schedule does not fit it.
    """
    epoch, total = step_counts(trial, samples)
    course = Course(total, epoch)
    try:
        trial.mask_schedule.change_steps(course)
    except Invalid as error:
        key = "train.switch_at" if trial.train.switch_at else f"schedule.{error.key}"
        raise Invalid(key, error.value, error.allowed) from error
    return course


def of_start(start: TrialStart, weights: Sequence[Weight]) -> MaskChanges | None:
    """What changes the masks of a trial; None if nothing does.

    Args:
        start: The start of the trial.
        weights: Descriptions of the model's trainable weights.
    """
    trial = start.trial
    if not trial.moves_masks or not start.plan.weights:
        return None

    def draw(number: int, now: Mapping[str, Array]) -> Masks:
        return redrawn(trial, weights, start.pattern_plan, now, number)

    return MaskChanges(
        trial.mask_schedule,
        course_of(trial, start.data.samples),
        start.pattern_plan,
        trial.held.values,
        draw,
        lambda step: derive_seed(trial.seed, f"schedule/{step}"),
        measure=lambda masks: recovery.of_masks(start, masks),
    )


def redrawn(
    trial: Trial, weights: Sequence[Weight], plan: Plan, now: Mapping[str, Array], number: int
) -> Masks:
    """New masks of the trial's pattern, drawn in the middle of a training.

    Args:
        trial: The trial.
        weights: Descriptions of the model's trainable weights.
        plan: The plan with the masks that the pattern drew at the start.
        now: The effective weights by name, as they are at this step.
        number: Number of the draw. 0 has the seed of the start.

    Raises:
        Invalid: The schedule draws other masks than at the start, but the pattern draws the same.
    """
    label = {0: "masks", 1: "masks/switched"}.get(number, f"masks/switched/{number}")
    new_plan = setup.drawn_plan(trial, weights, now, derive_seed(trial.seed, label))
    masks = {w.weight.name: w.mask for w in new_plan.weights}
    same = all(np.array_equal(w.mask, masks[w.weight.name]) for w in plan.weights)
    if number and same:
        key, value = _event(trial)
        raise Invalid(key, value, f"{trial.pattern.name} draws no other masks")
    return masks


def check(
    trial: Trial, weights: Sequence[Weight], plan: Plan, initial: Mapping[str, Array], samples: int
) -> None:
    """Checks that the trial's schedule fits its training, without training anything.

    Args:
        trial: The trial.
        weights: Descriptions of the model's trainable weights.
        plan: The plan with the masks of the pattern.
        initial: Initial values of the trainable weights by name.
        samples: Number of training samples.

    Raises:
        Invalid: It does not fit, or new masks of the pattern would not.
    """
    course_of(trial, samples)
    if not isinstance(trial.mask_schedule, Swap):
        return
    masks = redrawn(trial, weights, plan, initial, 1)
    bindings = [trial.running_strategy.for_weight(w).bind() for w in plan.weights]
    if any(
        binding.constants(w)[0].shape
        != binding.constants(replace(w, mask=masks[w.weight.name]))[0].shape
        for binding, w in zip(bindings, plan.weights, strict=True)
    ):
        key, value = _event(trial)
        raise Invalid(key, value, f"{trial.pattern.name} draws masks of other sizes")


def _event(trial: Trial) -> tuple[str, object]:
    """The key and the value of the setting that draws new masks."""
    if trial.train.switch_at:
        return "train.switch_at", trial.train.switch_at
    return "schedule", trial.schedule.name


def metrics(start: TrialStart, records: Sequence[ChangeRecord], steps: int) -> dict[str, float]:
    """What the changes of the masks were, and the FLOPs of the training.

    Args:
        start: The start of the trial.
        records: The start and the changes, in order; empty if the masks did not change.
        steps: Number of training steps.

    Returns:
        `flops/training`: the FLOPs of all training steps that skip the connections that are held at
        zero, and of the dense gradients that a schedule asks for. `flops/training_ratio`: relative
        to as many steps of the dense model. They are left out if the model's products cannot be
        counted. With changes also `schedule/changes`, their number, `schedule/cut` and
        `schedule/grown`, the entries in all, `schedule/violated_changes`, after how many of them a
        masked entry moved, and `schedule/stale_slots`; see `ChangeRecord`.
    """
    values: dict[str, float] = {}
    dense = dense_step_flops(start.model)
    if dense and steps:
        ratio = _mean_ratio(start, records, steps)
        values["flops/training"] = dense * start.trial.train.batch_size * steps * ratio
        values["flops/training_ratio"] = ratio
    if not records:
        return values
    changes = records[1:]
    weights = [w for record in changes for w in record.weights.values()]
    return values | {
        "schedule/changes": float(len(changes)),
        "schedule/cut": float(sum(w.cut for w in weights)),
        "schedule/grown": float(sum(w.grown for w in weights)),
        "schedule/violated_changes": float(sum(r.violations > 0 for r in changes)),
        "schedule/stale_slots": max(
            (d for r in changes for d in r.stale_slots.values()), default=0.0
        ),
    }


def cause_tags(causes: Sequence[str], records: Sequence[ChangeRecord]) -> dict[str, str]:
    """The tags that say why held entries moved; empty if none did.

    Args:
        causes: The stages of a step through which they moved.
        records: The start and the changes of the masks, in order.

    Returns:
        `integrity.through`, and `integrity.stale_slots` with the kinds of slots, such as
        `momentum, velocity`, that were not at their initial values at a change after which entries
        moved.
    """
    tags = {"integrity.through": ", ".join(causes)} if causes else {}
    kinds = {kind for r in records[1:] if r.violations for kind in r.stale_slots}
    if "slots" in causes and kinds:
        tags["integrity.stale_slots"] = ", ".join(sorted(kinds))
    return tags


def _mean_ratio(start: TrialStart, records: Sequence[ChangeRecord], steps: int) -> float:
    """FLOPs of the training relative to the dense model's."""
    if not records:
        counts = {w.weight.name: (int((~w.mask).sum()), w.zeros) for w in start.plan.weights}
        return step_ratio_of_counts(start.model, counts)
    ends = [r.step for r in records[1:]] + [steps]
    total = 0.0
    for record, end in zip(records, ends, strict=True):
        counts = {name: (w.size - w.kept, w.zeros) for name, w in record.weights.items()}
        ratio = step_ratio_of_counts(start.model, counts)
        # dense gradients cost as much as a step of the dense model
        total += ratio * (end - record.step) + record.dense_gradients
    return total / steps


def artifacts(records: Sequence[ChangeRecord], steps: int) -> dict[str, bytes]:
    """`schedule.json`, which has all changes of the masks, and `schedule.png`.

    Args:
        records: The start and the changes, in order; empty if the masks did not change.
        steps: Number of training steps.
    """
    if not records:
        return {}
    plain = [asdict(record) for record in records]
    files = {"schedule.json": json.dumps(plain, indent=1).encode()}
    try:
        return files | schedule_plot.draw(records, steps)
    except Exception:  # the results must not be lost with an image
        traceback.print_exc()
        return files
