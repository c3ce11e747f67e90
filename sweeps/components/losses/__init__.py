"""The losses that a config can name: Keras' and your own. Loads no TensorFlow."""

from dataclasses import replace

from masksweep.strategies.errors import Invalid
from masksweep.strategies.registry import Registry
from masksweep.sweeps.components.datasets.arrays import Task
from masksweep.sweeps.components.losses.base import Loss
from masksweep.sweeps.components.losses.keras_losses import (
    DEFAULT_LOSS,
    KERAS_LOSSES,
    KerasLoss,
)
from masksweep.sweeps.components.losses.settings import canonical_loss, split_loss

OWN_LOSSES = Registry("losses", Loss, __name__)
"""The registry of losses that are not Keras' own."""

__all__ = [
    "DEFAULT_LOSS",
    "KERAS_LOSSES",
    "OWN_LOSSES",
    "Loss",
    "canonical_loss",
    "loss_of",
    "losses_for",
    "split_loss",
]


def losses_for(task: Task) -> list[str]:
    """Returns the names of the losses that fit a task.

    Raises:
        Invalid: A loss of your own has the name of one of Keras.

    Example:
        >>> losses_for("regression")[:2]
        ['cosine_similarity', 'huber']
    """
    for name in OWN_LOSSES:
        if name in KERAS_LOSSES:
            raise Invalid("masksweep.losses", name, "the name of a loss of Keras; choose another")
    own = [name for name, loss in OWN_LOSSES.items() if task in loss.tasks]
    return [name for name, loss in KERAS_LOSSES.items() if task in loss.tasks] + own


def loss_of(text: str) -> KerasLoss | Loss:
    """Returns the loss that a text names, with its settings.

    Args:
        text: A name that `losses_for` returns, or what `canonical_loss` returns for such a name.

    Example:
        >>> dict(loss_of("huber(delta=2.0)").settings)
        {'delta': 2.0}
    """
    name, settings = split_loss(text)
    if name in KERAS_LOSSES:
        return replace(KERAS_LOSSES[name], settings=settings)
    return OWN_LOSSES[name]()
