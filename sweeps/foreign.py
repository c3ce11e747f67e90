"""Config files from elsewhere: data that can import, run and read nothing.

Hydra's own part of a config can: its callbacks, logging and plugins name what is to be called, and
Hydra calls some of it before anybody has seen the config. Resolvers read the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from strategies.base import Invalid

PACKAGE = re.compile(r"^\s*#\s*@package\s+(.*)$", re.MULTILINE)
RESOLVER = re.compile(r"\$\{[^${}]*:")


def check(arguments: Sequence[str]) -> None:
    """Raise `Invalid` for a folder of configs among Hydra's arguments that holds more than data."""
    from hydra._internal.utils import get_args_parser

    try:
        given = get_args_parser().parse_known_args(list(arguments))[0]
    except SystemExit:  # Hydra will say the same
        return
    if given.config_path is not None:
        allowed = "not offered: --config-dir adds configs"
        raise Invalid("--config-path", given.config_path, allowed)
    if given.config_dir is not None:
        folder = Path(given.config_dir)
        for path in _files(folder):
            if said := wrong(path, path.relative_to(folder)):
                raise Invalid("--config-dir", str(path), said)


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        for name in sorted(folders):
            if (found := Path(root, name)).is_symlink():
                raise Invalid("--config-dir", str(found), "no link to another folder")
        yield from (Path(root, name) for name in sorted(files) if name.endswith((".yaml", ".yml")))


def wrong(path: Path, name: Path) -> str:
    """Why a config file is more than data; empty if it is none. `name` is its path for Hydra."""
    import yaml

    text = path.read_text(errors="replace")
    if name.parts[0] == "hydra" or any("hydra" in p.lower() for p in PACKAGE.findall(text)):
        return "Hydra's own config is fixed here"
    try:
        config = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError):
        return "not readable as YAML"
    if not isinstance(config, dict | None):
        return "must be keys and values"
    defaults = (config or {}).get("defaults") or ()
    if any(str(key).partition(".")[0] == "hydra" for key in _keys(config)) or any(
        "hydra" in word for word in _words(defaults)
    ):
        return "Hydra's own config is fixed here"
    if found := next((w for w in _words(config) if RESOLVER.search(w)), ""):
        return f"no resolvers, which read what is no config: {found[:100]}"
    return ""


def _keys(value: Any) -> Iterator[Any]:
    for inner in _inner(value):
        yield from _keys(inner)
    if isinstance(value, dict):
        yield from value


def _words(value: Any) -> Iterator[str]:
    """Every text in it, keys as well."""
    for inner in _inner(value):
        yield from _words(inner)
    if isinstance(value, dict):
        yield from map(str, value)
    elif isinstance(value, str):
        yield value


def _inner(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value
