"""Adds what other distributions offer to Hydra's configs: components and experiments."""

from __future__ import annotations

import dataclasses
from importlib import resources
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from masksweep.strategies.base import Invalid
from masksweep.sweeps.components.groups import GROUPS

EXPERIMENTS = "masksweep.experiments"
"""Entry-point group of packages that have experiments, which are configs in `experiment/`."""


def add(search_path: ConfigSearchPath) -> None:
    """Adds the components and experiments of other distributions to Hydra's configs.

    A component needs no config file: its section is made from its fields and their defaults.

    Args:
        search_path: Hydra's search path, which is changed.

    Raises:
        Invalid: A distribution cannot be loaded, or uses a name that exists already.
    """
    store = ConfigStore.instance()
    for group, registry in GROUPS.items():
        for name, component in registry.items():
            if origin := registry.origin(name):
                store.store(name, defaults(component), group=group, provider=origin)
    for owner, package in experiments().items():
        search_path.prepend(owner, f"pkg://{package}", SearchPathQuery(provider="schema"))


def experiments() -> dict[str, str]:
    """Returns the packages with experiments of other distributions.

    Returns:
        The package by the name and version of its distribution.

    Raises:
        Invalid: A package cannot be loaded, or has an experiment with a name that exists already.
    """
    known = dict.fromkeys(_names("masksweep.conf"), "Masksweep")
    packages = {}
    for point in entry_points(group=EXPERIMENTS):
        owner = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
        for name in _experiments(point):
            if name in known:
                raise Invalid(EXPERIMENTS, name, f"a name of two: of {known[name]} and of {owner}")
            known[name] = owner
        packages[owner] = point.value
    return packages


def defaults(component: type) -> dict[str, Any]:
    """Returns the config section of a component: its name, its fields and their defaults."""
    section: dict[str, Any] = {"name": component.name}  # type: ignore[attr-defined]
    for field in dataclasses.fields(component):
        value = field.default
        if field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        section[field.name] = MISSING if value is dataclasses.MISSING else _plain(value)
    return section


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _experiments(point: EntryPoint) -> list[str]:
    try:
        return _names(point.value)
    except (ImportError, OSError, TypeError) as error:
        message = f"no package with a folder experiment: {type(error).__name__}: {error}"
        raise Invalid(EXPERIMENTS, point.name, message) from error


def _names(package: str) -> list[str]:
    folder = resources.files(package).joinpath("experiment")
    files = [entry.name for entry in folder.iterdir()]
    return sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml"))
