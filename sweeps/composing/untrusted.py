"""Checks config files from other people: they may hold only data.

Hydra's own part of a config can run code: callbacks, logging and plugins name functions, and Hydra
calls some of them while it composes the config. Resolvers can read the environment. So configs
must not use any of these.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.common import safe_yaml, strict
from masksweep.sweeps.composing import includes
from masksweep.sweeps.composing.includes import fold_case

MAX_CONFIG_BYTES = 2**18
"""Largest size of a config file, in bytes."""
MAX_CONFIG_VALUES = 5_000
"""Largest number of values in a config file. Hydra needs a millisecond for each."""
MAX_INCLUDED_CONFIGS = 1000
"""Largest number of configs that one may include. Hydra reads a config again for each include."""
CONFIG_SUFFIXES = (".yaml", ".yml")
PACKAGE_DIRECTIVE = re.compile(r"@package\s+(\S*)")
DEFAULTS_ENTRY = re.compile(r"((override|optional) +)*/?\w[\w.-]*(/\w[\w.-]*)*")
"""A defaults entry that names a config only: it has no parent folder and no package."""
CALL_KEY = re.compile(r"_\w+_")
"""A key that may name something to call, such as `_target_`."""


@dataclass(frozen=True)
class UntrustedConfigs:
    """A folder of configs from elsewhere, and the command line of the user who names it."""

    folder: Path
    overrides: Sequence[str]
    """The overrides of the command line."""


def check(options: argparse.Namespace) -> UntrustedConfigs | None:
    """Checks the folder of configs that a command line names.

    Args:
        options: Hydra's arguments, as `hydra_internals.parse` returns them.

    Returns:
        The folder, or None if the command line names none.

    Raises:
        Invalid: The folder holds more than data, or a flag is not allowed.
    """
    for flag in ("config_path", "config_name"):
        if (value := getattr(options, flag)) is not None:
            key = f"--{flag.replace('_', '-')}"
            raise Invalid(key, value, "not offered: --config-dir adds configs, as +GROUP=NAME")
    if options.config_dir is None:
        return None
    folder = Path(options.config_dir)
    if not folder.is_dir():
        raise Invalid("--config-dir", options.config_dir, "no such folder")
    contents = _read_reachable(folder, [str(word) for word in options.overrides])
    for name, configs in includes.count_included(contents).items():
        if configs > MAX_INCLUDED_CONFIGS:
            allowed = f"defaults lead to themselves, or to more than {MAX_INCLUDED_CONFIGS} configs"
            raise Invalid("--config-dir", folder / name, allowed)
    return UntrustedConfigs(folder, options.overrides)


def _read_reachable(folder: Path, words: list[str]) -> dict[Path, dict[Any, Any]]:
    """Reads the configs that Hydra may read, and returns their contents by relative path.

    These are the configs in Masksweep's and Hydra's groups, and those that the command line or
    another read config names. Other files are skipped: the folder may also hold results of sweeps.

    Args:
        folder: The folder of configs.
        words: The overrides of the command line.

    Raises:
        Invalid: A config holds more than data.
    """
    groups = {entry.name for entry in resources.files("masksweep.conf").iterdir()}
    waiting = dict.fromkeys(sorted(folder.iterdir()) if folder.is_dir() else [])
    contents: dict[Path, dict[Any, Any]] = {}
    while reached := next((e for e in waiting if _is_reachable(e, groups, words)), None):
        del waiting[reached]
        for path in _files(reached):
            name = path.relative_to(folder)
            try:
                contents[name] = read(path, name)
            except ValueError as error:
                raise Invalid("--config-dir", path, str(error)) from error
            words += _words(contents[name])
    return contents


def _is_reachable(entry: Path, groups: Set[str], words: Sequence[str]) -> bool:
    """Whether an entry of the folder is a group of configs, or is named by one of the words.

    Case is ignored, because a file system may ignore it when Hydra opens a file.
    """
    is_config = entry.suffix.lower() in CONFIG_SUFFIXES
    if not entry.is_dir() and not is_config:
        return False
    name = fold_case(entry.stem if is_config else entry.name)
    matches = {fold_case(entry.name), f"{name}.yaml"} & {fold_case(group) for group in groups}
    return bool(matches) or "hydra" in name or any(name in fold_case(word) for word in words)


def _files(entry: Path) -> Iterator[Path]:
    """Yields the config files of an entry: the file, or all files below the folder.

    Raises:
        Invalid: There is a symbolic link.
    """
    if not entry.is_dir() or entry.is_symlink():
        walked = [(str(entry.parent), [entry.name] if entry.is_symlink() else [], [entry.name])]
    else:
        walked = [*os.walk(entry)]
    for root, folders, files in walked:
        configs = [name for name in files if name.lower().endswith(CONFIG_SUFFIXES)]
        for name in sorted({*folders, *configs}):
            if (path := Path(root, name)).is_symlink():
                raise Invalid("--config-dir", path, "no link to another folder or file")
        yield from (Path(root, name) for name in sorted(configs))


def read(path: Path, name: Path) -> dict[Any, Any]:
    """Reads a config file and checks that it holds only data.

    Args:
        path: The file.
        name: Its path relative to the folder of configs, as Hydra uses it.

    Returns:
        The content of the file.

    Raises:
        ValueError: The file holds more than data. The message is the reason.
    """
    if resources.files("masksweep.conf").joinpath(*name.parts).is_file():
        raise ValueError("Masksweep has a config of this name, which Hydra would take instead")
    text, data = safe_yaml.read(path, MAX_CONFIG_BYTES, MAX_CONFIG_VALUES, as_hydra=True)
    config = {} if data is None else data
    if not isinstance(config, dict):
        raise ValueError("must be keys and values")
    keys, words = [str(key) for key in _keys(config)], list(_words(config))
    defaults = list(_words(config.get("defaults")))
    names = [*name.parent.parts, *PACKAGE_DIRECTIVE.findall(text), *defaults, *keys]
    if any("hydra" in word.lower() for word in names):
        raise ValueError("Hydra's own config is fixed here")
    for item in defaults:
        if not DEFAULTS_ENTRY.fullmatch(item):
            raise ValueError(f"defaults are names of configs: {item[:100]}")
    for item in keys:
        if CALL_KEY.fullmatch(item):
            raise ValueError(f"no key that says what to call: {item[:100]}")
    for item in words:
        # an override in sweep.parts may have backslashes, which Hydra removes
        if "${" in item.replace("\\", ""):
            allowed = "no resolvers or other references, which read what is no config"
            raise ValueError(f"{allowed}: {item[:100]}")
        if strict.CONTROL_CHARACTER.search(item):
            raise ValueError("no control characters")
    return config


def _keys(value: Any) -> Iterator[Any]:
    """Yields all keys of nested mappings."""
    for inner in _inner(value):
        yield from _keys(inner)
    if isinstance(value, dict):
        yield from value


def _words(value: Any) -> Iterator[str]:
    """Yields all keys and values of nested data, as texts."""
    for inner in _inner(value):
        yield from _words(inner)
    if isinstance(value, dict):
        yield from map(str, value)
    elif not isinstance(value, list | None):
        yield str(value)


def _inner(value: Any) -> Iterator[Any]:
    """Yields the values of a mapping or a list."""
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value
