"""Through what held entries moved, if they did: the training is gone through once more."""

from __future__ import annotations

from collections.abc import Sequence

from masksweep.strategies.core import leak_cause
from masksweep.sweeps.training.loop import alone
from masksweep.sweeps.training.program import Program
from masksweep.sweeps.training.setup import Start
from masksweep.sweeps.training.steps import Progress

FAR = 1000
"""A first violation after so many steps is not gone back to."""


def finalize(program: Program) -> Sequence[leak_cause.Cause]:
    """End the training; what made held entries differ that did not before."""
    return leak_cause.causes_of_finalizing(program.training)


def causes(
    start: Start, found: Progress, by_finalizing: Sequence[leak_cause.Cause]
) -> Sequence[str]:
    """What the first violation came through; else, what finalizing did.

    Trains to the step before the first violation, and takes that one stage by stage. If it holds
    so, which is eagerly, the compiled step alone made the difference: `graph`. (Seen of Ftrl, whose
    zeros become -0.0 when TensorFlow has simplified its arithmetic.)
    """
    if found.first is None or found.first > FAR:
        return by_finalizing
    audited = alone(start, audit_every=1)
    audited.run(found.first)
    first = audited.runs[0].at.found.first
    if first is None:
        return by_finalizing
    before = alone(start, audit_every=1)
    before.run(first - 1)
    return leak_cause.causes(before.program.one.training, *before.next_batch()) or ["graph"]
