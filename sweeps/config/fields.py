"""Types of the fields of a trial: components that are built from their settings, and globs."""

from __future__ import annotations

from math import inf
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainValidator

from masksweep.strategies.base import Invalid
from masksweep.strategies.core.selection import INNER
from masksweep.strategies.registry import STRATEGIES
from masksweep.sweeps.components.groups import GROUPS
from masksweep.sweeps.config.validation import build

Globs = Annotated[list[str], Field(min_length=1)]
"""One or more glob patterns for `layer/variable` names."""


def component(group: str) -> BeforeValidator:
    """Validator that builds the object of a group from its name and settings."""
    return BeforeValidator(lambda raw_config: build(group, raw_config, GROUPS[group]))


def _comparison_strategy(value: Any) -> Any:
    """Builds the strategy to compare with from a name, or from a name and settings."""
    section = {"name": value} if isinstance(value, str) else value
    return None if value is None else build("compare", section, STRATEGIES)


def _check_targets(value: Any) -> Any:
    """Returns the value of `targets`. A union of types would have an error for each of them."""
    if value is None or value == INNER:
        return value
    if not isinstance(value, list | tuple):
        raise Invalid("", value, f"must be a list, as [a,b], or {INNER}")
    if not value or not all(isinstance(glob, str) for glob in value):
        raise Invalid("", value, "must have at least one glob, and nothing else")
    return list(value)


def _check_class_weight(value: Any) -> Any:
    """Returns the value of `train.class_weight`."""
    if value is None or value == BALANCED:
        return value
    if not isinstance(value, list | tuple):
        raise Invalid("", value, f"must be a list, as [1,2.5], {BALANCED} or null")
    if not value or not all(type(w) in (int, float) and 0 <= w < inf for w in value):
        raise Invalid("", value, "must have a number for each class, 0 or above")
    if not any(value):
        raise Invalid("", value, "must have a number above 0")
    return [float(weight) for weight in value]


ComparisonStrategy = BeforeValidator(_comparison_strategy)
"""Builds the strategy to compare with."""
ClassWeight = Annotated[list[float] | str | None, PlainValidator(_check_class_weight)]
"""The weight of each class, `balanced`, or null."""
BALANCED = "balanced"
"""Weights by which each class counts the same."""
Targets = Annotated[list[str] | str | None, PlainValidator(_check_targets)]
"""Globs on the weights that are masked, null, or `inner`."""
