"""The files that data sets are read from: their digests, and checks of their content."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from masksweep.strategies.core.npz import digest
from masksweep.strategies.errors import Invalid

REFERENCE = re.compile(r"sha256:([0-9a-f]{64})")
"""A path that names a content, not a file. Recorded configs have it if the file is not copied."""
MAX_FILES = 100_000
"""Largest number of files in a folder of data."""
MAX_CLASSES = 100_000
"""Largest number of classes. Larger labels are most likely numbers, not classes."""
RECENT_SECONDS = 2.0
"""A file that was changed within this time may change again without another time stamp."""

TaskOrAuto = Literal["classification", "binary", "multi_label", "regression", "auto"]
"""The task as a setting of a data set. `binary` is one label of `multi_label`."""


def content_digest(path: str) -> str:
    """Returns the SHA-256 of a file, or of all files in a folder and its folders, with their names.

    Args:
        path: Path of a file or a folder.

    Raises:
        Invalid: (key `path`) There is no such file or folder, or the folder has no file, too many
            files, or something else than files and folders, such as a link.
    """
    try:
        if Path(path).is_file():
            return _file_digest(Path(path))
        return files_digest(path, sorted(_files(path)))
    except Invalid:
        raise
    except (OSError, ValueError) as error:  # the path may have characters that are not allowed
        raise Invalid("path", path, "no such file or folder") from error


def files_digest(folder: str, names: Sequence[str]) -> str:
    """Returns the SHA-256 of files in a folder, with their names.

    Args:
        folder: The folder.
        names: Paths of the files relative to the folder, in the order of the digest.

    Raises:
        Invalid: (key `path`) There is no name.
        OSError: A file cannot be read.
    """
    if not names:
        raise Invalid("path", folder, "neither a file, nor a folder with data")
    lines = "".join(f"{_file_digest(Path(folder, name))} {name}\n" for name in names)
    return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()


def _files(folder: str) -> list[str]:
    """Returns the paths of all files in a folder and its folders, relative to it."""
    names: list[str] = []
    inner = [""]
    while inner:
        within = inner.pop()
        with os.scandir(Path(folder, within)) as entries:
            for entry in entries:
                name = f"{within}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    inner.append(f"{name}/")
                elif entry.is_file(follow_symlinks=False):
                    names.append(name)
                    if len(names) > MAX_FILES:
                        raise Invalid("path", folder, f"has more than {MAX_FILES:,} files")
                else:  # the target of a link may change, and a pipe never ends
                    raise Invalid("path", folder, f"{name} must be a file or folder, and no link")
    return names


def _file_digest(file: Path) -> str:
    """Returns the SHA-256 of a file. A sweep asks for it several times for each of its trials."""
    status = file.stat()
    stamp = status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    if time.time() - max(status.st_mtime, status.st_ctime) < RECENT_SECONDS:
        return digest(str(file))
    return _known_digest(str(file.absolute()), stamp)


@lru_cache(maxsize=MAX_FILES)  # so that a folder is not read for each trial
def _known_digest(path: str, stamp: tuple[int, ...]) -> str:
    return digest(path)


def require_numbers(path: str, name: str, dtype: np.dtype[Any]) -> None:
    """Raises `Invalid` (key `path`) if an array does not have real numbers or booleans."""
    if dtype.kind not in "buif":
        raise Invalid("path", path, f"{name} has the type {dtype}, and must have real numbers")


def as_inputs(path: str, name: str, array: NDArray[Any]) -> NDArray[np.float32]:
    """Returns inputs as float32.

    Args:
        path: The file, for messages.
        name: Name of the array in the file, for messages.
        array: The inputs, `[samples, *shape]`.

    Raises:
        Invalid: (key `path`) An input is not finite, or not in the range of float32.
    """
    with np.errstate(over="ignore"):
        inputs = array.astype(np.float32)
    _require_finite(path, name, inputs)
    return inputs


def as_targets(path: str, name: str, array: NDArray[Any], task: str) -> NDArray[Any]:
    """Returns targets as `task` needs them.

    Args:
        path: The file, for messages.
        name: Name of the array in the file, for messages.
        array: The targets, `[samples]` or `[samples, 1]`; for a regression also
            `[samples, outputs]`, and `[samples, labels]` for multi-label.
        task: `classification`, `multi_label` or `regression`.

    Returns:
        `[samples]` int32 for classification, `[samples, outputs]` float32 for the others.

    Raises:
        Invalid: (key `path`) A label is not a class, not 0 or 1 for multi-label, or a target is not
            finite.
    """
    if task != "classification":
        targets = as_inputs(path, name, array)
        if task == "multi_label" and (wrong := (targets != 0) & (targets != 1)).any():
            index = [int(i) for i in np.argwhere(wrong)[0]]
            value = targets[tuple(index)]
            allowed = (
                f"{name} has {value:g} at {index}; a label is 0 or 1 with data.task=binary and "
                "data.task=multi_label"
            )
            raise Invalid("path", path, allowed)
        return targets.reshape(len(targets), -1)
    labels = array.reshape(-1)
    whole = np.isfinite(labels) & (labels == np.floor(labels)) if labels.dtype.kind == "f" else True
    wrong = ~(whole & (labels >= 0) & (labels < MAX_CLASSES))
    if wrong.any():
        row = int(np.argmax(wrong))
        allowed = f"classes are whole numbers from 0 to {MAX_CLASSES - 1:,}"
        hint = "set data.task=regression to predict numbers"
        raise Invalid("path", path, f"{name} has {labels[row]} at index {row}; {allowed}; {hint}")
    return labels.astype(np.int32)


def require_known_classes(
    path: str, name: str, labels: NDArray[Any], training_name: str, training: NDArray[Any]
) -> None:
    """Checks that there are two classes or more, and that other labels are among them.

    Args:
        path: The file, for messages.
        name: Name of the other labels in the file, for messages.
        labels: The other labels, `[samples]`.
        training_name: Name of the training labels in the file, for messages.
        training: The training labels, `[samples]`.

    Raises:
        Invalid: (key `path`) A label is above all training labels, or there is one class only.
    """
    top = int(training.max())
    if top < 1:
        raise Invalid("path", path, f"{training_name} has one class only; two or more are needed")
    if labels.max() > top:
        allowed = f"{training_name} has classes up to {top}"
        raise Invalid("path", path, f"{name} has the label {labels.max()}, and {allowed}")


def require_first_class(path: str, name: str, *labels: NDArray[Any]) -> None:
    """Checks that classes are counted from 0, as the outputs of a model are.

    Args:
        path: The file, for messages.
        name: Name of the labels in the file, for messages.
        *labels: The labels of each part, `[samples]`.

    Raises:
        Invalid: (key `path`) No part has the label 0.
    """
    smallest = min(int(of_part.min()) for of_part in labels)
    if smallest > 0:
        largest = max(int(of_part.max()) for of_part in labels)
        found = f"{name} has classes from {smallest} to {largest}"
        raise Invalid("path", path, f"{found}; classes are counted from 0")


def _require_finite(path: str, name: str, array: NDArray[np.float32]) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        index = [int(i) for i in np.argwhere(~finite)[0]]
        allowed = "must have finite numbers in the range of float32"
        raise Invalid("path", path, f"{name} has {array[tuple(index)]} at {index}; it {allowed}")
