"""Config files from elsewhere: data that can import, run and read nothing.

Hydra's own part of a config can: its callbacks, logging and plugins name what is to be called, and
Hydra calls some of it before anybody has seen the config. Resolvers read the environment.
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

from masksweep.strategies.base import Invalid
from masksweep.sweeps.common import safe_yaml, strict
from masksweep.sweeps.composing import includes
from masksweep.sweeps.composing.includes import folded

LARGE = 2**18
"""Bytes of a config file."""
VALUES = 5_000
"""Values of a config file: Hydra takes a millisecond for each."""
MANY = 1000
"""Configs that one may lead to; Hydra reads each anew for each way."""
ENDINGS = (".yaml", ".yml")
PACKAGE = re.compile(r"@package\s+(\S*)")
DEFAULT = re.compile(r"((override|optional) +)*/?\w[\w.-]*(/\w[\w.-]*)*")
"""An entry of a defaults list that leads nowhere else: no parent folder, no package."""
CALL = re.compile(r"_\w+_")


@dataclass(frozen=True)
class Foreign:
    """A folder of configs from elsewhere, on a command line that is a person's own."""

    folder: Path
    overrides: Sequence[str]
    """Those of the command line."""


def check(given: argparse.Namespace) -> Foreign | None:
    """The folder of configs that a command line names, if there is one.

    Args:
        given: Hydra's arguments, as `hydra_internals.parse` returns them.

    Raises:
        Invalid: The folder holds more than data.
    """
    for flag in ("config_path", "config_name"):
        if (value := getattr(given, flag)) is not None:
            key = f"--{flag.replace('_', '-')}"
            raise Invalid(key, value, "not offered: --config-dir adds configs, as +GROUP=NAME")
    if given.config_dir is None:
        return None
    folder = Path(given.config_dir)
    if not folder.is_dir():
        raise Invalid("--config-dir", given.config_dir, "no such folder")
    said = _reached(folder, [str(word) for word in given.overrides])
    for name, count in includes.count(said).items():
        if count > MANY:
            allowed = f"defaults lead to themselves, or to more than {MANY} configs"
            raise Invalid("--config-dir", folder / name, allowed)
    return Foreign(folder, given.overrides)


def _reached(folder: Path, words: list[str]) -> dict[Path, dict[Any, Any]]:
    """What the configs say that Hydra can come to, by their names in the folder.

    These are the groups that Masksweep has, Hydra's, and what else the command line or a config
    that is reached names: the folder may hold much more, such as the results of a sweep.
    """
    groups = {entry.name for entry in resources.files("masksweep.conf").iterdir()}
    waiting = dict.fromkeys(sorted(folder.iterdir()) if folder.is_dir() else [])
    said: dict[Path, dict[Any, Any]] = {}
    while found := next((e for e in waiting if _is_reached(e, groups, words)), None):
        del waiting[found]
        for path in _files(found):
            name = path.relative_to(folder)
            try:
                said[name] = read(path, name)
            except ValueError as error:
                raise Invalid("--config-dir", path, str(error)) from error
            words += _words(said[name])
    return said


def _is_reached(entry: Path, groups: Set[str], words: Sequence[str]) -> bool:
    """Whether one of the folder's own entries is a group, or one that the words name.

    In any case of letters: a file system may know none, and Hydra opens what it opens.
    """
    is_config = entry.suffix.lower() in ENDINGS
    if not entry.is_dir() and not is_config:
        return False
    name = folded(entry.stem if is_config else entry.name)
    known = {folded(entry.name), f"{name}.yaml"} & {folded(group) for group in groups}
    return bool(known) or "hydra" in name or any(name in folded(word) for word in words)


def _files(entry: Path) -> Iterator[Path]:
    """The config files that an entry of the folder is or holds. Raises `Invalid` for a link."""
    if not entry.is_dir() or entry.is_symlink():
        walked = [(str(entry.parent), [entry.name] if entry.is_symlink() else [], [entry.name])]
    else:
        walked = [*os.walk(entry)]
    for root, folders, files in walked:
        configs = [name for name in files if name.lower().endswith(ENDINGS)]
        for name in sorted({*folders, *configs}):
            if (found := Path(root, name)).is_symlink():
                raise Invalid("--config-dir", found, "no link to another folder or file")
        yield from (Path(root, name) for name in sorted(configs))


def read(path: Path, name: Path) -> dict[Any, Any]:
    """What a config file says; `name` is its path for Hydra.

    Raises `ValueError` with the reason where it is more than data.
    """
    if resources.files("masksweep.conf").joinpath(*name.parts).is_file():
        raise ValueError("Masksweep has a config of this name, which Hydra would take instead")
    text, said = safe_yaml.read(path, LARGE, VALUES, as_hydra=True)
    config = {} if said is None else said
    if not isinstance(config, dict):
        raise ValueError("must be keys and values")
    keys, words = [str(key) for key in _keys(config)], list(_words(config))
    defaults = list(_words(config.get("defaults")))
    named = [*name.parent.parts, *PACKAGE.findall(text), *defaults, *keys]
    if any("hydra" in word.lower() for word in named):
        raise ValueError("Hydra's own config is fixed here")
    for found in defaults:
        if not DEFAULT.fullmatch(found):
            raise ValueError(f"defaults are names of configs: {found[:100]}")
    for found in keys:
        if CALL.fullmatch(found):
            raise ValueError(f"no key that says what to call: {found[:100]}")
    for found in words:
        # an override in sweep.parts may have backslashes, which Hydra takes out
        if "${" in found.replace("\\", ""):
            allowed = "no resolvers or other references, which read what is no config"
            raise ValueError(f"{allowed}: {found[:100]}")
        if strict.CONTROL.search(found):
            raise ValueError("no control characters")
    return config


def _keys(value: Any) -> Iterator[Any]:
    for inner in _inner(value):
        yield from _keys(inner)
    if isinstance(value, dict):
        yield from value


def _words(value: Any) -> Iterator[str]:
    """All that is said in it, keys as well."""
    for inner in _inner(value):
        yield from _words(inner)
    if isinstance(value, dict):
        yield from map(str, value)
    elif not isinstance(value, list | None):
        yield str(value)


def _inner(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value
