"""What this machine can be seen to lack for a sweep, before TensorFlow or Ray are started."""

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
OTHERS = ("dxg", "kfd", "dri", "accel", "habanalabs")
"""Devices of cards whose number Ray alone can tell."""


def check(trials: Sequence[Trial]) -> None:
    """Raise `Invalid` for what the trials ask for and cannot have.

    That is a checkpoint folder in a scheme that nothing knows, and, where Ray is started here, more
    than this machine has. What is less than certain Ray says later.
    """
    first = trials[0]
    found = _scheme(first.checkpoint.path or "")
    if first.launch.address is None and not _connected():
        has: dict[str, float] = {"num_cpus": os.cpu_count() or 1, "memory": _memory()}
        if (cards := _cards()) is not None:
            has["num_gpus"] = cards
        for name, most in has.items():
            asked = max(getattr(t.resources, name) or 0 for t in trials)
            if asked > most:
                allowed = f"must be at most {most:.12g}, what this machine has"
                found.append(Invalid(f"resources.{name}", asked, allowed))
    if found:
        raise Several(found)


def _scheme(place: str) -> list[Invalid]:
    """What is wrong with the scheme of a place for checkpoints."""
    from fsspec.registry import known_implementations, registry

    scheme, separator, _ = place.partition("://")
    known = {*known_implementations, *registry}
    if not separator or scheme in known or {*scheme.split("::")} <= known:
        return []
    allowed = "unknown scheme; a folder, or an fsspec URI as s3://bucket/folder"
    return [Invalid("checkpoint.path", shown(place), allowed)]


def _connected() -> bool:
    """Whether this process is connected to a Ray already, whose nodes count then."""
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


def _memory() -> int:
    import psutil

    return int(psutil.virtual_memory().total)


def _cards(devices: Path = Path("/dev")) -> int | None:
    """How many cards there are at most; None where that cannot be seen."""
    if not devices.is_dir() or any((devices / name).exists() for name in OTHERS):
        return None
    return sum(bool(CARDS.fullmatch(device.name)) for device in devices.iterdir())
