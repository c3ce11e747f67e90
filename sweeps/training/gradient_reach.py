"""Finds out whether a gradient reaches the masked entries. Without one, nothing can move them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from masksweep.strategies.plan import Plan
from masksweep.sweeps.training import batches, setup
from masksweep.sweeps.training.program import Program
from masksweep.sweeps.training.setup import TrialStart
from masksweep.sweeps.training.snapshot import Snapshot
from masksweep.sweeps.training.step_counts import step_counts


def control_reach(
    start: TrialStart, plan: Plan, program: Program, before: Snapshot
) -> dict[str, float]:
    """Counts the masked entries that a gradient reaches, for a control whose entries did not move.

    A control is a strategy that must leak: its masked entries must move. They cannot move if the
    loss has no gradient there. An example is a ReLU unit whose incoming weights and bias are all
    held at zero. So the gradients of the plain loss are computed with the weights before the first
    step, on every batch of the first epoch, and with the weights after the last step, on every
    batch of the last epoch. The dense control computes them, because a fault of the tested control
    could hide them.

    Args:
        start: The start of the trial.
        plan: The masks and held values at the end of the training.
        program: The control's program after the last step.
        before: The control's model before the first step.

    Returns:
        `integrity/reached`: Number of masked entries whose gradient was not zero in at least one
        of these batches. `integrity/unreached`: Number of all other masked entries.
    """
    trial = start.trial
    steps, total_steps = step_counts(trial, start.data.samples)
    state = [np.asarray(v.numpy()) for v in program.training.state]
    moments = [
        (before.weights, start.state, 0),
        (program.effective(), state, (total_steps - 1) // steps),
    ]
    dense = setup.program_for(replace(start, trial=trial.control, plan=Plan()))
    rate = trial.optimizer.learning_rate
    masked_at_start = {w.weight.name: ~w.mask for w in start.plan.weights}
    # masks may change in the training: only entries masked at its start and its end count
    masked = {w.weight.name: ~w.mask & masked_at_start[w.weight.name] for w in plan.weights}
    reached = {name: np.zeros(mask.shape, bool) for name, mask in masked.items()}
    for weights, values, epoch in moments:
        dense.training.assign_all(dense.start(weights, values, Plan(), rate))
        for x, y in batches.of_epoch(start, epoch):
            gradients = dense.gradients(x, y)
            for name in reached.keys() & gradients.keys():
                reached[name] |= np.asarray(gradients[name]) != 0
    reached_count = sum(int((masked[name] & reached[name]).sum()) for name in masked)
    total_count = sum(int(mask.sum()) for mask in masked.values())
    return {
        "integrity/reached": float(reached_count),
        "integrity/unreached": float(total_count - reached_count),
    }
