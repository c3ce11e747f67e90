"""The loss that a program trains on: a Keras loss, on targets as the data sets have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from masksweep.strategies.errors import Invalid
from masksweep.strategies.plan import Array
from masksweep.sweeps.components.datasets.arrays import Head, Task
from masksweep.sweeps.components.datasets.named import Named, Weighted
from masksweep.sweeps.components.losses import DEFAULT_LOSS, loss_of
from masksweep.sweeps.training import model_ends


class TrainingLoss:
    """The loss of a training. It computes what `keras.Model.fit` computes, bit for bit.

    Args:
        task: The task of the data.
        name: A name of a loss that fits the task; None for the task's default.
        class_weights: The weight of each class, as `class_weight` of `keras.Model.fit`; None for
            equal weights.

    Example:
        >>> loss = TrainingLoss("classification", "mean_absolute_error", [1.0, 3.0])
        >>> float(loss(tf.constant([1]), tf.constant([[0.5, 0.5]])))  # 3 times the error
        1.5
        >>> float(loss.unweighted(tf.constant([1]), tf.constant([[0.5, 0.5]])))
        0.5
    """

    def __init__(
        self, task: Task, name: str | None = None, class_weights: Sequence[float] | None = None
    ) -> None:
        loss = loss_of(name or DEFAULT_LOSS[task])
        self._loss = loss.build()
        self._one_hot = task == "classification" and not loss.classes_as_integers
        self._class_weights: Array | None = None
        if class_weights is not None:
            self._class_weights = np.asarray(class_weights, keras.config.floatx())

    def __call__(self, targets: Any, outputs: Any) -> Any:
        """Returns the mean loss of a batch, a scalar, with the weights of its samples or classes.

        Args:
            targets: Classes `[samples]` int32, or values `[samples, outputs]` float32; `Weighted`
                if the samples have weights.
            outputs: Outputs of the model, `[samples, outputs]`.
        """
        if isinstance(targets, Weighted):
            targets, weights = targets
        elif self._class_weights is not None:
            weights = tf.gather(tf.constant(self._class_weights), targets)
        else:
            return self.unweighted(targets, outputs)
        return self._loss(self._targets(targets, outputs), outputs, sample_weight=weights)

    def unweighted(self, targets: Any, outputs: Any) -> Any:
        """Returns the mean loss of a batch, a scalar, as `keras.Model.evaluate` does.

        The arguments are those of a call.
        """
        return self._loss(self._targets(targets, outputs), outputs)

    def _targets(self, targets: Any, outputs: Any) -> Any:
        return tf.one_hot(targets, outputs.shape[-1]) if self._one_hot else targets


class LossOfOutputs:
    """The loss of a model with several outputs: the sum of the losses of its outputs.

    It computes what `keras.Model.fit` computes, bit for bit, and is called as `TrainingLoss`, with
    targets by the names of the outputs and with the outputs as the model returns them.

    Args:
        model: The Keras model, which knows the names of its outputs.
        losses: The loss of each output by its name.
        weights: Factors of losses by the name of the output.
    """

    def __init__(
        self, model: Any, losses: Mapping[str, TrainingLoss], weights: Mapping[str, float]
    ) -> None:
        self._model, self._losses, self._weights = model, losses, weights

    def __call__(self, targets: Any, outputs: Any) -> Any:
        total, named = 0.0, model_ends.by_name(self._model, outputs)
        if named.keys() != self._losses.keys():
            allowed = f"has the outputs {', '.join(named)}; the data have {', '.join(self._losses)}"
            raise Invalid("model", self._model.name, allowed)
        # in the order of the model, as in Keras
        for name, output in named.items():
            loss = self._losses[name](targets[name], output)
            weight = self._weights.get(name)
            total += loss if weight is None else loss * weight
        return total

    def unweighted(self, targets: Any, outputs: Any) -> Any:
        """Returns the same; there are no weights of classes with several outputs."""
        return self(targets, outputs)


def training_loss(
    model: Any,
    task: Task,
    heads: Named[Head] | None,
    *,
    loss: str | Named[str] | None,
    loss_weights: Named[float] | None = None,
    class_weights: Sequence[float] | None = None,
) -> TrainingLoss | LossOfOutputs:
    """Returns the loss of a trial's model.

    Args:
        model: The Keras model.
        task: The task of the data.
        heads: The outputs of a model with several; None for one output.
        loss: Name of the loss, None for the task's default; or the names of all outputs' losses.
        loss_weights: Factors of the losses of several outputs.
        class_weights: The weight of each class; None for equal weights.
    """
    if heads is None:
        assert not isinstance(loss, Mapping)
        return TrainingLoss(task, loss, class_weights)
    assert isinstance(loss, Mapping)
    losses = {name: TrainingLoss(head.task, loss[name]) for name, head in heads.items()}
    return LossOfOutputs(model, losses, loss_weights or {})


def balanced(classes: Array, outputs: int) -> tuple[float, ...]:
    """Returns weights by which each class counts the same, however many samples it has.

    The weight of a class is `samples / (classes * samples of the class)`, as `balanced` in
    scikit-learn. Only classes that have samples are counted; the weight of another class is 1.

    Args:
        classes: The class of each training sample, `[samples]`.
        outputs: Number of classes.

    Example:
        >>> balanced(np.array([0, 0, 0, 1]), 3)
        (0.6666666666666666, 2.0, 1.0)
    """
    counts = np.bincount(classes, minlength=outputs)
    present = int(np.count_nonzero(counts))
    return tuple(float(len(classes) / (present * n)) if n else 1.0 for n in counts)
