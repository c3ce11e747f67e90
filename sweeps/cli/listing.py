"""`masksweep list`: everything that a config can name, one line each."""

from __future__ import annotations

import inspect
from importlib import resources

from masksweep.sweeps.components.groups import GROUPS
from masksweep.sweeps.composing.outside import experiments

OURS = "masksweep.conf"


def print_all() -> None:
    """Print each option of each config group, what it is, and where it comes from.

    Raises:
        Invalid: What another distribution adds cannot be loaded.
    """
    for group, registry in GROUPS.items():
        print(f"{group}:")
        options = _configs(OURS, group)
        for name, component in registry.items():
            if origin := registry.origin(name):
                said = (inspect.getdoc(component) or "").partition("\n")[0]
                options[name] = f"{said} [{origin}]"
        _print(options)
    print("experiment:")
    options = _configs(OURS, "experiment")
    for owner, package in experiments().items():
        found = _configs(package, "experiment")
        options |= {name: f"{said} [{owner}]" for name, said in found.items()}
    _print(options)


def _print(options: dict[str, str]) -> None:
    for name, said in sorted(options.items()):
        print(f"  {name:<16}{said}")


def _configs(package: str, group: str) -> dict[str, str]:
    """The configs of a group in a package: the first line of each one's comment."""
    found = {}
    for entry in resources.files(package).joinpath(group).iterdir():
        if entry.name.endswith(".yaml"):
            comments = [x for x in entry.read_text().splitlines() if x.startswith("# ")]
            said = next((x for x in comments if "@package" not in x), "#")
            found[entry.name.removesuffix(".yaml")] = said.removeprefix("# ")
    return found
