"""What of a config names a place: a store, a cluster, a file. A stranger's may name none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from masksweep.strategies.base import Invalid
from masksweep.sweeps.common.redact import shown

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

    from masksweep.sweeps.composing.untrusted import Foreign

SENT = ("tracking.uri", "checkpoint.path", "launch.address")
"""Where results, weights and code go, and where what is loaded again comes from."""
READ = ("pattern.path", "held.path")


def check(theirs: Foreign, jobs: Sequence[Mapping[str, Any]]) -> None:
    """Raise `Invalid` where a composed job names a place that the command line does not name.

    What is judged is what came out, whichever way a config brought it in. Files may lie in the
    configs' folder.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    overrides = OverridesParser.create().parse_overrides(list(theirs.overrides))
    for key in (*SENT, *READ):
        allowed = [None, *(value for o in overrides for value in _said(o, key))]
        for job in jobs:
            value = _at(job, key)
            if value in allowed:
                continue
            if key in SENT or not _inside(theirs.folder, value):
                where = "" if key in SENT else f"in {theirs.folder}, or "
                said = f"must be {where}on the command line, with --config-dir"
                raise Invalid(key, shown(str(value))[:200], said)
            allowed.append(value)


def _said(override: Override, key: str) -> Iterator[Any]:
    """The values that the override gives to the key."""
    section, _, name = key.partition(".")
    value = override.value()
    if override.key_or_group == section and isinstance(value, dict):
        yield value.get(name)
    elif override.key_or_group == key and override.is_sweep_override():
        from masksweep.sweeps.composing.hydra_internals import swept_values

        yield from swept_values(override)
    elif override.key_or_group == key:
        yield value


def _at(job: Mapping[str, Any], key: str) -> Any:
    section, _, name = key.partition(".")
    found = job.get(section)
    return found.get(name) if isinstance(found, Mapping) else None


def _inside(folder: Path, value: Any) -> bool:
    """Whether it is the path of something in the folder, wherever its links lead."""
    try:
        return Path(value).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, TypeError, ValueError):
        return False
