"""The metric that the trials of a sweep are compared by."""

from __future__ import annotations

from dataclasses import dataclass

from masksweep.sweeps.components.metrics import is_higher_better

MEASURED = (
    "integrity/ok",
    "integrity/violations",
    "integrity/peak_violations",
    "speed/step_ms",
    "speed/ratio_to_dense",
)
"""Metrics of each trial that trials can be compared by, beside those of the data."""
PARTS = ("test/", "validation/", "train/")
"""How the names of the metrics of each part of the data begin."""


@dataclass(frozen=True)
class ScoreMetric:
    """A metric that trials are compared by, and how its values are written.

    Args:
        key: Name of the metric, such as `test/accuracy` or `validation/loss`.
        task: The task of the data. The losses of two tasks cannot be compared.

    Example:
        >>> metric = ScoreMetric("test/accuracy")
        >>> metric.title, metric.format(93.25)
        ('test accuracy %', '93.2 %')
    """

    key: str
    task: str = "classification"

    @property
    def is_accuracy(self) -> bool:
        """Whether it is an accuracy, which is written in percent."""
        return self.key.endswith("accuracy")

    @property
    def sign(self) -> int:
        """1 if more is better, as for an accuracy; -1 if less is, as for a loss."""
        is_of_data = self.key.startswith(PARTS)
        higher = is_higher_better(self.key) if is_of_data else self.key == "integrity/ok"
        return 1 if higher else -1

    @property
    def unit(self) -> int:
        """Factor from the recorded value to the score: 100 for an accuracy, which is in percent."""
        return 100 if self.is_accuracy else 1

    @property
    def decimals(self) -> int:
        """Number of decimals of a score in a table."""
        return 1 if self.is_accuracy else 4

    @property
    def name(self) -> str:
        """The name as words: `test accuracy`."""
        return self.key.replace("/", " ")

    @property
    def title(self) -> str:
        """The name with the unit, for an axis or a column: `test accuracy %`."""
        return f"{self.name} %" if self.is_accuracy else self.name

    def format(self, score: float) -> str:
        """Returns a score for a sentence, with its unit."""
        return f"{score:.1f} %" if self.is_accuracy else f"{score:z.4g}"

    def format_difference(self, difference: float) -> str:
        """Returns the difference of two scores for a sentence, with its sign and unit."""
        if self.is_accuracy:
            return f"{difference:+z.1f} points"
        return f"{difference:+z.4g} in {self.name}"
