"""The command `masksweep list`: everything that a config can name, one line each."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from importlib import resources
from typing import Any

from masksweep.strategies.registry import Registry
from masksweep.sweeps.common.parser import Parser
from masksweep.sweeps.components import plugins
from masksweep.sweeps.components.groups import GROUPS
from masksweep.sweeps.components.losses import KERAS_LOSSES, OWN_LOSSES
from masksweep.sweeps.components.metrics import KERAS_METRICS, OWN_METRICS
from masksweep.sweeps.components.schedules import SCHEDULES
from masksweep.sweeps.composing.outside import experiment_packages

OWN_CONFIGS = "masksweep.conf"


def list_all(arguments: Sequence[str]) -> int:
    """Runs `masksweep list`: prints each option of each config group, and where it comes from.

    Args:
        arguments: The arguments after `list`.

    Returns:
        The exit code, 0.

    Raises:
        Invalid: An option that another distribution adds cannot be loaded.
    """
    about = "Prints everything that a config can name, one line each."
    Parser(prog="masksweep list", description=about, epilog=plugins.HELP).parse_args(arguments)
    for group, registry in GROUPS.items():
        print(f"{group}:")
        options = _configs(OWN_CONFIGS, group)
        for name in registry:
            if registry.origin(name):
                options[name] = _summary(registry, name)
        _print(options)
    print("optimizer.schedule:")
    _print({name: _summary(SCHEDULES, name) for name in SCHEDULES})
    for key, keras_ones, own in (
        ("train.loss", KERAS_LOSSES, OWN_LOSSES),
        ("train.metrics", KERAS_METRICS, OWN_METRICS),
    ):
        print(f"{key}:")
        _print(
            {name: f"For {' and '.join(entry.tasks)}" for name, entry in keras_ones.items()}
            | {name: _summary(own, name) for name in own},
            width=33,
        )
    print("experiment:")
    options = _configs(OWN_CONFIGS, "experiment")
    for owner, package in experiment_packages().items():
        summaries = _configs(package, "experiment")
        options |= {name: f"{summary} [{owner}]" for name, summary in summaries.items()}
    _print(options)
    return 0


def _summary(registry: Registry[Any], name: str) -> str:
    """The first line of the docstring of a component, and its origin, if it is not ours."""
    summary = (inspect.getdoc(registry[name]) or "").partition("\n")[0]
    origin = registry.origin(name)
    return f"{summary} [{origin}]" if origin else summary


def _print(options: dict[str, str], width: int = 15) -> None:
    for name, summary in sorted(options.items()):
        print(f"  {name:<{width}} {summary}")


def _configs(package: str, group: str) -> dict[str, str]:
    """The first comment line of each config of a group in a package, by the config's name."""
    summaries = {}
    for entry in resources.files(package).joinpath(group).iterdir():
        if entry.name.endswith(".yaml"):
            comments = [line for line in entry.read_text().splitlines() if line.startswith("# ")]
            summary = next((line for line in comments if "@package" not in line), "#")
            summaries[entry.name.removesuffix(".yaml")] = summary.removeprefix("# ")
    return summaries
