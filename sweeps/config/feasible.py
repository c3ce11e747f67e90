"""Checks whether this machine can run a sweep, before TensorFlow or Ray is started."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.common.redact import redact
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.config.validation import MultipleInvalid

NVIDIA_DEVICE = re.compile(r"nvidia\d+")
"""Names of NVIDIA GPU devices in `/dev`."""
OTHER_ACCELERATORS = ("dxg", "kfd", "dri", "accel", "habanalabs")
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
    faults = _scheme_faults(first.checkpoint.path or "")
    if first.launch.address is None and not _is_connected():
        available: dict[str, float] = {"num_cpus": os.cpu_count() or 1, "memory": _memory_bytes()}
        if (gpus := _gpu_count()) is not None:
            available["num_gpus"] = gpus
        for name, limit in available.items():
            requested = max(getattr(t.resources, name) or 0 for t in trials)
            if requested > limit:
                allowed = f"must be at most {limit:.12g}, what this machine has"
                faults.append(Invalid(f"resources.{name}", requested, allowed))
    if faults:
        raise MultipleInvalid(faults)


def _scheme_faults(place: str) -> list[Invalid]:
    """Returns the fault in the scheme of a checkpoint folder, as a list of at most one."""
    from fsspec.registry import known_implementations, registry

    scheme, separator, _ = place.partition("://")
    known = {*known_implementations, *registry}
    if not separator or scheme in known or {*scheme.split("::")} <= known:
        return []
    allowed = "unknown scheme; a folder, or an fsspec URI as s3://bucket/folder"
    return [Invalid("checkpoint.path", redact(place), allowed)]


def _is_connected() -> bool:
    """Whether this process is already connected to Ray; then the cluster's resources count."""
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


def _memory_bytes() -> int:
    """Memory of this machine, in bytes."""
    import psutil

    return int(psutil.virtual_memory().total)


def _gpu_count(devices: Path = Path("/dev")) -> int | None:
    """Largest possible number of GPUs on this machine; None if `/dev` does not tell."""
    if not devices.is_dir() or any((devices / name).exists() for name in OTHER_ACCELERATORS):
        return None
    return sum(bool(NVIDIA_DEVICE.fullmatch(device.name)) for device in devices.iterdir())
