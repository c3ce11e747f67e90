"""Asks the nodes of a cluster which versions of distributions they have."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from masksweep.sweeps.components import plugins
from masksweep.sweeps.components.plugin_files import Plugin

WORKER_START_SECONDS = 120
"""Seconds that a node may take to start a worker."""
MISSING = "not installed"


def versions(names: Sequence[str], needed_plugins: Sequence[Plugin] = ()) -> dict[str, str]:
    """Returns the versions of distributions on this machine, by name.

    Raises:
        Invalid: A plugin cannot be loaded here, for example because it imports what is missing.
    """
    for plugin in needed_plugins:
        plugins.load(plugin)
    installed = {}
    for name in names:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            installed[name] = MISSING
    return installed


def on_nodes(names: Sequence[str]) -> tuple[list[dict[str, str]], list[str]]:
    """Starts a worker on each node that has CPUs, and asks it for the versions on its node.

    It also loads the plugins of this process there.

    Args:
        names: Names of distributions, such as `tensorflow`.

    Returns:
        The versions on each node that answered, and one line for each node that did not.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    nodes = {n["NodeID"]: n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU")}
    # a node can run this function only if Masksweep is installed there
    task = ray.remote(num_cpus=0, max_retries=0)(versions)
    arguments = list(names), plugins.loaded()
    node_ids = {
        task.options(scheduling_strategy=On(n, soft=False)).remote(*arguments): n for n in nodes
    }
    finished, _ = ray.wait(list(node_ids), num_returns=len(node_ids), timeout=WORKER_START_SECONDS)
    answers, faults = list[dict[str, str]](), list[str]()
    for answer, node in node_ids.items():
        host = nodes[node]["NodeManagerAddress"]
        if answer not in finished:
            faults.append(f"{host}: no worker within {WORKER_START_SECONDS} s")
            continue
        try:
            answers.append(ray.get(answer))
        except ray.exceptions.RayError as error:
            faults.append(f"{host}: {str(error).strip().splitlines()[-1]}")
    return answers, faults
