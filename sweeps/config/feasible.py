"""Checks whether this machine can run a sweep, before TensorFlow or Ray is started."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from masksweep.strategies.base import Invalid
from masksweep.sweeps.common.redact import shown
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.config.validation import Several

CARDS = re.compile(r"nvidia\d+")
"""Names of NVIDIA GPU devices in `/dev`."""
OTHERS = ("dxg", "kfd", "dri", "accel", "habanalabs")
"""Device names of other accelerators. If one is present, only Ray can count the devices."""


def check(trials: Sequence[Trial]) -> None:
    """Checks the checkpoint folder and the resources that the trials ask for.

    The scheme of the checkpoint folder must be known to fsspec. If Ray will be started on this
    machine, no trial may ask for more CPUs, GPUs or memory than the machine has. Ray reports later
    what cannot be decided here.

    Args:
        trials: The trials of one sweep, at least one.

    Raises:
        Invalid: The trials ask for something that is not available.
    """
    first = trials[0]
    faults = _scheme(first.checkpoint.path or "")
    if first.launch.address is None and not _connected():
        available: dict[str, float] = {"num_cpus": os.cpu_count() or 1, "memory": _memory()}
        if (cards := _cards()) is not None:
            available["num_gpus"] = cards
        for name, limit in available.items():
            requested = max(getattr(t.resources, name) or 0 for t in trials)
            if requested > limit:
                allowed = f"must be at most {limit:.12g}, what this machine has"
                faults.append(Invalid(f"resources.{name}", requested, allowed))
    if faults:
        raise Several(faults)


def _scheme(place: str) -> list[Invalid]:
    """Returns the fault in the scheme of a checkpoint folder, as a list of at most one."""
    from fsspec.registry import known_implementations, registry

    scheme, separator, _ = place.partition("://")
    known = {*known_implementations, *registry}
    if not separator or scheme in known or {*scheme.split("::")} <= known:
        return []
    allowed = "unknown scheme; a folder, or an fsspec URI as s3://bucket/folder"
    return [Invalid("checkpoint.path", shown(place), allowed)]


def _connected() -> bool:
    """Whether this process is already connected to Ray; then the cluster's resources count."""
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


def _memory() -> int:
    """Memory of this machine, in bytes."""
    import psutil

    return int(psutil.virtual_memory().total)


def _cards(devices: Path = Path("/dev")) -> int | None:
    """Largest possible number of GPUs on this machine; None if `/dev` does not tell."""
    if not devices.is_dir() or any((devices / name).exists() for name in OTHERS):
        return None
    return sum(bool(CARDS.fullmatch(device.name)) for device in devices.iterdir())
