"""Several sweeps as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from masksweep.sweeps.config.variants import variants
from masksweep.sweeps.tracking.reader import Sweep


def together(sweeps: Sequence[Sweep]) -> Sweep:
    """Sweeps that share no trial as one, with what tells its trials apart.

    The files that trials name must be there still.
    """
    whole = [o for s in sweeps for o in s.outcomes]
    told = variants([o.trial for o in whole])
    whole = [replace(o, variant=told[o.trial.id]) for o in whole]
    if len(sweeps) == 1:
        return replace(sweeps[0], outcomes=whole)
    environments: dict[str, list[str]] = {}
    for environment, names in (pair for s in sweeps for pair in s.environments.items()):
        environments.setdefault(environment, []).extend(names)
    return Sweep(
        name=" and ".join(s.name for s in sweeps),
        run_id="",
        question="",
        command="",
        outcomes=whole,
        environments=environments,
        left_out=[f"{s.name}: {why}" for s in sweeps for why in s.left_out],
        runs=[run for s in sweeps for run in s.runs],
        parts=sweeps,
    )
