"""What Ray offers a sweep, each node tried."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version

from masksweep.strategies.base import Invalid
from masksweep.sweeps.cli.doctor_checks import Finding
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.launch.cluster import Spec, cluster, resources, slots
from masksweep.sweeps.launch.node_versions import tensorflow_versions


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
            yield _workers()
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


def _workers() -> Finding:
    """Whether each node that takes trials can run the code."""
    versions, faults = tensorflow_versions()
    if faults:
        advice = "install there what is installed here: the same Python, TensorFlow and Ray"
        return Finding("fail", "workers", "; ".join(faults), advice)
    if versions != {version("tensorflow")}:
        advice = "results may differ in their bits from those of this machine"
        return Finding("warn", "workers", f"TensorFlow {', '.join(sorted(versions))}", advice)
    return Finding("ok", "workers", f"run on each node, with TensorFlow {versions.pop()}")
