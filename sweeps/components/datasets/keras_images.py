"""Data that Keras downloads: MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100, and IMDB's reviews."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from masksweep.strategies.errors import Invalid, require
from masksweep.strategies.registry import register
from masksweep.sweeps.components.datasets import idx
from masksweep.sweeps.components.datasets.base import DataSet
from masksweep.sweeps.components.datasets.content import (
    as_inputs,
    as_targets,
    require_known_classes,
)
from masksweep.sweeps.components.datasets.named import Split

Name = Literal["mnist", "fashion_mnist", "cifar10", "cifar100", "imdb"]
CACHE_FILES = {
    "mnist": "mnist.npz in ~/.keras/datasets",
    "fashion_mnist": "the four idx files in ~/.keras/datasets/fashion-mnist",
    "cifar10": "cifar-10-python.tar.gz as ~/.keras/datasets/cifar-10-batches-py-target_archive",
    "imdb": "imdb.npz in ~/.keras/datasets",
    "cifar100": "cifar-100-python.tar.gz as ~/.keras/datasets/cifar-100-python-target_archive",
}
"""Where Keras looks for the files before it downloads them."""
IDX = ("mnist", "fashion_mnist")
"""Data sets that are published as idx files."""
FASHION_MNIST_SHA256 = "ca3ab2a37f845e1b8ae23cab1b51749a3011ba3bf1d9016176d75cbaabac376f"
"""Of the images and labels for training, and then of those of the test."""


@register
@dataclass(frozen=True)
class KerasImages(DataSet):
    """Data of `keras.datasets`. Images are `[height, width, channels]`, scaled to [0, 1].

    Reviews (`imdb`) are numbers of words, `[maxlen]`. As in Keras' examples, zeros are put before a
    shorter review, and a longer one keeps its last words. They need a model with an embedding, such
    as `transformer` with `model.vocabulary=10000`.

    Keras downloads a data set once, to `~/.keras/datasets`, and checks the SHA-256 of the file. For
    Fashion-MNIST, which Keras does not check, this class does. So the name of a data set stands for
    its content in the identity of a trial.

    Raises:
        Invalid: The data set is not there and cannot be downloaded, its content is not the
            published one, or the folder `path` does not have the files.
    """

    name: ClassVar[str] = "keras"
    dataset: Name = "mnist"
    """`mnist`, `fashion_mnist`, `cifar10`, `cifar100` or `imdb`."""
    path: str | None = None
    """Folder with the four idx files of MNIST or Fashion-MNIST (`train-images-idx3-ubyte`, ...),
    also as `.gz`. null takes the files of Keras."""
    num_words: int = 10_000
    """For `imdb`: rarer words, with this number and above, are replaced by the number 2."""
    maxlen: int = 200
    """For `imdb`: number of words of a sample."""
    train_samples: int | None = None
    """Number of training samples, with those for validation. They are chosen at random, and are the
    same for each seed of a trial. null: all."""
    test_samples: int | None = None
    """Number of test samples, chosen likewise. null: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, least in (("num_words", 3), ("maxlen", 1)):
            value, default = getattr(self, key), getattr(KerasImages, key)
            if self.dataset == "imdb":
                require(value >= least, key, value, f"{least} or more")
            else:
                require(value == default, key, value, f"{default} with dataset={self.dataset}")
        for key in ("train_samples", "test_samples"):
            count = getattr(self, key)
            require(count is None or count >= 1, key, count, "1 or more")
        if self.path is None:
            return
        require(self.dataset in IDX, "path", self.path, f"null with dataset={self.dataset}")
        if not self.is_elsewhere:
            idx.find(self.path)

    @classmethod
    def digest_of(cls, path: str) -> str:
        return idx.digest(path)

    def samples(self) -> tuple[Split, Split]:
        if self.path is not None:
            train, test = idx.read(self.path, "train"), idx.read(self.path, "test")
        else:
            train, test = self._from_keras()
            if self.dataset == "fashion_mnist":
                _require_published(train, test)
        train, test = self._chosen(train, test)
        parts = self._split("train", *train), self._split("test", *test)
        where = self.path or ""
        require_known_classes(where, "the test part", parts[1][1], "the training part", parts[0][1])
        return parts

    def _chosen(self, *parts: Any) -> Iterator[Any]:
        """Yields the samples of each part that are taken, as (inputs, labels)."""
        # this generator's numbers never change; the published subsets of SET's tutorial are its
        generator = np.random.RandomState(0)
        for part, (inputs, labels) in zip(("train", "test"), parts, strict=True):
            count = getattr(self, f"{part}_samples")
            if count is None:
                yield inputs, labels
                continue
            require(count <= len(inputs), f"{part}_samples", count, f"at most {len(inputs)}")
            order = np.arange(len(inputs))
            generator.shuffle(order)
            yield inputs[order[:count]], labels[order[:count]]

    def _from_keras(self) -> Any:
        import keras

        try:
            with contextlib.redirect_stdout(io.StringIO()):  # Keras prints a bar of the download
                settings = {"num_words": self.num_words} if self.dataset == "imdb" else {}
                return getattr(keras.datasets, self.dataset).load_data(**settings)
        except Exception as error:  # Keras raises plain exceptions when it cannot download
            allowed = f"cannot be downloaded; put {CACHE_FILES[self.dataset]}"
            if self.dataset in IDX:
                allowed += ", or name a folder with the idx files by data.path"
            raise Invalid("dataset", self.dataset, allowed) from error

    def _split(self, part: str, images: NDArray[Any], labels: NDArray[Any]) -> Split:
        where, name = self.path or "", f"the {part} part"
        if self.dataset == "imdb":
            import keras

            words = keras.utils.pad_sequences(images, self.maxlen, "float32")
            return words, as_targets(where, name, labels, "classification")
        inputs = as_inputs(where, name, images)
        inputs /= 255
        if inputs.ndim == 3:
            inputs = inputs[..., np.newaxis]
        return inputs, as_targets(where, name, labels, "classification")


def _require_published(*parts: Split) -> None:
    """Raises `Invalid` if the images and labels are not those of Fashion-MNIST."""
    sha256 = hashlib.sha256()
    for array in (array for part in parts for array in part):
        sha256.update(np.ascontiguousarray(array).tobytes())
    allowed = "of the published content; remove ~/.keras/datasets/fashion-mnist to load it again"
    require(sha256.hexdigest() == FASHION_MNIST_SHA256, "dataset", "fashion_mnist", allowed)
