"""Pictures in folders, one folder for each class."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from masksweep.strategies.errors import require
from masksweep.strategies.registry import register
from masksweep.sweeps.components.datasets import image_files
from masksweep.sweeps.components.datasets.base import DataSet
from masksweep.sweeps.components.datasets.named import Split
from masksweep.sweeps.components.datasets.picture import ColorMode
from masksweep.sweeps.components.datasets.stored_images import Pictures, StoredImages

MAX_BYTES_IN_MEMORY = 2**28
"""Largest size of all inputs, as float32, that are kept in memory. Larger data are read from the
disk while a trial trains. The results are the same to the bit."""


@register
@dataclass(frozen=True)
class ImageFolder(DataSet):
    """PNG and JPEG pictures in folders, scaled to [0, 1], `[height, width, channels]`.

    The folder has `train/CLASS/*`, `test/CLASS/*` and, optionally, `validation/CLASS/*`. Each of
    the three is laid out as for `keras.utils.image_dataset_from_directory`. Without `validation`,
    the fraction `validation` of the training pictures is used. Classes are numbered by their sorted
    names. Pictures are decoded by Pillow once, to a file in `~/.cache/masksweep` (or
    `$MASKSWEEP_CACHE`). Data that are larger than the memory are read from there.

    Raises:
        Invalid: The folder has another layout, the parts have other classes, or a picture cannot be
            read.

    Example:
        >>> import os, tempfile
        >>> from PIL import Image
        >>> path, cache = tempfile.mkdtemp(), os.environ.get("MASKSWEEP_CACHE", "")
        >>> os.environ["MASKSWEEP_CACHE"] = path
        >>> for name in ("train/cat", "train/dog", "test/cat", "test/dog"):
        ...     os.makedirs(f"{path}/{name}")
        ...     Image.new("RGB", (6, 4)).save(f"{path}/{name}/1.png")
        >>> data = ImageFolder(path=path, validation=0.0).load()
        >>> data.task, data.outputs, data.shape
        ('classification', 2, (4, 6, 3))
        >>> os.environ["MASKSWEEP_CACHE"] = cache

    Reference:
        https://keras.io/api/data_loading/image/#imagedatasetfromdirectory-function
    """

    name: ClassVar[str] = "image_folder"
    path: str = ""
    """Path of the folder."""
    image_size: tuple[int, int] | None = None
    """Height and width to which the pictures are resized, bilinearly; null for pictures that are
    all of one size."""
    color_mode: ColorMode = "rgb"
    """`rgb` for three channels, or `grayscale` for one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.path), "path", self.path, "a folder with train/ and test/")
        if self.image_size is not None:
            is_size = len(self.image_size) == 2 and all(1 <= n <= 4096 for n in self.image_size)
            require(is_size, "image_size", self.image_size, "[height, width], each from 1 to 4096")
        if not self.is_elsewhere:
            image_files.find(self.path)

    @classmethod
    def digest_of(cls, path: str) -> str:
        return image_files.find(path).digest

    @property
    def has_validation(self) -> bool:
        return self.validation > 0 or self.is_elsewhere or self._has_part("validation")

    def samples(self) -> tuple[Split, Split]:
        return self._part("train"), self._part("test")

    def own_validation(self) -> Split | None:
        return self._part("validation") if self._has_part("validation") else None

    def _has_part(self, part: str) -> bool:
        return part in image_files.find(self.path).parts

    def _part(self, part: str) -> Split:
        folder = image_files.find(self.path)
        files = [file for name in folder.parts for file in folder.files(name)]
        pictures = Pictures(self.path, files, folder.digest, self.color_mode, self.image_size)
        file, shape = pictures.decode()
        first = files.index(folder.files(part)[0])
        labels = np.array(folder.labels(part), np.int32)
        images = StoredImages(file, shape, np.arange(first, first + len(labels)))
        is_small = 4 * len(files) * prod(shape) <= MAX_BYTES_IN_MEMORY
        return images[:] if is_small else images, labels
