"""The state of one trial's training: its position, reports and checkpoints."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf

from masksweep.strategies.core import audit
from masksweep.strategies.core.training import Training
from masksweep.strategies.mask_changes.changes import MaskChanges
from masksweep.strategies.mask_changes.record import ChangeRecord
from masksweep.strategies.plan import Array
from masksweep.sweeps.results import Report
from masksweep.sweeps.training import early_stopping
from masksweep.sweeps.training.checkpoint import Checkpoints
from masksweep.sweeps.training.program import Lane
from masksweep.sweeps.training.setup import TrialStart
from masksweep.sweeps.training.state import Emit, Position

UNKNOWN_ORDER = "the bits may differ: the data do not say that each pass has the same samples"
"""Note and tag of a trial on a pipeline that is not known to be deterministic."""


@dataclass(eq=False)
class TrialRun:
    """The state of one trial's training, with its reports and checkpoints."""

    start: TrialStart
    emit: Emit = lambda report: None
    checkpoints: Checkpoints | None = None
    position: Position = field(default_factory=Position)
    note: str = ""
    """A message for the user, which the next report carries."""
    error: Exception | None = None
    """The exception that ended the training before its last step."""
    best_weights: list[Array] = field(default_factory=list)
    """The weights of the best epoch (see `early_stopping`); empty before the first one has ended,
    and without early stopping."""
    saved_weights: list[Array] = field(default_factory=list)
    """The weights that the mask schedule rewinds to, from the checkpoint."""

    def resume(self, training: Training, kind: str = "") -> Lane:
        """Takes the position from the newest usable checkpoint, if there is one.

        Args:
            training: The training at its start.
            kind: A text that distinguishes checkpoints of programs whose steps are not the same to
                the last bit.

        Returns:
            The checkpoint's values of the first variables of `training.all_variables`; empty
            without a usable checkpoint. Masks and held values are the last variables, and are left
            out of a checkpoint where they cannot change.
        """
        if self.checkpoints is None:
            return []
        state, self.note = self.checkpoints.resume(f"{fingerprint(training)}{kind}")
        if state is None:
            return []
        self.position = Position.of(state.position)
        if not self.start.data.deterministic:
            self.note += f"; {UNKNOWN_ORDER}"
        if self.start.trial.moves_masks:
            count = len(training.all_variables)
            self.saved_weights = list(state.arrays[count:])
            return list(state.arrays[:count])
        if self.position.best.value is None:
            return state.arrays
        lane, self.best_weights = early_stopping.split_saved(training, list(state.arrays))
        return lane

    def restore_changes(self, changes: MaskChanges, training: Training) -> None:
        """Restores the changes of the masks from the checkpoint; without one, records the start."""
        if not self.position.changes:
            changes.start(training)
            return
        changes.records = [ChangeRecord.of(plain) for plain in self.position.changes]
        if self.saved_weights:
            names = [weight.name for weight in training.weights]
            changes.saved = dict(zip(names, self.saved_weights, strict=True))

    def report(self, total: int, metrics: Mapping[str, float] | None = None) -> None:
        """Sends a report of the current position and the note, and clears the note.

        Args:
            total: Training steps of the whole trial.
            metrics: Metrics of the current epoch, if it has ended.
        """
        position, note = self.position, self.note
        self.note = ""
        self.emit(Report(position.found.steps, total, position.epochs + 1, metrics or {}, note))

    @contextmanager
    def catching_errors(self) -> Iterator[None]:
        """Context in which an exception ends this run only: it is kept as `error`, not raised."""
        try:
            yield
        except Exception as error:
            self.error = error


def fingerprint(training: Training) -> str:
    """Identifies the start of a training, so that a checkpoint is not used for another one.

    Returns:
        SHA-256 of the masks and held values, of the shapes and dtypes of all variables that a step
        can change, and of the versions of TensorFlow and Keras.
    """
    mask_arrays = {
        f"{name}/{part}": np.asarray(variable.numpy())
        for name, masked in training.masked.items()
        for part, variable in (("kept", masked.kept), ("held", masked.held))
    }
    shapes = [(tuple(v.shape), str(v.dtype)) for v in training.variables]
    versions = tf.__version__, keras.__version__
    return hashlib.sha256(f"{audit.digest(mask_arrays)} {shapes} {versions}".encode()).hexdigest()
