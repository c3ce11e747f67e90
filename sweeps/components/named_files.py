"""The files that the config of a trial names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from masksweep.strategies.errors import Invalid

GROUPS_WITH_FILES = ("pattern", "held", "model", "data", "start", "schedule")
"""Groups and sections whose setting `path` names a file. Its content belongs to a trial's
identity."""


def named_files(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns pairs (dotted key, path) of the files that a config names.

    The files of patterns that are parts of another pattern are included. Two of them may have the
    same key in the mappings that a user writes, because a glob may have dots, and have keys of
    their own in the config of a trial, where they are pairs.

    Args:
        config: Config of a trial. It need not be valid.

    Example:
        >>> masks = {"name": "file", "path": "masks.npz"}
        >>> named_files({"pattern": {"name": "union", "of": ["random", masks]}})
        [('pattern.of.1.path', 'masks.npz')]
    """
    files: list[tuple[str, str]] = []
    with_files(config, lambda key, path: files.append((key, path)))
    return files


def with_files(
    config: Mapping[str, Any], replace: Callable[[str, str], str | None]
) -> dict[str, Any]:
    """Returns a config with other paths of files. The given one is not changed.

    Args:
        config: Config of a trial. It need not be valid.
        replace: Returns the new path from the dotted key and the path.

    Raises:
        Invalid: Patterns are nested too deeply.
    """
    new = dict(config)
    for group in GROUPS_WITH_FILES:
        if isinstance(section := config.get(group), Mapping):
            # only a pattern has parts, in `of`; other settings may be large, such as given masks
            settings = {key: section[key] for key in ("path", "of") if key in section}
            try:
                new[group] = {**section, **_with_files(settings, group, replace)}
            except RecursionError:
                raise Invalid(f"{group}.of", "...", "must be nested less deeply") from None
    return new


def _with_files(value: Any, key: str, replace: Callable[[str, str], str | None]) -> Any:
    if isinstance(value, Mapping):
        return {
            name: replace(f"{key}.{name}", item)
            if name == "path" and item
            else _with_files(item, f"{key}.{name}", replace)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_with_files(item, f"{key}.{index}", replace) for index, item in enumerate(value)]
    return value
