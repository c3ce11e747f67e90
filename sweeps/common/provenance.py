"""Describes what a trial ran on: versions, processor, devices. It names no user, host or path."""

from __future__ import annotations

import hashlib
import platform
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path

from masksweep.sweeps._version import __version__
from masksweep.sweeps.common.git import commit

PACKAGES = (
    "masksweep",
    "tensorflow",
    "keras",
    "numpy",
    "hydra-core",
    "mlflow",
    "ray",
    "pydantic",
    "scipy",
    "scikit-learn",
    "mnist1d",
)
PEERS = ("torch", "sparselab", "jax")
"""Libraries that a benchmark may compare with. They are listed only if installed."""


@cache
def code_version() -> str:
    """Returns the version with a digest of the sources, because a change may change results."""
    digest = hashlib.sha256()
    for package in ("strategies", "sweeps"):
        folder = Path(str(files(f"masksweep.{package}")))
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{package}/{path.relative_to(folder)}".encode() + path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:8]}"


@cache
def environment_text() -> str:
    """Returns the entries of `environment` as lines `key: value`."""
    return "".join(f"{key}: {value}\n" for key, value in environment().items())


def environment() -> dict[str, str]:
    """Returns the versions, processor, devices and thread settings by name. Imports TensorFlow."""
    import tensorflow as tf

    lines = {"python": platform.python_version(), "system": platform.platform()}
    if code := commit():
        lines["commit"] = code
    for name in PACKAGES:
        try:
            lines[name] = version(name)
        except PackageNotFoundError:
            lines[name] = "not installed"
    for name in PEERS:
        with suppress(PackageNotFoundError):
            lines[name] = version(name)
    lines["processor"] = _processor()
    lines["gpus"] = str(
        [
            tf.config.experimental.get_device_details(gpu).get("device_name", "unknown")
            for gpu in tf.config.list_physical_devices("GPU")
        ]
    )
    lines["intra_op_threads"] = str(tf.config.threading.get_intra_op_parallelism_threads())
    return lines


def _processor() -> str:
    """Returns the model name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
