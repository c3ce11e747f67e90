"""The images that Keras downloads: MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from masksweep.strategies.base import Invalid, require
from masksweep.strategies.registry import register
from masksweep.sweeps.components.datasets import idx
from masksweep.sweeps.components.datasets.base import DataSet, Split
from masksweep.sweeps.components.datasets.content import (
    as_inputs,
    as_targets,
    require_known_classes,
)

Name = Literal["mnist", "fashion_mnist", "cifar10", "cifar100"]
CACHE_FILES = {
    "mnist": "mnist.npz in ~/.keras/datasets",
    "fashion_mnist": "the four idx files in ~/.keras/datasets/fashion-mnist",
    "cifar10": "cifar-10-python.tar.gz as ~/.keras/datasets/cifar-10-batches-py-target_archive",
    "cifar100": "cifar-100-python.tar.gz as ~/.keras/datasets/cifar-100-python-target_archive",
}
"""Where Keras looks for the files before it downloads them."""


@register
@dataclass(frozen=True)
class KerasImages(DataSet):
    """Images of `keras.datasets`, `[height, width, channels]`, scaled to [0, 1].

    Keras downloads a data set once, to `~/.keras/datasets`.

    Raises:
        Invalid: The data set is not there and cannot be downloaded, or the folder `path` does not
            have the files.
    """

    name: ClassVar[str] = "keras"
    dataset: Name = "mnist"
    """`mnist`, `fashion_mnist`, `cifar10` or `cifar100`."""
    path: str | None = None
    """Folder with the four idx files of MNIST or Fashion-MNIST (`train-images-idx3-ubyte`, ...),
    also as `.gz`. null takes the files of Keras."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path is None:
            return
        has_idx_files = self.dataset in ("mnist", "fashion_mnist")
        require(has_idx_files, "path", self.path, f"null with dataset={self.dataset}")
        if not self.is_elsewhere:
            idx.find(self.path)

    def samples(self) -> tuple[Split, Split]:
        if self.path is not None:
            train, test = idx.read(self.path, "train"), idx.read(self.path, "test")
        else:
            train, test = self._from_keras()
        parts = self._split("train", *train), self._split("test", *test)
        where = self.path or ""
        require_known_classes(where, "the test part", parts[1][1], "the training part", parts[0][1])
        return parts

    def _from_keras(self) -> Any:
        import keras

        try:
            with contextlib.redirect_stdout(io.StringIO()):  # Keras prints a bar of the download
                return getattr(keras.datasets, self.dataset).load_data()
        except Exception as error:  # Keras raises plain exceptions when it cannot download
            allowed = f"cannot be downloaded; put {CACHE_FILES[self.dataset]}"
            raise Invalid("dataset", self.dataset, allowed) from error

    def _split(self, part: str, images: NDArray[Any], labels: NDArray[Any]) -> Split:
        where, name = self.path or "", f"the {part} part"
        inputs = as_inputs(where, name, images)
        inputs /= 255
        if inputs.ndim == 3:
            inputs = inputs[..., np.newaxis]
        return inputs, as_targets(where, name, labels, "classification")
