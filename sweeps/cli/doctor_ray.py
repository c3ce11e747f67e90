"""Checks of `masksweep doctor` for Ray: the cluster, its free resources, and each node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.cli.doctor_checks import Finding
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.launch.cluster import Spec, cluster, resources, worker_slots
from masksweep.sweeps.launch.node_versions import on_nodes


def nodes(address: str | None, trials: Sequence[Trial]) -> Iterator[Finding]:
    """Joins or starts a Ray cluster, and checks its resources and its workers.

    Args:
        address: Address of the cluster; None starts Ray on this machine.
        trials: The trials that need the resources.

    Yields:
        One finding for Ray, and if it can be reached, one for free resources and one for workers.
    """
    needs = dict.fromkeys(t.resources for t in trials)
    specs = [Spec(n.num_cpus, n.num_gpus, n.memory) for n in needs]
    try:
        with cluster(address):
            cluster_resources = resources()
            location = (
                f"{address}: {_quantity(cluster_resources.nodes, 'node')}"
                if address
                else "starts here"
            )
            yield Finding("ok", "Ray", f"{location}, {_format_resources(cluster_resources.total)}")
            room = min(worker_slots(spec) for spec in specs)
            busy = any(
                cluster_resources.free.get("CPU", 0) < s.num_cpus
                or cluster_resources.free.get("GPU", 0) < s.num_gpus
                for s in specs
            )
            free = _format_resources(cluster_resources.free)
            text = f"{free} free; {_quantity(room, 'trial')} at a time"
            advice = "trials wait until others have ended" if busy else ""
            yield Finding("warn" if busy else "ok", "room", text, advice)
            yield _workers(trials)
    except Invalid as error:
        advice = "ray start --head, or leave the address out" if address else ""
        yield Finding("fail", "Ray", str(error), advice)
    except Exception as error:  # Ray raises many types
        yield Finding("fail", "Ray", f"does not start: {' '.join(str(error).split())[:300]}")


def _quantity(number: float, noun: str) -> str:
    return f"{number:g} {noun}" if number == 1 else f"{number:g} {noun}s"


def _format_resources(resources: Mapping[str, float]) -> str:
    counted = [f"{_quantity(resources[k], k)}" for k in ("CPU", "GPU") if resources.get(k)]
    return ", ".join([*counted, f"{resources.get('memory', 0) / 1e9:.1f} GB"])


def _workers(trials: Sequence[Trial]) -> Finding:
    """Checks that each node that takes trials can run the code and has the trials' plugins."""
    origins = {origin for t in trials for origin in t.origins.values()}
    needed = dict(origin.split(" ", 1) for origin in sorted(origins) if "sha256:" not in origin)
    answers, faults = on_nodes(["tensorflow", *needed])
    advice = "install there what is installed here: the same Python, TensorFlow and Ray"
    for name, local in needed.items():
        others = {answer[name] for answer in answers} - {local}
        faults += [f"{name} {local} is needed, and on a node it is {other}" for other in others]
        advice = f"install {name} {local} on every node" if others else advice
    if faults:
        return Finding("fail", "workers", "; ".join(faults), advice)
    versions = {answer["tensorflow"] for answer in answers}
    if versions != {version("tensorflow")}:
        advice = "results may differ in their bits from those of this machine"
        return Finding("warn", "workers", f"TensorFlow {', '.join(sorted(versions))}", advice)
    return Finding("ok", "workers", f"run on each node, with TensorFlow {versions.pop()}")
