"""Combines several sweeps into one, for a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from masksweep.sweeps.config.variants import variants
from masksweep.sweeps.tracking.stored_sweep import StoredSweep


def combine(sweeps: Sequence[StoredSweep]) -> StoredSweep:
    """Combines sweeps into one. The variant of each trial is computed again over all trials.

    Args:
        sweeps: One or more sweeps. No two of them may have the same trial. Files that the configs
            of the trials name must still exist.

    Returns:
        The combined sweep; a single sweep keeps its name and run id.
    """
    outcomes = [o for s in sweeps for o in s.outcomes]
    labels = variants([o.trial for o in outcomes])
    outcomes = [replace(o, variant=labels[o.trial.id]) for o in outcomes]
    if len(sweeps) == 1:
        return replace(sweeps[0], outcomes=outcomes)
    environments: dict[str, list[str]] = {}
    for environment, names in (pair for s in sweeps for pair in s.environments.items()):
        environments.setdefault(environment, []).extend(names)
    return StoredSweep(
        name=" and ".join(s.name for s in sweeps),
        run_id="",
        question="",
        command="",
        outcomes=outcomes,
        environments=environments,
        left_out=[f"{s.name}: {reason}" for s in sweeps for reason in s.left_out],
        runs=[run for s in sweeps for run in s.runs],
        parts=sweeps,
    )
