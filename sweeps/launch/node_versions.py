"""Which TensorFlow the nodes of a cluster have."""

from __future__ import annotations

from importlib.metadata import version

SECONDS = 120
"""How long a node may take to start a worker."""


def tensorflow_versions() -> tuple[set[str], list[str]]:
    """Start a worker on each node that takes trials, and ask it.

    Returns:
        The versions of TensorFlow, and a line for each node that did not say its own.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    nodes = {n["NodeID"]: n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU")}
    ask = ray.remote(num_cpus=0, max_retries=0)(_tensorflow)
    asked = {ask.options(scheduling_strategy=On(n, soft=False)).remote(): n for n in nodes}
    done, _ = ray.wait(list(asked), num_returns=len(asked), timeout=SECONDS)
    versions, faults = set[str](), list[str]()
    for answer, node in asked.items():
        name = nodes[node]["NodeManagerAddress"]
        if answer not in done:
            faults.append(f"{name}: no worker within {SECONDS} s")
            continue
        try:
            versions.add(ray.get(answer))
        except ray.exceptions.RayError as error:
            faults.append(f"{name}: {str(error).strip().splitlines()[-1]}")
    return versions, faults


def _tensorflow() -> str:
    """Runs on a node, where it is found only if this package is."""
    return version("tensorflow")
