"""A sweep from the command line's words to its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn

    from sweeps.launcher import Composed
    from sweeps.report import Outcome
    from sweeps.summary import Ended


def sweep(overrides: Sequence[str], *, rerun: bool = False) -> Ended | None:
    """Run the sweep that the overrides ask for; None if Hydra answered by itself.

    Raises `Invalid` for what cannot be composed or is not allowed, with nothing written.
    """
    from sweeps.overrides import compose

    found: Ended | None = None

    def launch(jobs: Sequence[Composed]) -> Sequence[JobReturn]:
        nonlocal found
        from sweeps import plan, run_sweep

        trials = plan.trials_of(jobs)
        found = run_sweep.run(plan.plan(jobs, trials), overrides, rerun=rerun)
        by_id: dict[str, Outcome] = {outcome.trial.id: outcome for outcome in found.outcomes}
        return [
            run_sweep.returned(j, t, by_id.get(t.id)) for j, t in zip(jobs, trials, strict=True)
        ]

    compose("run", overrides, launch)
    return found
