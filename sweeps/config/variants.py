"""Labels that distinguish the trials of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from masksweep.sweeps.config.display import flatten
from masksweep.sweeps.config.trial import Trial


def variants(trials: Sequence[Trial]) -> dict[str, str]:
    """Returns the settings that distinguish each trial from others of its strategy and pattern.

    Settings are written as `adamw, train.epochs=2`. The seed does not count. `jit` and `pack` count
    only where trials differ in nothing else, so that a seed is in each group once.

    Returns:
        Label by trial id; empty if the trials differ in no setting.
    """
    groups: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((trial.label, trial.pattern_label), []).append(trial)
    labels = {}
    for members in groups.values():
        settings = {t.id: flatten(t.canonical()) for t in members}
        keys = dict.fromkeys(k for s in settings.values() for k in s)
        differ = [k for k in keys if len({repr(s.get(k)) for s in settings.values()}) > 1]
        differ = [k for k in differ if k != "seed"]
        rarely = [k for k in differ if k in ("jit", "pack")]
        differ = [k for k in differ if k not in rarely]
        alike = {repr([s.get(k) for k in ("seed", *differ)]) for s in settings.values()}
        differ += rarely if len(alike) < len(settings) else []
        # settings that follow from the choice of the optimizer add nothing to its name
        differ = [k for k in differ if not _is_determined(k, differ, list(settings.values()))]
        for trial in members:
            differing = {k: settings[trial.id].get(k) for k in differ}
            labels[trial.id] = ", ".join(
                str(v) if k in GROUPS_SHOWN_BY_NAME else f"{k}={short(v)}"
                for k, v in differing.items()
                if v is not None
            )
    return labels


def short(value: Any) -> Any:
    """Returns the value as it is shown.

    Of the digest of a file these are its first digits, which tell files apart. A component within
    a component is shown as `cosine(alpha=0.1)`.
    """
    if isinstance(value, Mapping) and "name" in value:
        settings = ", ".join(f"{k}={v}" for k, v in value.items() if k != "name")
        return f"{value['name']}({settings})" if settings else value["name"]
    is_digest = isinstance(value, str) and value.startswith("sha256:")
    return value[: len("sha256:") + SHOWN_DIGITS] if is_digest else value


SHOWN_DIGITS = 8
"""Number of digits that are shown of the digest of a file."""
GROUPS_SHOWN_BY_NAME = ("model", "data", "optimizer")
"""Groups of which the name of the chosen object is shown without its key."""


def _is_determined(key: str, differ: Sequence[str], settings: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the name of an object determines the value of one of its settings, in all trials."""
    group, _, knob = key.partition(".")
    if not knob or group not in differ:
        return False
    values_by_name: dict[str | None, set[str]] = {}
    for s in settings:
        values_by_name.setdefault(s.get(group), set()).add(repr(s.get(key)))
    return all(len(values) == 1 for values in values_by_name.values())
