"""Claims: statements about the results of a sweep that are tested when the sweep ends."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from masksweep.strategies.errors import Invalid

TESTS = {
    "equals": lambda value, limit: value == limit,
    "above": lambda value, limit: value > limit,
    "below": lambda value, limit: value < limit,
    "at_least": lambda value, limit: value >= limit,
    "at_most": lambda value, limit: value <= limit,
}
"""Comparison of a metric's value with the claim's limit, by the name of the claim's field."""

SIGNS = {"equals": "=", "above": ">", "below": "<", "at_least": ">=", "at_most": "<="}
"""Sign under which a comparison is shown."""


class Claim(BaseModel):
    """A statement about a metric, for each trial of a selection or for their mean.

    A claim has exactly one test. `equals`, `above`, `below`, `at_least` and `at_most` compare the
    metric of each trial with a limit. `near` with `tolerance` asks that the mean is close to one of
    several published figures.

    With `minus`, the claim is about the difference to other trials, paired by seed. `above` and
    `below` then also require a p-value below 0.05 (paired t-test, with Holm's correction over all
    such claims of the sweep). `at_most` and `at_least` must hold for the whole of two 95 %
    confidence intervals: the bootstrap interval and Student's interval.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    says: str
    """The claim as a sentence."""
    trials: dict[str, Any] = {}
    """Selects the trials: a value or a list of allowed values by setting. A setting is a dotted
    key of the config, `part` (a part of the sweep) or `role` (strategy, control, dense)."""
    minus: dict[str, Any] | None = None
    """Selects the trials whose metric is subtracted, with the same keys as `trials`."""
    metric: str
    """Name of the metric, for example `test/accuracy`."""
    equals: float | None = None
    above: float | None = None
    below: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    near: Annotated[list[float], Field(min_length=1)] | None = None
    """Published figures; the mean must be close to one of them."""
    tolerance: Annotated[float, Field(ge=0)] | None = None
    """Largest allowed distance between the mean and a figure in `near`."""
    seeds: Annotated[int, Field(ge=1)] = 1
    """Minimum number of trials that the claim needs."""

    @model_validator(mode="after")
    def _one_test(self) -> Self:
        tests = [k for k in (*TESTS, "near") if getattr(self, k) is not None]
        if len(tests) != 1:
            raise Invalid("says", self.says, f"must have one test; it has {tests or 'none'}")
        if (self.near is None) != (self.tolerance is None):
            raise Invalid("tolerance", self.tolerance, "goes with near")
        if self.minus is not None and tests[0] in ("near", "equals"):
            raise Invalid("minus", self.minus, f"does not go with {tests[0]}")
        return self

    @property
    def test(self) -> str:
        """The name of the comparison in `TESTS`; empty for a claim with `near`."""
        return next((k for k in TESTS if getattr(self, k) is not None), "")

    @property
    def limit(self) -> float:
        """The value that the metric is compared with."""
        bound: float = getattr(self, self.test)
        return bound
