"""Through what held entries moved, if they did: the training is gone through once more."""

from __future__ import annotations

from collections.abc import Sequence

from masksweep.strategies.core import leak_cause
from masksweep.sweeps.training import setup
from masksweep.sweeps.training.loop import Course
from masksweep.sweeps.training.program import Program, Progress
from masksweep.sweeps.training.setup import Start

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
    each = Course(start, setup.program_for(start), every=1)
    each.run(found.first)
    first = each.at.found.first
    if first is None:
        return by_finalizing
    again = Course(start, setup.program_for(start), every=1)
    again.run(first - 1)
    return leak_cause.causes(again.program.training, *again.next_batch()) or ["graph"]
