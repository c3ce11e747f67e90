"""Finds out why held entries moved, by training once more up to the first violation."""

from __future__ import annotations

from collections.abc import Sequence

from masksweep.strategies.core import leak_cause
from masksweep.sweeps.training.loop import single_trial_loop
from masksweep.sweeps.training.program import Program
from masksweep.sweeps.training.setup import TrialStart
from masksweep.sweeps.training.steps import Progress

MAX_REPEATED_STEPS = 20_000
"""Largest step number of a first violation for which the training is repeated."""


def finalize(program: Program, steps: int) -> Sequence[leak_cause.Cause]:
    """Ends the training, in which the averages of EMA are written to the weights.

    Args:
        program: The program after the last step.
        steps: Number of training steps. Without any there are no averages, so nothing is done.

    Returns:
        Why held entries differ from their held values that did not differ before.
    """
    if not steps:
        return ()
    return leak_cause.causes_of_finalizing(program.training)


def causes(
    start: TrialStart, progress: Progress, by_finalizing: Sequence[leak_cause.Cause]
) -> Sequence[str]:
    """The causes of the first violation; without one, the causes by finalizing.

    Trains again up to the first violation, and then runs this step eagerly, stage by stage. So it
    takes at most as long as the training took. If the held entries do not move in the eager step,
    the difference comes from the compilation: the cause is `graph`. This has been seen with Ftrl:
    TensorFlow simplifies its arithmetic, and zeros become -0.0.

    Args:
        start: The start of the trial.
        progress: Progress of the training over all steps.
        by_finalizing: The causes that `finalize` returned.
    """
    if progress.first is None or progress.first > MAX_REPEATED_STEPS:
        return by_finalizing
    repeated = single_trial_loop(start, audit_every=1)
    audit_before = (progress.first - 1) // start.trial.audit.every * start.trial.audit.every
    repeated.run(audit_before)  # nothing had moved there
    for step in range(audit_before, progress.first):
        training, batch = repeated.program.single_program.training, repeated.next_batch()
        before = [variable.numpy() for variable in training.all_variables]
        repeated.run(step + 1)
        if repeated.runs[0].position.found.first is not None:
            training.assign_all(before)
            return leak_cause.causes(training, *batch) or ["graph"]
    return by_finalizing
