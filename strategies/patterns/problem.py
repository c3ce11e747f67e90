"""A model with data and a loss: what patterns that score weights by gradients need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from masksweep.strategies.errors import require
from masksweep.strategies.patterns.drawing import keep_lowest, raw
from masksweep.strategies.plan import Array


@dataclass(frozen=True)
class Problem:
    """A model before its training, with the data and the loss that it will be trained on.

    Nothing of it is changed when scores are computed.

    Args:
        model: A built Keras model.
        weights: All weights of the model that train, by name, as `weights.values` returns them.
        state: All other variables of the model, in its order.
        inputs: Inputs `[samples, ...]`: an array, or a list or dict of arrays, as the model takes
            them; or a `tf.data.Dataset` of batches (inputs, targets). None if there are no data.
        targets: Targets `[samples, ...]`, as the loss takes them; None with a dataset.
        loss: A function `(targets, outputs) -> loss`.
    """

    model: Any
    weights: Mapping[str, Array]
    state: Sequence[Array]
    inputs: Any = None
    targets: Any = None
    loss: Callable[[Any, Any], Any] | None = None

    def sample(self, size: int, seed: int) -> Problem:
        """Returns the problem with `size` of the samples, or with all if there are not more.

        Args:
            size: Number of samples.
            seed: Seed of the random choice. Of a dataset, the first samples are taken.

        Raises:
            Invalid: There are no data, or no loss.
        """
        require(self.inputs is not None, "data", None, "inputs and targets, for this pattern")
        require(self.loss is not None, "loss", None, "a loss, for this pattern")
        import keras
        import tensorflow as tf

        if isinstance(self.inputs, tf.data.Dataset):
            inputs, targets = first_samples(self.inputs, size)
            return replace(self, inputs=inputs, targets=targets)

        def rows(array: Any) -> Any:
            # one that reads its rows from a file has no `__array__`, and is not read as a whole
            in_memory = isinstance(array, Sequence) or hasattr(array, "__array__")
            return (np.asarray(array) if in_memory else array)[chosen]

        samples = len(keras.tree.flatten(self.inputs)[0])
        chosen = np.flatnonzero(keep_lowest(raw(samples, seed, "samples"), size))
        parts = (keras.tree.map_structure(rows, part) for part in (self.inputs, self.targets))
        return replace(self, inputs=next(parts), targets=next(parts))

    def outputs(self, weights: Sequence[Any], inputs: Any, *, training: bool) -> Any:
        """Returns the model's outputs with other values of its weights.

        Args:
            weights: Values of all weights that train, in the order of `weights`.
            inputs: Inputs, as the model takes them.
            training: The argument of the same name of the model's `call`.
        """
        outputs, _ = self.model.stateless_call(weights, self.state, inputs, training=training)
        return outputs

    def mean_loss(self, weights: Sequence[Any]) -> Any:
        """Returns the loss on the data in training mode, a scalar, with these weights."""
        import tensorflow as tf

        assert self.loss is not None
        outputs = self.outputs(weights, self.inputs, training=True)
        return tf.reduce_mean(self.loss(self.targets, outputs))


def first_samples(dataset: Any, size: int) -> tuple[Any, Any]:
    """Returns the first inputs and targets of a dataset, of which no more batches are read.

    Args:
        dataset: A `tf.data.Dataset` of batches (inputs, targets).
        size: Number of samples. If the dataset does not have as many, all are returned.

    Raises:
        Invalid: The dataset is empty, or what it has are no batches.
    """
    import keras

    batches, samples = [], 0
    for batch in dataset.as_numpy_iterator():
        lengths = {part.shape[:1] for part in keras.tree.flatten(batch)}
        is_batch = len(lengths) == 1 and lengths != {()}
        require(
            is_batch, "data", "a tf.data.Dataset", "one of batches of as many inputs as targets"
        )
        batches.append(batch)
        samples += lengths.pop()[0]
        if samples >= size:
            break
    require(samples > 0, "data", "a tf.data.Dataset", "one that is not empty")
    inputs, targets = keras.tree.map_structure(lambda *p: np.concatenate(p)[:size], *batches)
    return inputs, targets
