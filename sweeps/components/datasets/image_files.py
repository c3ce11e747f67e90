"""The pictures in a folder with one folder for each class, as Keras lays them out.

This is the layout that `keras.utils.image_dataset_from_directory` reads, once for each part:
`train/CLASS/*.png`, `test/CLASS/*.png` and, if there is one, `validation/CLASS/*.png`.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from masksweep.strategies.core.npz import digest
from masksweep.strategies.errors import Invalid

SUFFIXES = (".png", ".jpg", ".jpeg")
"""Suffixes of pictures, in lower case."""
MAX_FILE_BYTES = 2**28
"""Largest size of a picture's file in bytes."""
PARTS = ("train", "validation", "test")
RECENT_SECONDS = 2.0
"""A file that was changed within this time may change again without another time stamp. A folder is
listed again after this time, because a sweep asks several times for each of its trials."""

Stamp = tuple[str, int, int, int, int]
"""Path of a file, and what changes when its content does: inode, size and times."""


@dataclass(frozen=True)
class ImageFolder:
    """The pictures of a folder. None of them has been opened."""

    path: str
    classes: tuple[str, ...]
    """Names of the classes, sorted."""
    parts: Mapping[str, tuple[tuple[Stamp, ...], ...]]
    """The pictures of each class by part, sorted; paths are relative to the folder."""

    def files(self, part: str) -> list[str]:
        """Returns the paths of the pictures of a part, class by class, relative to the folder."""
        return [stamp[0] for pictures in self.parts[part] for stamp in pictures]

    def labels(self, part: str) -> list[int]:
        """Returns the number of the class of each picture of a part."""
        return [i for i, pictures in enumerate(self.parts[part]) for _ in pictures]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content of all pictures, with their paths relative to the folder."""
        stamps = tuple(s for part in self.parts.values() for pictures in part for s in pictures)
        return (_compute if self.changed_recently else _known_digest)(self.path, stamps)

    @cached_property
    def changed_recently(self) -> bool:
        """Whether a picture was changed just before the folder was listed."""
        newest = max(max(s[3:]) for part in self.parts.values() for c in part for s in c)
        return time.time_ns() - newest < RECENT_SECONDS * 1e9


_listed: dict[str, tuple[float, ImageFolder]] = {}
"""The newest list of each folder, with the time at which it was made."""


def is_image_folder(path: str) -> bool:
    """Whether a folder has a folder `train`."""
    return Path(path, "train").is_dir()


def find(path: str) -> ImageFolder:
    """Returns the pictures of a folder.

    Args:
        path: The folder.

    Raises:
        Invalid: (key `path`) The folder does not have the layout, the parts have other classes, or
            there is a link, another file or an empty folder in place of pictures.
    """
    key = str(Path(path).absolute())
    listed_at, folder = _listed.get(key, (0.0, None))
    if folder is not None and time.monotonic() - listed_at < RECENT_SECONDS:
        return folder
    folder = _list(path)
    if folder.changed_recently:
        _listed.pop(key, None)
    else:
        _listed[key] = time.monotonic(), folder
    return folder


def _list(path: str) -> ImageFolder:
    layout = "must be a folder with train/ and test/ (no links), in each a folder per class"
    try:
        names = [part for part in PARTS if os.path.lexists(Path(path, part))]
        if not {"train", "test"} <= set(names) or any(Path(path, p).is_symlink() for p in names):
            raise Invalid("path", path, layout)
        found = {part: dict(_classes(path, part)) for part in names}
    except (OSError, ValueError) as error:
        if isinstance(error, Invalid):
            raise
        raise Invalid("path", path, layout) from error
    classes = tuple(found["train"])
    if len(classes) < 2:
        raise Invalid("path", path, f"train/ has {len(classes)} folders of classes; 2 are needed")
    for part in names:
        for name in sorted({*found[part]} ^ {*classes}):
            here, there = (part, "train") if name in found[part] else ("train", part)
            raise Invalid("path", path, f"{here}/ has a class {name}, which {there}/ has not")
    return ImageFolder(path, classes, {p: tuple(found[p].values()) for p in names})


def _classes(path: str, part: str) -> Iterator[tuple[str, tuple[Stamp, ...]]]:
    """Yields the classes of a part with their pictures, sorted by name."""
    for entry in _entries(path, part):
        if not entry.is_dir(follow_symlinks=False):
            allowed = "must be a folder of pictures, no file and no link"
            raise Invalid("path", path, f"{part}/{entry.name} {allowed}")
        where = f"{part}/{entry.name}"
        pictures = tuple(_stamp(path, where, picture) for picture in _entries(path, where))
        if not pictures:
            raise Invalid("path", path, f"{where} has no picture ({', '.join(SUFFIXES)})")
        yield entry.name, pictures


def _entries(path: str, inner: str) -> list[os.DirEntry[str]]:
    """The entries of a folder sorted by name, without hidden ones."""
    with os.scandir(Path(path, inner)) as entries:
        found = sorted((e for e in entries if e.name[0] != "."), key=lambda e: e.name)
    for entry in found:
        if not entry.name.isprintable():  # it could change a terminal
            raise Invalid("path", path, f"{inner}/ has a name that is not text: {entry.name!a}")
    return found


def _stamp(path: str, where: str, picture: os.DirEntry[str]) -> Stamp:
    is_file = picture.is_file(follow_symlinks=False)  # a link may lead out of the folder
    if not is_file or not picture.name.lower().endswith(SUFFIXES):
        allowed = f"must be a picture, a file with one of {', '.join(SUFFIXES)}"
        raise Invalid("path", path, f"{where}/{picture.name} {allowed}")
    status = picture.stat(follow_symlinks=False)
    if status.st_size > MAX_FILE_BYTES:  # it would take long to read, also for its digest
        allowed = f"has {status.st_size:,} bytes, and {MAX_FILE_BYTES:,} are allowed"
        raise Invalid("path", path, f"{where}/{picture.name} {allowed}")
    times = status.st_mtime_ns, status.st_ctime_ns
    return f"{where}/{picture.name}", status.st_ino, status.st_size, *times


@lru_cache(maxsize=16)
def _known_digest(path: str, stamps: tuple[Stamp, ...]) -> str:
    return _compute(path, stamps)


def _compute(path: str, stamps: tuple[Stamp, ...]) -> str:
    sha256 = hashlib.sha256()
    for name, *_ in stamps:
        sha256.update(f"{digest(str(Path(path, name)))} {name}\n".encode())
    return sha256.hexdigest()
