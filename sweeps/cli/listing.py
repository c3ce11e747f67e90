"""The command `masksweep list`: everything that a config can name, one line each."""

from __future__ import annotations

import inspect
from importlib import resources

from masksweep.sweeps.components.groups import GROUPS
from masksweep.sweeps.composing.outside import experiment_packages

OWN_CONFIGS = "masksweep.conf"


def print_all() -> None:
    """Prints each option of each config group, what it is, and where it comes from.

    Raises:
        Invalid: An option that another distribution adds cannot be loaded.
    """
    for group, registry in GROUPS.items():
        print(f"{group}:")
        options = _configs(OWN_CONFIGS, group)
        for name, component in registry.items():
            if origin := registry.origin(name):
                summary = (inspect.getdoc(component) or "").partition("\n")[0]
                options[name] = f"{summary} [{origin}]"
        _print(options)
    print("experiment:")
    options = _configs(OWN_CONFIGS, "experiment")
    for owner, package in experiment_packages().items():
        summaries = _configs(package, "experiment")
        options |= {name: f"{summary} [{owner}]" for name, summary in summaries.items()}
    _print(options)


def _print(options: dict[str, str]) -> None:
    for name, summary in sorted(options.items()):
        print(f"  {name:<16}{summary}")


def _configs(package: str, group: str) -> dict[str, str]:
    """The first comment line of each config of a group in a package, by the config's name."""
    summaries = {}
    for entry in resources.files(package).joinpath(group).iterdir():
        if entry.name.endswith(".yaml"):
            comments = [line for line in entry.read_text().splitlines() if line.startswith("# ")]
            summary = next((line for line in comments if "@package" not in line), "#")
            summaries[entry.name.removesuffix(".yaml")] = summary.removeprefix("# ")
    return summaries
