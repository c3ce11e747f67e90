"""Selection of trials of a sweep by their settings."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from masksweep.sweeps.config.trial import Trial


class HasTrial(Protocol):
    """An object that belongs to one trial."""

    @property
    def trial(self) -> Trial: ...


T = TypeVar("T", bound=HasTrial)

Parts = Mapping[str, Collection[str]]
"""Names of the sweep's parts that a trial belongs to, by trial id."""


def select(selection: Mapping[str, Any] | None, outcomes: Sequence[T], parts: Parts) -> list[T]:
    """Returns the items whose trial matches a selection.

    Args:
        selection: A value or a list of allowed values by setting, as in `Claim.trials`. None
            selects all.
        outcomes: Objects with a trial, for example outcomes or planned trials.
        parts: Names of the sweep's parts that each trial belongs to, by trial id.
    """
    wanted = (selection or {}).items()
    return [
        o
        for o in outcomes
        if all(_matches(o.trial, parts.get(o.trial.id, ()), key, value) for key, value in wanted)
    ]


def _matches(trial: Trial, parts: Collection[str], key: str, wanted: Any) -> bool:
    """Whether the trial has the wanted value, or one of the wanted values, for the key."""
    choices = wanted if isinstance(wanted, list) else [wanted]
    match key:
        case "part":
            return any(p in choices for p in parts)
        case "role":
            return trial.strategy.role in choices
    if key not in trial.settings:
        return False
    value = trial.settings[key]
    return value == wanted or value in choices
