"""Writes small files of data, for tests of the data sets that read them."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from masksweep.sweeps.components.datasets.idx import FILES


def arrays(**changed: Any) -> dict[str, Any]:
    """Returns the arrays of a `.npz` file: 40 training and 10 test samples in 3 classes.

    Args:
        **changed: Arrays to replace or to add; None leaves one out.
    """
    random = np.random.default_rng(0)
    content = {
        "x_train": random.normal(size=(40, 4)).astype(np.float32),
        "y_train": np.arange(40) % 3,
        "x_test": random.normal(size=(10, 4)).astype(np.float32),
        "y_test": np.arange(10) % 3,
    } | changed
    return {name: array for name, array in content.items() if array is not None}


def write_npz(path: Path, **changed: Any) -> str:
    """Writes the arrays of `arrays` and returns the path as text."""
    np.savez(path, **arrays(**changed))
    return str(path)


def write_csv(path: Path, rows: int = 40, columns: str = "a,b,kind", **cells: str) -> str:
    """Writes numbers, and the class `row % 3` as the last column; returns the path as text.

    Args:
        path: The file.
        rows: Number of rows.
        columns: Names of the columns, separated by commas.
        **cells: Content of a cell by its name, `r3c1` for the third row and first column, from 1.
    """
    count = len(columns.split(","))
    lines = [columns]
    for row in range(1, rows + 1):
        values = [str(row * 0.37 % 1 + column) for column in range(1, count)] + [str(row % 3)]
        lines.append(",".join(cells.get(f"r{row}c{c}", v) for c, v in enumerate(values, start=1)))
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    """Returns the content of an idx file."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.tobytes()


def write_idx(folder: Path, *, packed: bool = False) -> str:
    """Writes the four idx files of 30 and 10 images of 6 x 5 pixels; returns the folder as text."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    for part, size in (("train", 30), ("test", 10)):
        images = random.integers(256, size=(size, 6, 5), dtype=np.uint8)
        labels = (np.arange(size) % 10).astype(np.uint8)
        for name, array in zip(FILES[part], (images, labels), strict=True):
            content = idx_bytes(array)
            file = folder / f"{name}.gz" if packed else folder / name
            file.write_bytes(gzip.compress(content) if packed else content)
    return str(folder)


def write_images(
    folder: Path,
    parts: Mapping[str, int] | None = None,
    *,
    size: tuple[int, int] = (6, 5),
    classes: str = "ab",
) -> str:
    """Writes pictures of random colors in folders of classes; returns the folder as text.

    Args:
        folder: The folder.
        parts: Number of pictures in each class by part.
        size: Height and width.
        classes: Names of the classes, one letter each.
    """
    random = np.random.default_rng(0)
    for part, count in (parts or {"train": 20, "test": 5}).items():
        for name in classes:
            (folder / part / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = random.integers(256, size=(*size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{number:03d}.png")
    return str(folder)
