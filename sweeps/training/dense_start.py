"""The dense training before the weights are masked (`start.epochs`), as for pruning.

All trials whose dense training is the same share it: all strategies, patterns and sparsities of a
seed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from masksweep.sweeps.common.storage import Folder
from masksweep.sweeps.config.sections import Launch
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.training import saved_weights, setup
from masksweep.sweeps.training.loop import single_trial_loop
from masksweep.sweeps.training.setup import TrialStart
from masksweep.sweeps.training.start_weights import Initial

STATE_PREFIX = "#"
"""Begins the names of the non-trainable variables in a file. No weight's name begins with it."""


def start(trial: Trial, folder: Folder | None) -> TrialStart:
    """The start of a trial: after its dense training, if `start.epochs` asks for one.

    Args:
        trial: The trial.
        folder: Folder for the weights after the dense training, which later trials reuse; None to
            train it here.

    Raises:
        Invalid: The trial's plan cannot be made.
        Diverged: The dense training diverges.
    """
    if not trial.start.epochs:
        return setup.start(trial)
    return setup.start(trial, initial=_trained(dense_trial(trial), folder))


def dense_trial(trial: Trial) -> Trial:
    """Returns the dense trial of the epochs before the weights of a trial are masked."""
    rate = trial.start.learning_rate or trial.optimizer.learning_rate
    unmasked = {"epochs": 0, "learning_rate": None}
    train = {
        "epochs": trial.start.epochs,
        "steps": None,
        "switch_at": None,
        "resume_at": None,
        "early_stopping": None,
    }
    updates = {
        "start": trial.start.model_copy(update=unmasked),
        "train": trial.train.model_copy(update=train),
        "optimizer": replace(trial.optimizer, learning_rate=rate, schedule=None),
        "launch": Launch(),  # it runs alone, also in a pack
    }
    return trial.control.model_copy(update=updates)


def _trained(dense: Trial, folder: Folder | None) -> Initial:
    """The values after the training of a dense trial."""
    key = saved_weights.key_of(dense)
    arrays = saved_weights.load(key, folder)
    if arrays is None:
        loop = single_trial_loop(setup.start(dense))
        loop.run()
        training = loop.program.single_program.training
        training.finalize()
        state = {f"{STATE_PREFIX}{i}": np.asarray(v.numpy()) for i, v in enumerate(training.state)}
        arrays = {**loop.program.single_program.effective(), **state}
        saved_weights.save(key, arrays, folder)
    weights = {name: a for name, a in arrays.items() if not name.startswith(STATE_PREFIX)}
    return weights, [arrays[f"{STATE_PREFIX}{i}"] for i in range(len(arrays) - len(weights))]
