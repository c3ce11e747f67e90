"""Checks of `masksweep doctor` for this machine: versions, devices, trials, store and disks."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.common.redact import redact
from masksweep.sweeps.config.sections import Tracking
from masksweep.sweeps.tracking.writable import require_state

if TYPE_CHECKING:
    from masksweep.sweeps.config.trial import Trial

PACKAGES = ("tensorflow", "keras", "ray", "mlflow", "hydra-core", "numpy")
TENSORFLOW_LOAD_SECONDS = 120
"""How long TensorFlow may take to load, in seconds."""
LOW_DISK_BYTES = 5e9
"""Free disk space in bytes below which a sweep may fail before its end."""
PRINT_GPUS_CODE = """
import tensorflow as tf
for device in tf.config.list_physical_devices("GPU"):
    print(tf.config.experimental.get_device_details(device).get("device_name", "GPU"))
"""


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    state: Literal["ok", "warn", "fail"]
    subject: str
    """The checked thing, such as `tensorflow` or `store`."""
    result: str
    """What the check found, as a line of text."""
    advice: str = ""
    """What the user can do about it; empty if nothing."""


def versions() -> Iterator[Finding]:
    """Checks the versions of Python and the main packages against Masksweep's requirements."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    try:
        installed = version("masksweep")
    except PackageNotFoundError:
        yield Finding("fail", "masksweep", "not installed", "pip install .")
        return
    required = {r.name: r.specifier for r in map(Requirement, requires("masksweep") or [])}
    required["python"] = SpecifierSet(metadata("masksweep")["Requires-Python"])
    running = platform.python_version()
    yield _version("python", running, required["python"])
    yield Finding("ok", "masksweep", installed)
    for name in PACKAGES:
        try:
            installed = version(name)
        except PackageNotFoundError:
            yield Finding("fail", name, "not installed", f"pip install '{name}{required[name]}'")
        else:
            yield _version(name, installed, required[name])


def _version(name: str, installed: str, required: Any) -> Finding:
    if required.contains(installed, prereleases=True):
        return Finding("ok", name, installed)
    advice = "" if name == "python" else f"pip install '{name}{required}'"
    return Finding("fail", name, f"{installed} is not {required}", advice)


def devices() -> Finding:
    """Lists the devices that TensorFlow sees.

    A child process loads TensorFlow, so that this process stays small.
    """
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    child = [sys.executable, "-c", PRINT_GPUS_CODE]
    try:
        process = subprocess.run(
            child, capture_output=True, text=True, timeout=TENSORFLOW_LOAD_SECONDS, env=env
        )
    except subprocess.TimeoutExpired:
        reason = f"TensorFlow does not load within {TENSORFLOW_LOAD_SECONDS} s"
        return Finding("fail", "devices", reason)
    if process.returncode:
        error_lines = process.stderr.strip().splitlines()[-1:]
        reason = error_lines[0] if error_lines else _describe_exit(process.returncode)
        advice = "pip install --force-reinstall tensorflow"
        return Finding("fail", "devices", f"TensorFlow does not load: {reason}", advice)
    gpus = process.stdout.splitlines()
    cores = f"{os.cpu_count()} CPU cores"
    if gpus:
        names = ", ".join(f"{gpus.count(c)} x {c}" for c in dict.fromkeys(gpus))
        return Finding("ok", "devices", f"{cores}, {names}")
    if shutil.which("nvidia-smi"):
        text = f"{cores}; TensorFlow sees no GPU, though there is an NVIDIA driver"
        return Finding("warn", "devices", text, "pip install 'masksweep[gpu]'")
    return Finding("ok", "devices", f"{cores}, no GPU")


def _describe_exit(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def trials(planned: Sequence[Trial]) -> Finding:
    """Builds the models of the trials, and checks that a plan can be made for each trial."""
    from masksweep.sweeps.training.preflight import Preflight, check

    try:
        with Preflight() as child:
            answers = check(planned, child.ask)
    except Invalid as error:
        return Finding("fail", "trials", str(error))
    refused = sum(bool(answer.refusal) for answer in answers.values())
    skipped = f", {refused} of them skipped" if refused else ""
    return Finding("ok", "trials", f"{len(planned)} can be planned{skipped}")


def store(tracking: Tracking) -> Finding:
    """Checks the tracking store by writing to it."""
    from masksweep.sweeps.tracking.probe import probe
    from masksweep.sweeps.tracking.store import StoreRefused, StoreUnavailable

    try:
        return Finding("ok", "store", probe(tracking))
    except StoreUnavailable as error:
        advice = "start it; until then results wait on disk, and masksweep sync sends them"
        return Finding("warn", "store", f"cannot be reached: {error}", advice)
    except (Invalid, StoreRefused) as error:
        return Finding("fail", "store", str(error), "see tracking.uri and MLFLOW_TRACKING_URI")


def checkpoints(path: str | None) -> Finding:
    """Checks the folder of checkpoints by writing to it; None is the default folder."""
    from masksweep.sweeps.training.checkpoint import check

    folder = path or ".masksweep/checkpoints"
    probed_folder = folder if "://" in folder else str(_nearest_existing(Path(folder).absolute()))
    try:
        check(probed_folder)
    except Invalid as error:
        return Finding("fail", "checkpoints", str(error), "see checkpoint.path")
    return Finding("ok", "checkpoints", f"{redact(folder)} can be written")


def _nearest_existing(folder: Path) -> Path:
    """The folder, or its nearest parent that exists: the check must not create the folder."""
    return folder if folder.exists() else _nearest_existing(folder.parent)


def disks() -> Iterator[Finding]:
    """Checks the disk space of the current folder (results) and the temporary folder (Ray)."""
    try:
        require_state()
    except Invalid as error:
        yield Finding("fail", "this folder", str(error), "choose another one")
    else:
        yield _disk_space("this folder", Path.cwd())
    yield _disk_space("temp folder", Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()))


def _disk_space(name: str, folder: Path) -> Finding:
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:  # only a warning: the finding for Ray says whether it stops a sweep
        return Finding("warn", name, f"{folder}: {error.strerror}")
    # Ray stops storing objects when a disk is 95 % full
    is_low = usage.free < LOW_DISK_BYTES or usage.free < usage.total / 20
    advice = "it may fill up before a sweep's end; make room" if is_low else ""
    text = f"{folder}: {usage.free / 1e9:.1f} GB free"
    return Finding("warn" if is_low else "ok", name, text, advice)
