"""Types of the fields of a trial: components that are built from their settings, and globs."""

from __future__ import annotations

from math import inf
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator

from masksweep.strategies.core.selection import INNER
from masksweep.strategies.errors import Invalid
from masksweep.strategies.registry import STRATEGIES
from masksweep.sweeps.components.groups import GROUPS
from masksweep.sweeps.components.losses import canonical_loss, split_loss
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


def _check_loss(value: Any) -> Any:
    """Returns the value of `train.loss`, with settings as text."""
    of_outputs = isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
    is_one = not of_outputs and (not isinstance(value, dict) or "name" in value)
    losses = {"": value} if is_one else value
    texts = {output: _loss_text(loss) for output, loss in losses.items()}
    if value is None or (texts and all(isinstance(text, str) and text for text in texts.values())):
        return texts[""] if is_one else texts
    raise Invalid("", value, "must be a name, null, or {output: name} for several outputs")


def _loss_text(value: Any) -> Any:
    """Returns the text of a loss that is given as text, or by its name and settings."""
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        return canonical_loss(value["name"], {str(k): v for k, v in value.items() if k != "name"})
    return canonical_loss(*split_loss(value)) if isinstance(value, str) else value


def _check_loss_weights(value: Any) -> Any:
    """Returns the value of `train.loss_weights`."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise Invalid("", value, "must be null, or {output: number} for several outputs")
    if not all(type(weight) in (int, float) and 0 < weight < inf for weight in value.values()):
        raise Invalid("", value, "must have numbers above 0")
    return {name: float(weight) for name, weight in value.items()}


def _check_metrics(value: Any) -> Any:
    """Returns the value of `train.metrics`."""
    if value is None:
        return None
    lists = [*value.values()] if isinstance(value, dict) else [value]
    if not all(isinstance(names, list | tuple) for names in lists):
        raise Invalid("", value, "must be a list, as [a,b], or {output: [a,b]} for several outputs")
    for names in lists:
        for name in names:
            if not isinstance(name, str):
                raise Invalid("", name, "must be a name")
    return (
        {output: list(names) for output, names in value.items()}
        if isinstance(value, dict)
        else list(value)
    )


def _check_jit(value: Any) -> Any:
    """Returns the value of `train.jit`. A union of types would have an error for each of them."""
    if value != "auto" and not isinstance(value, bool):
        raise Invalid("", value, "must be auto, true or false")
    return value


ComparisonStrategy = BeforeValidator(_comparison_strategy)
"""Builds the strategy to compare with."""
ClassWeight = Annotated[list[float] | str | None, PlainValidator(_check_class_weight)]
"""The weight of each class, `balanced`, or null."""
Jit = Annotated[Literal["auto"] | bool, PlainValidator(_check_jit)]
"""Whether XLA compiles, or `auto`."""
Loss = Annotated[str | dict[str, str] | None, PlainValidator(_check_loss)]
"""The name of a loss, also with settings, those of the losses of several outputs, or null."""
LossWeights = Annotated[dict[str, float] | None, PlainValidator(_check_loss_weights)]
"""The factors of the losses of several outputs, or null."""
Metrics = Annotated[list[str] | dict[str, list[str]] | None, PlainValidator(_check_metrics)]
"""Names of metrics, those of several outputs, or null."""
BALANCED = "balanced"
"""Weights by which each class counts the same."""
Targets = Annotated[list[str] | str | None, PlainValidator(_check_targets)]
"""Globs on the weights that are masked, null, or `inner`."""
