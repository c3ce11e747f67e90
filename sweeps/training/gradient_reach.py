"""Whether any gradient reaches the masked entries: without one, nothing can move them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import tensorflow as tf

from masksweep.strategies.base import Plan
from masksweep.sweeps.training import setup
from masksweep.sweeps.training.evaluation import Snapshot
from masksweep.sweeps.training.program import Program
from masksweep.sweeps.training.setup import Start


def of_control(start: Start, plan: Plan, program: Program, before: Snapshot) -> dict[str, float]:
    """How many masked entries a gradient reaches, of a control that held.

    A control must be seen to leak. It cannot where the loss has no gradient at the masked entries,
    as in a ReLU unit of which all incoming weights and the bias are held at zero. So the gradients
    of the plain loss are computed at the weights before the first step on every batch of the first
    epoch, and at those after the last step on every batch of the last one. They are the dense
    control's: what is wrong with the control itself must not hide them.

    Args:
        start: What the trial started from.
        plan: What is held at the end.
        program: The control's, after the last step.
        before: Its model before the first step.

    Returns:
        `integrity/reached` and `integrity/unreached`: masked entries with a gradient that is not
        zero in any of these batches, and those without.
    """
    trial, samples = start.trial, len(start.data.train[0])
    steps, total = setup.schedule(trial, samples)
    state = [np.asarray(v.numpy()) for v in program.training.state]
    moments = [
        (before.weights, start.state, 0),
        (program.effective(), state, (total - 1) // steps),
    ]
    dense = setup.program_for(replace(start, trial=trial.control, plan=Plan()))
    rate = trial.optimizer.learning_rate
    first = {w.weight.name: ~w.mask for w in start.plan.weights}
    # masks may have changed on the way: what is held from the start to the end
    held = {w.weight.name: ~w.mask & first[w.weight.name] for w in plan.weights}
    reached = {name: np.zeros(mask.shape, bool) for name, mask in held.items()}
    for weights, values, epoch in moments:
        dense.training.put(dense.start(weights, values, Plan(), rate))
        for rows in setup.order(trial, samples, epoch):
            x, y = (tf.gather(a, rows) for a in start.data.train)
            gradients = dense.gradients(x, y)
            for name in reached.keys() & gradients.keys():
                reached[name] |= np.asarray(gradients[name]) != 0
    count = sum(int((held[name] & reached[name]).sum()) for name in held)
    every = sum(int(mask.sum()) for mask in held.values())
    return {"integrity/reached": float(count), "integrity/unreached": float(every - count)}
