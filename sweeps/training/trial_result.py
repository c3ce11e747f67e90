"""The result of a trial whose training has ended: audit, costs, tags and artifacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from masksweep.strategies.core.audit import Loader
from masksweep.strategies.core.leak_cause import Cause
from masksweep.strategies.mask_changes.record import ChangeRecord
from masksweep.strategies.plan import Plan
from masksweep.sweeps.common import provenance
from masksweep.sweeps.results import TrialResult, leaks
from masksweep.sweeps.training import (
    costs,
    evaluation,
    gradient_reach,
    integrity,
    leak_cause,
    mask_course,
    recovery,
    weight_images,
)
from masksweep.sweeps.training.program import Program
from masksweep.sweeps.training.setup import TrialStart
from masksweep.sweeps.training.snapshot import Snapshot
from masksweep.sweeps.training.state import Position
from masksweep.sweeps.training.step_counts import step_counts
from masksweep.sweeps.training.trial_run import UNKNOWN_ORDER


@dataclass(frozen=True)
class EndedTraining:
    """The training of a trial after its last step."""

    start: TrialStart
    """The start of the trial."""
    plan: Plan
    """The masks and held values at the end of the training."""
    program: Program
    """The program after the last step."""
    before: Snapshot
    """The model before the first step."""
    position: Position
    """The position at the end."""
    by_finalizing: Sequence[Cause]
    """Why held entries moved at the end of the training (see `leak_cause.finalize`)."""
    records: Sequence[ChangeRecord] = ()
    """The start and the changes of the masks, in order; empty if the masks did not change."""


def audited_result(ended: EndedTraining, loader: Loader | None = None) -> TrialResult:
    """Audits a trial, and returns its result with its costs and the last epoch's metrics.

    Args:
        ended: The training.
        loader: Loads the saved model; by default a new loader.
    """
    start, program, position, records = ended.start, ended.program, ended.position, ended.records
    audited, artifacts, sha256 = integrity.audit_trained(
        start, ended.plan, program, ended.before, position.found, loader
    )
    is_control = start.trial.strategy.role == "control"
    if audited and is_control and not start.trial.still_reason and not leaks(audited):
        audited |= gradient_reach.control_reach(start, ended.plan, program, ended.before)
    tags = {"trial.weights_sha256": sha256, **_tags(ended, audited)}
    if records:  # entries that are masked since a change were free to move before it
        audited.pop("integrity/raw_drift", None)
    last_epoch = evaluation.epoch_metrics(start, program, position)
    masks = {w.weight.name: w.mask for w in ended.plan.weights}
    metrics = {
        **last_epoch,
        **audited,
        **recovery.of_masks(start, masks),
        **costs.cost_metrics(start, ended.plan, program),
        **mask_course.metrics(start, records, position.found.steps),
    }
    epoch, total = step_counts(start.trial, start.data.samples)
    changes = [record.step / epoch for record in records[1:]]
    artifacts["environment.txt"] = provenance.environment_text().encode()
    artifacts |= weight_images.draw_violations([*position.curve, last_epoch], changes)
    artifacts |= mask_course.artifacts(records, total)
    data = start.data.described()
    return TrialResult("ok", "", metrics, tags, artifacts, data=data, epochs=position.epochs)


def _tags(ended: EndedTraining, audited: Mapping[str, float]) -> dict[str, str]:
    """What limits the audit, why held entries moved, and what the strategy chose."""
    start, tags = ended.start, {}
    if audited and start.trial.still_reason:
        tags["integrity.untrained"] = start.trial.still_reason
    if not start.data.deterministic:
        tags["data.order"] = UNKNOWN_ORDER
    # first what asks the program for its final outputs: finding causes trains with it again
    moved = integrity.moved_outputs(start, ended.program, ended.before, audited)
    causes = [*leak_cause.causes(start, ended.position.found, ended.by_finalizing), *moved]
    choices = start.trial.running_strategy.choices(ended.plan)
    tags |= {f"strategy.{key}": text for key, text in choices.items()}
    return tags | mask_course.cause_tags(causes, ended.records)
