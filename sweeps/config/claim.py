"""Claims: what must come out of a sweep, and which trials each is about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from masksweep.strategies.base import Invalid

if TYPE_CHECKING:
    pass


TESTS = {
    "equals": lambda found, given: found == given,
    "above": lambda found, given: found > given,
    "below": lambda found, given: found < given,
    "at_least": lambda found, given: found >= given,
    "at_most": lambda found, given: found <= given,
}

SIGNS = {"equals": "=", "above": ">", "below": "<", "at_least": ">=", "at_most": "<="}


class Claim(BaseModel):
    """What a metric must be, in each trial of a selection or in their mean.

    One of these: `equals`, `above`, `below`, `at_least`, `at_most` (in each trial); `near` with
    `tolerance` (the mean is near one of some published figures). With `minus` it is about the
    paired difference to other trials, seed by seed: `above` and `below` then also ask for a p-value
    below 0.05 (paired t-test, corrected after Holm for all claims of the sweep that compare so),
    `at_most` and `at_least` for the whole of both 95 % intervals, bootstrap's and Student's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    says: str
    """The claim in a sentence."""
    trials: dict[str, Any] = {}
    """The selection: setting -> value or list of values. Dotted keys of a config, or `part` (of
    the sweep), or `role` (strategy, control, dense)."""
    minus: dict[str, Any] | None = None
    """The selection of the trials to subtract."""
    metric: str
    equals: float | None = None
    above: float | None = None
    below: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    near: Annotated[list[float], Field(min_length=1)] | None = None
    tolerance: Annotated[float, Field(ge=0)] | None = None
    seeds: Annotated[int, Field(ge=1)] = 1
    """How many trials must be there at least."""

    @model_validator(mode="after")
    def _one_test(self) -> Self:
        given = [k for k in (*TESTS, "near") if getattr(self, k) is not None]
        if len(given) != 1:
            raise Invalid("says", self.says, f"must have one test; it has {given or 'none'}")
        if (self.near is None) != (self.tolerance is None):
            raise Invalid("tolerance", self.tolerance, "goes with near")
        if self.minus is not None and given[0] in ("near", "equals"):
            raise Invalid("minus", self.minus, f"does not go with {given[0]}")
        return self

    @property
    def test(self) -> str:
        """The name of its comparison; empty for `near`."""
        return next((k for k in TESTS if getattr(self, k) is not None), "")

    @property
    def limit(self) -> float:
        """What it compares with."""
        found: float = getattr(self, self.test)
        return found
