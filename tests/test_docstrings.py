"""The examples in docstrings do what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from types import ModuleType

from masksweep import strategies
from masksweep.sweeps import components
from masksweep.sweeps import config as sweep_config


def modules(package: ModuleType) -> list[str]:
    """Names of the modules of a package and of the packages in it."""
    prefix = f"{package.__name__}."
    return [package.__name__, *(m.name for m in pkgutil.walk_packages(package.__path__, prefix))]


PACKAGES = (strategies, components, sweep_config)


def test_every_example_runs() -> None:
    results = {}
    for package in PACKAGES:
        for name in modules(package):
            results[name] = doctest.testmod(importlib.import_module(name))
    failing = {name: result for name, result in results.items() if result.failed}
    assert not failing
    assert sum(result.attempted for result in results.values()) > 50
