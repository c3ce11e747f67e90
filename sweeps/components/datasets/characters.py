"""The next character of English text, from scikit-learn."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np

from masksweep.strategies.errors import require
from masksweep.strategies.plan import Array
from masksweep.strategies.registry import register
from masksweep.sweeps.components.datasets.base import DataSet
from masksweep.sweeps.components.datasets.named import Split

ALPHABET = " abcdefghijklmnopqrstuvwxyz.,'-()0?"
"""The characters by their number. 0 stands for all digits, and ? for all other characters."""
TEST = 0.2
"""Fraction of the text, at its end, that is for the test."""


@register
@dataclass(frozen=True)
class Characters(DataSet):
    """Predicts the next character of English text from the `length` characters before it.

    The text is the descriptions of data sets that scikit-learn ships, some 40,000 characters. It is
    cut into three parts, so that no test or validation sample has a part of a training sample. A
    model reads the characters by their numbers, of which there are 35: `model=transformer
    model.vocabulary=35`. The text may change with scikit-learn, so it belongs to the identity of a
    trial.

    Raises:
        Invalid: A setting is outside its range, or a part is shorter than a sample.

    Example:
        >>> x, y = Characters(length=8).samples()[0]
        >>> x.shape[1:], int(y.max()) < len(ALPHABET)
        ((8,), True)
    """

    name: ClassVar[str] = "characters"
    length: int = 32
    """Number of characters that a sample has."""
    stride: int = 3
    """Number of characters from one sample to the next, 1 to 16."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(1 <= self.length <= 512, "length", self.length, "1 to 512")
        require(1 <= self.stride <= 16, "stride", self.stride, "1 to 16")

    @cached_property
    def digest(self) -> str | None:
        """SHA-256 of the text."""
        return hashlib.sha256(text().encode()).hexdigest()

    def samples(self) -> tuple[Split, Split]:
        training, _, test = self._parts()
        return self._windows(training), self._windows(test)

    def own_validation(self) -> Split | None:
        return self._windows(self._parts()[1]) if self.validation else None

    def _parts(self) -> tuple[Array, Array, Array]:
        """Returns the numbers of the characters for training, validation and test."""
        numbers = encoded(text())
        test = round(len(numbers) * (1 - TEST))
        validation = round(test * (1 - self.validation))
        return numbers[:validation], numbers[validation:test], numbers[test:]

    def _windows(self, numbers: Array) -> Split:
        allowed = f"large enough for parts of more than {self.length} characters, or 0"
        require(len(numbers) > self.length, "validation", self.validation, allowed)
        windows = np.lib.stride_tricks.sliding_window_view(numbers, self.length + 1)[:: self.stride]
        return windows[:, :-1].astype(np.float32), windows[:, -1].astype(np.int32)


@cache
def text() -> str:
    """Returns the descriptions of data sets in scikit-learn, by the names of their files."""
    # scikit-learn is not imported: that takes a second, also where a sweep is only planned
    package = find_spec("sklearn")
    assert package is not None
    assert package.submodule_search_locations is not None
    files = sorted(Path(package.submodule_search_locations[0], "datasets", "descr").glob("*.rst"))
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def encoded(text: str) -> Array:
    """Returns the number of each character in `ALPHABET`. Blanks and line ends are one blank.

    Example:
        >>> [ALPHABET[number] for number in encoded("It's  42!")]
        ['i', 't', "'", 's', ' ', '0', '0', '?']
    """
    known = {character: number for number, character in enumerate(ALPHABET)}
    known |= {str(digit): known["0"] for digit in range(10)}
    unknown = known["?"]
    return np.array([known.get(c, unknown) for c in " ".join(text.lower().split())], np.int32)
