"""Which versions of distributions the nodes of a cluster have."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

SECONDS = 120
"""How long a node may take to start a worker."""
MISSING = "not installed"


def versions(names: Sequence[str]) -> dict[str, str]:
    """The versions of distributions by name, on the machine where it is called."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = MISSING
    return found


def on_nodes(names: Sequence[str]) -> tuple[list[dict[str, str]], list[str]]:
    """Start a worker on each node that takes trials, and ask it for versions.

    Args:
        names: Distributions, such as `tensorflow`.

    Returns:
        What each node answered, and a line for each node that did not answer.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    nodes = {n["NodeID"]: n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU")}
    # found on a node only if this package is
    ask = ray.remote(num_cpus=0, max_retries=0)(versions)
    asked = {
        ask.options(scheduling_strategy=On(n, soft=False)).remote(list(names)): n for n in nodes
    }
    done, _ = ray.wait(list(asked), num_returns=len(asked), timeout=SECONDS)
    answers, faults = list[dict[str, str]](), list[str]()
    for answer, node in asked.items():
        name = nodes[node]["NodeManagerAddress"]
        if answer not in done:
            faults.append(f"{name}: no worker within {SECONDS} s")
            continue
        try:
            answers.append(ray.get(answer))
        except ray.exceptions.RayError as error:
            faults.append(f"{name}: {str(error).strip().splitlines()[-1]}")
    return answers, faults
