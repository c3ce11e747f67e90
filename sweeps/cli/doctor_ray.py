"""What Ray offers a sweep, each node tried."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version

from masksweep.strategies.base import Invalid
from masksweep.sweeps.cli.doctor_checks import Finding
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.launch.cluster import Spec, cluster, resources, slots
from masksweep.sweeps.launch.node_versions import on_nodes


def nodes(address: str | None, trials: Sequence[Trial]) -> Iterator[Finding]:
    """A cluster that can be joined or started, with room for the trials and workers that run."""
    needs = dict.fromkeys(t.resources for t in trials)
    specs = [Spec(n.num_cpus, n.num_gpus, n.memory) for n in needs]
    try:
        with cluster(address):
            has = resources()
            where = f"{address}: {_counted(has.nodes, 'node')}" if address else "starts here"
            yield Finding("ok", "Ray", f"{where}, {_amounts(has.total)}")
            room = min(slots(spec) for spec in specs)
            busy = any(
                has.free.get("CPU", 0) < s.num_cpus or has.free.get("GPU", 0) < s.num_gpus
                for s in specs
            )
            found = f"{_amounts(has.free)} free; {_counted(room, 'trial')} at a time"
            advice = "trials wait until others have ended" if busy else ""
            yield Finding("warn" if busy else "ok", "room", found, advice)
            yield _workers(trials)
    except Invalid as error:
        advice = "ray start --head, or leave the address out" if address else ""
        yield Finding("fail", "Ray", str(error), advice)
    except Exception as error:  # Ray has many
        yield Finding("fail", "Ray", f"does not start: {' '.join(str(error).split())[:300]}")


def _counted(number: float, what: str) -> str:
    return f"{number:g} {what}" if number == 1 else f"{number:g} {what}s"


def _amounts(resources: Mapping[str, float]) -> str:
    said = [f"{_counted(resources[k], k)}" for k in ("CPU", "GPU") if resources.get(k)]
    return ", ".join([*said, f"{resources.get('memory', 0) / 1e9:.1f} GB"])


def _workers(trials: Sequence[Trial]) -> Finding:
    """Whether each node that takes trials can run the code, and has what the trials are made of."""
    origins = {origin for t in trials for origin in t.origins.values()}
    needed = dict(origin.split(" ", 1) for origin in sorted(origins) if "sha256:" not in origin)
    answers, faults = on_nodes(["tensorflow", *needed])
    advice = "install there what is installed here: the same Python, TensorFlow and Ray"
    for name, here in needed.items():
        others = {answer[name] for answer in answers} - {here}
        faults += [f"{name} {here} is needed, and on a node it is {there}" for there in others]
        advice = f"install {name} {here} on every node" if others else advice
    if faults:
        return Finding("fail", "workers", "; ".join(faults), advice)
    found = {answer["tensorflow"] for answer in answers}
    if found != {version("tensorflow")}:
        advice = "results may differ in their bits from those of this machine"
        return Finding("warn", "workers", f"TensorFlow {', '.join(sorted(found))}", advice)
    return Finding("ok", "workers", f"run on each node, with TensorFlow {found.pop()}")
