"""Checks the stores, clusters and files that configs name. Configs from others may name none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.common.redact import redact
from masksweep.sweeps.components.named_files import GROUPS_WITH_FILES, named_files

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

    from masksweep.sweeps.composing.untrusted import UntrustedConfigs

DESTINATION_KEYS = ("tracking.uri", "checkpoint.path", "launch.address")
"""Keys of places to which results, weights and code are sent. Checkpoints are loaded from there."""
RUN_KEYS = ("start.run",)
"""Keys of runs whose artifacts are read from the store."""
SECTIONS = {*GROUPS_WITH_FILES, *(key.partition(".")[0] for key in (*DESTINATION_KEYS, *RUN_KEYS))}
"""Sections that have keys of places or files."""


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
    named = [config for override in overrides for config in _as_configs(override)]
    for key in (*DESTINATION_KEYS, *RUN_KEYS):
        allowed = [None, *(_config_value(config, key) for config in named)]
        for job in jobs:
            if (value := _config_value(job, key)) not in allowed:
                raise _not_named(key, value)
    files = [(_group(key), path) for config in named for key, path in named_files(config)]
    for job in jobs:
        for key, path in named_files(job):
            if (_group(key), path) not in files and not _is_inside(untrusted.folder, path):
                raise _not_named(key, path, f"in {untrusted.folder}, or ")


def _not_named(key: str, value: Any, other_places: str = "") -> Invalid:
    message = f"must be {other_places}on the command line, with --config-dir"
    return Invalid(key, redact(str(value))[:200], message)


def _group(key: str) -> str:
    return key.partition(".")[0]


def _as_configs(override: Override) -> Iterator[dict[str, Any]]:
    """Yields a config with nothing but what an override sets, for each value that it sweeps.

    Overrides that cannot name a place are left out, such as those that choose a config.
    """
    from masksweep.sweeps.composing.hydra_internals import swept_values

    is_sweep = override.is_sweep_override()
    section, *names = override.key_or_group.split(".")
    if section not in SECTIONS or (is_sweep and not names):
        return
    for value in swept_values(override) if is_sweep else [override.value()]:
        config: Any = value
        for name in reversed([section, *names]):
            config = {name: config}
        yield config


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
