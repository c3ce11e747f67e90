"""Checks the stores, clusters and files that configs name. Configs from others may name none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from masksweep.strategies.base import Invalid
from masksweep.sweeps.common.redact import redact
from masksweep.sweeps.components.groups import GROUPS_WITH_FILES

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

    from masksweep.sweeps.composing.untrusted import UntrustedConfigs

DESTINATION_KEYS = ("tracking.uri", "checkpoint.path", "launch.address")
"""Keys of places to which results, weights and code are sent. Checkpoints are loaded from there."""
RUN_KEYS = ("start.run",)
"""Keys of runs whose artifacts are read from the store."""
INPUT_FILE_KEYS = tuple(f"{group}.path" for group in GROUPS_WITH_FILES)
"""Keys of files that are read."""


def check(untrusted: UntrustedConfigs, jobs: Sequence[Mapping[str, Any]]) -> None:
    """Checks that the composed jobs use only places that the command line names.

    The composed values are checked, so it does not matter how a config sets them. Files in the
    folder of the configs are allowed too.

    Args:
        untrusted: The folder of configs from elsewhere, and the overrides of the command line.
        jobs: The composed config of each job.

    Raises:
        Invalid: A job names another place.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    overrides = OverridesParser.create().parse_overrides(list(untrusted.overrides))
    for key in (*DESTINATION_KEYS, *RUN_KEYS, *INPUT_FILE_KEYS):
        allowed = [None, *(value for o in overrides for value in _override_values(o, key))]
        for job in jobs:
            value = _config_value(job, key)
            if value in allowed:
                continue
            is_file = key in INPUT_FILE_KEYS
            if not is_file or not _is_inside(untrusted.folder, value):
                folder_text = f"in {untrusted.folder}, or " if is_file else ""
                message = f"must be {folder_text}on the command line, with --config-dir"
                raise Invalid(key, redact(str(value))[:200], message)
            allowed.append(value)


def _override_values(override: Override, key: str) -> Iterator[Any]:
    """Yields the values that an override gives to a key."""
    section, _, name = key.partition(".")
    value = override.value()
    if override.key_or_group == section and isinstance(value, dict):
        yield value.get(name)
    elif override.key_or_group == key and override.is_sweep_override():
        from masksweep.sweeps.composing.hydra_internals import swept_values

        yield from swept_values(override)
    elif override.key_or_group == key:
        yield value


def _config_value(job: Mapping[str, Any], key: str) -> Any:
    """Returns the value of a key `section.name`, or None."""
    section, _, name = key.partition(".")
    values = job.get(section)
    return values.get(name) if isinstance(values, Mapping) else None


def _is_inside(folder: Path, value: Any) -> bool:
    """Whether a value is a path within the folder, after links are resolved."""
    try:
        return Path(value).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, TypeError, ValueError):
        return False
