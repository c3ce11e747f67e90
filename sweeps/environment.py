"""What a trial ran on: versions, processor, devices. Names no user, host or path."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

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


def describe() -> str:
    """One `key: value` line each."""
    import tensorflow as tf

    lines = {"python": platform.python_version(), "system": platform.platform()}
    for name in PACKAGES:
        try:
            lines[name] = version(name)
        except PackageNotFoundError:
            lines[name] = "not installed"
    lines["processor"] = _processor()
    lines["gpus"] = str(
        [
            tf.config.experimental.get_device_details(gpu).get("device_name", "unknown")
            for gpu in tf.config.list_physical_devices("GPU")
        ]
    )
    lines["intra_op_threads"] = str(tf.config.threading.get_intra_op_parallelism_threads())
    return "".join(f"{key}: {value}\n" for key, value in lines.items())


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
