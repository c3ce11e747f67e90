"""Early stopping: when a training ends before its last step, and which weights it ends with.

It follows `keras.callbacks.EarlyStopping` with `restore_best_weights=True`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from masksweep.strategies.plan import Array
from masksweep.sweeps.components.metrics import is_higher_better


@dataclass
class BestEpoch:
    """The best epoch of a training so far. It is saved in checkpoints."""

    value: float | None = None
    """Value of the monitored metric after the best epoch; None before the end of the first one."""
    step: int = 0
    """Number of training steps up to the end of the best epoch."""
    waited: int = 0
    """Number of epochs since then."""

    def update(self, monitor: str, value: float, step: int) -> bool:
        """Takes the value of an epoch, and returns whether the epoch is the best so far.

        Args:
            monitor: Name of the metric, such as `validation/loss`.
            value: Value of the metric after the epoch.
            step: Number of training steps up to the end of the epoch.

        Example:
            >>> best = BestEpoch()
            >>> [best.update("validation/loss", v, 10) for v in (0.5, 0.6, 0.5, 0.4)]
            [True, False, False, True]
        """
        if self.value is not None:
            better = value > self.value if is_higher_better(monitor) else value < self.value
            if not better:
                self.waited += 1
                return False
        self.value, self.step, self.waited = value, step, 0
        return True


def weights_of(training: Any) -> list[Array]:
    """Returns the values that `restore` takes: what trains, and the state of the model.

    Args:
        training: A `Training`.
    """
    return [v.numpy() for v in _variables(training)]


def restore(training: Any, weights: list[Array]) -> None:
    """Sets what trains, and the state of the model, to what `weights_of` has returned."""
    for variable, array in zip(_variables(training), weights, strict=True):
        variable.assign(array)


def split_saved(training: Any, arrays: list[Array]) -> tuple[list[Array], list[Array]]:
    """Splits the arrays of a checkpoint into the current values and the best weights.

    Args:
        training: A `Training`.
        arrays: The values of `training.variables`, then what `weights_of` has returned.
    """
    count = len(training.variables)
    return arrays[:count], arrays[count:]


def _variables(training: Any) -> list[Any]:
    return [*training.values, *training.state]
