"""What a data set loads: training, validation and test samples."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from masksweep.sweeps.components.datasets import named
from masksweep.sweeps.components.datasets.named import Named, Split, Weighted
from masksweep.sweeps.components.datasets.pipeline import Pipeline
from masksweep.sweeps.components.datasets.stored_images import StoredImages

Task = Literal["classification", "multi_label", "regression"]
"""One class of a sample, any number of labels, or numbers."""


def score_name(task: Task) -> str:
    """Returns the name of the score of a task: `accuracy` or `mse`."""
    return "mse" if task == "regression" else "accuracy"


class Head(NamedTuple):
    """One of several outputs of a model."""

    task: Task
    outputs: int
    """Number of classes, of labels, or of target values."""


@dataclass(frozen=True)
class Arrays:
    """A data set, split into training, validation and test samples.

    The parts are arrays, or, if the data may be larger than the memory, inputs in a file or
    pipelines.
    """

    name: str
    task: Task
    """The task; that of the first output if the model has several."""
    outputs: int
    """Number of classes, of labels, or of target values, of the first output."""
    train: Split | Pipeline
    validation: Split | Pipeline | None
    test: Split | Pipeline
    deterministic: bool = True
    """Whether each pass over the samples is known to give the same ones in the same order."""
    heads: Named[Head] | None = None
    """The outputs of a model with several, by name; None for one output."""

    @property
    def shape(self) -> Any:
        """The shape of one input, or the shapes of several by name."""
        if isinstance(self.train, Pipeline):
            shape = self.train.sample_shape
            return Named(shape) if isinstance(shape, dict) else shape
        return named.sample_shape(self.train[0])

    @property
    def model_outputs(self) -> Any:
        """`outputs`, or those of each output of a model with several, by name."""
        return self.outputs if self.heads is None else Named(named.map_arrays(_outputs, self.heads))

    @property
    def samples(self) -> int:
        """Number of training samples."""
        return named.count(self.train if isinstance(self.train, Pipeline) else self.train[0])

    @property
    def in_memory(self) -> Split | None:
        """The training samples if they are arrays in memory, else None."""
        if isinstance(self.train, Pipeline) or isinstance(self.train[0], StoredImages):
            return None
        return self.train

    def described(self) -> dict[str, Any]:
        """Describes the training part: name, SHA-256 digest and the shapes of its arrays.

        The digest of samples in a file follows from the digest of the file, and that of a pipeline
        from its first samples, so that the whole part need not be read.
        """
        if isinstance(self.train, Pipeline):
            shapes = self.train.sample_shape, self.train.target_shape
            features, targets = (
                named.map_arrays(lambda shape: [self.samples, *shape], of_part)
                for of_part in shapes
            )
            described = {"sha256": self.train.sha256, "features": features, "targets": targets}
            return {"name": self.name, **described}
        sha = hashlib.sha256()
        for part in self.train:
            if isinstance(part, Mapping):
                sha.update("\n".join(part).encode())
            if isinstance(part, StoredImages):
                sha.update(part.sha256.encode())
                continue
            for array in named.arrays_of(part):
                sha.update(np.ascontiguousarray(array).tobytes())
        features, targets = (named.map_arrays(lambda a: list(a.shape), p) for p in self.train)
        return {
            "name": self.name,
            "sha256": sha.hexdigest(),
            "features": features,
            "targets": targets.targets if isinstance(targets, Weighted) else targets,
        }


def _outputs(head: Head) -> int:
    return head.outputs
