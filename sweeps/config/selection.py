"""Which trials of a sweep are meant."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from masksweep.sweeps.config.trial import Trial


class HasTrial(Protocol):
    """Something about one trial."""

    @property
    def trial(self) -> Trial: ...


T = TypeVar("T", bound=HasTrial)

Parts = Mapping[str, Collection[str]]
"""By trial id, the parts of the sweep that it belongs to."""


def selected(wanted: Mapping[str, Any] | None, outcomes: Sequence[T], parts: Parts) -> list[T]:
    """The trials that a selection of a claim is about."""
    return [
        o
        for o in outcomes
        if all(_has(o.trial, parts.get(o.trial.id, ()), k, v) for k, v in (wanted or {}).items())
    ]


def _has(trial: Trial, parts: Collection[str], key: str, wanted: Any) -> bool:
    choices = wanted if isinstance(wanted, list) else [wanted]
    match key:
        case "part":
            return any(p in choices for p in parts)
        case "role":
            return trial.strategy.role in choices
    if key not in trial.settings:
        return False
    found = trial.settings[key]
    return found == wanted or found in choices
