"""The next character of English text, from scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import ClassVar

import numpy as np

from masksweep.strategies.base import Array, require
from masksweep.strategies.registry import register
from masksweep.sweeps.components.datasets.base import DataSet, Split

ALPHABET = " abcdefghijklmnopqrstuvwxyz.,'-()0?"
"""The characters by their number. 0 stands for all digits, and ? for all other characters."""
TEST = 0.2
"""Fraction of the text, at its end, that is for the test."""


@register
@dataclass(frozen=True)
class Characters(DataSet):
    """The next character of English text, after `length` others: the numbers of characters, and
    35 classes; the descriptions of data sets that scikit-learn ships, some 40,000 characters.

    The text is cut into three parts, so that no test or validation sample has a part of a training
    sample. A model reads the characters by their numbers: `model=transformer model.vocabulary=35`.

    Raises:
        Invalid: A setting is outside its range.

    Example:
        >>> x, y = Characters(length=8).samples()[0]
        >>> x.shape[1:], int(y.max()) < len(ALPHABET)
        ((8,), True)
    """

    name: ClassVar[str] = "characters"
    outputs: ClassVar[int | None] = len(ALPHABET)
    length: int = 32
    """Number of characters that a sample has."""
    stride: int = 3
    """Number of characters from one sample to the next."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(1 <= self.length <= 512, "length", self.length, "1 to 512")
        require(self.stride >= 1, "stride", self.stride, "1 or more")

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
        windows = np.lib.stride_tricks.sliding_window_view(numbers, self.length + 1)[:: self.stride]
        return windows[:, :-1].astype(np.float32), windows[:, -1].astype(np.int32)


def text() -> str:
    """Returns the descriptions of data sets in scikit-learn, by the names of their files."""
    folder = resources.files("sklearn.datasets.descr")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".rst")), key=lambda f: f.name)
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
