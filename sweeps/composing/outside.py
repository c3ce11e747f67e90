"""Adds what other distributions offer to Hydra's configs: components and experiments."""

from __future__ import annotations

import dataclasses
from importlib import resources
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.components.groups import GROUPS

EXPERIMENTS_GROUP = "masksweep.experiments"
"""Entry-point group of packages that have experiments, which are configs in `experiment/`."""


def add_to_search_path(search_path: ConfigSearchPath) -> None:
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
                store.store(name, default_section(component), group=group, provider=origin)
    for owner, package in experiment_packages().items():
        search_path.prepend(owner, f"pkg://{package}", SearchPathQuery(provider="schema"))


def experiment_packages() -> dict[str, str]:
    """Returns the packages with experiments of other distributions.

    Returns:
        The package by the name and version of its distribution.

    Raises:
        Invalid: A package cannot be loaded, or has an experiment with a name that exists already.
    """
    known = dict.fromkeys(_experiment_names("masksweep.conf"), "Masksweep")
    packages = {}
    for point in entry_points(group=EXPERIMENTS_GROUP):
        owner = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
        for name in _checked_experiment_names(point):
            if name in known:
                allowed = f"a name of two: of {known[name]} and of {owner}"
                raise Invalid(EXPERIMENTS_GROUP, name, allowed)
            known[name] = owner
        packages[owner] = point.value
    return packages


def default_section(component: type) -> dict[str, Any]:
    """Returns the config section of a component: its name, its fields and their defaults."""
    section: dict[str, Any] = {"name": component.name}  # type: ignore[attr-defined]
    for field in dataclasses.fields(component):
        value = field.default
        if field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        section[field.name] = MISSING if value is dataclasses.MISSING else _as_lists(value)
    return section


def _as_lists(value: Any) -> Any:
    return [_as_lists(item) for item in value] if isinstance(value, tuple | list) else value


def _checked_experiment_names(point: EntryPoint) -> list[str]:
    try:
        return _experiment_names(point.value)
    except (ImportError, OSError, TypeError) as error:
        message = f"no package with a folder experiment: {type(error).__name__}: {error}"
        raise Invalid(EXPERIMENTS_GROUP, point.name, message) from error


def _experiment_names(package: str) -> list[str]:
    folder = resources.files(package).joinpath("experiment")
    files = [entry.name for entry in folder.iterdir()]
    return sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml"))
