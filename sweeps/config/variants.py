"""What tells the trials of a sweep apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from masksweep.sweeps.config.trial import Trial, flat


def variants(trials: Sequence[Trial]) -> dict[str, str]:
    """What tells each trial apart, beside the seed, from others of its strategy and pattern.

    By trial id: the settings in which they differ, as `adamw, train.epochs=2`; empty if in none.
    """
    alike: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        alike.setdefault((trial.label, trial.pattern_label), []).append(trial)
    told = {}
    for members in alike.values():
        settings = {t.id: flat(t.canonical()) for t in members}
        keys = dict.fromkeys(k for s in settings.values() for k in s)
        differ = [k for k in keys if len({repr(s.get(k)) for s in settings.values()}) > 1]
        differ = [k for k in differ if k not in ("seed", "jit", "pack")]
        # another optimizer says it all, where its own settings only differ with it
        differ = [k for k in differ if not _follows(k, differ, list(settings.values()))]
        for trial in members:
            found = {k: settings[trial.id].get(k) for k in differ}
            told[trial.id] = ", ".join(
                str(v) if k in GROUPS else f"{k}={v}" for k, v in found.items() if v is not None
            )
    return told


GROUPS = ("model", "data", "optimizer")


def _follows(key: str, differ: Sequence[str], settings: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a setting of an object is the same wherever the object's name is."""
    group, _, knob = key.partition(".")
    if not knob or group not in differ:
        return False
    found: dict[str, set[str]] = {}
    for s in settings:
        found.setdefault(s[group], set()).add(repr(s.get(key)))
    return all(len(values) == 1 for values in found.values())
