"""What a sweep needs of this machine, each thing tried."""

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

from masksweep.strategies.base import Invalid
from masksweep.sweeps.common.redact import shown
from masksweep.sweeps.config.sections import Tracking
from masksweep.sweeps.tracking.writable import require_state

if TYPE_CHECKING:
    from masksweep.sweeps.config.trial import Trial

PACKAGES = ("tensorflow", "keras", "ray", "mlflow", "hydra-core", "numpy")
SECONDS = 120
"""How long TensorFlow may take to load."""
LITTLE = 5e9
"""Bytes of free disk below which a sweep may not come to its end."""
DEVICES = """
import tensorflow as tf
for device in tf.config.list_physical_devices("GPU"):
    print(tf.config.experimental.get_device_details(device).get("device_name", "GPU"))
"""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, and what to do about it."""

    state: Literal["ok", "warn", "fail"]
    what: str
    found: str
    advice: str = ""


def versions() -> Iterator[Finding]:
    """Of Python and the packages that matter, against what this package asks for."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    try:
        found = version("masksweep")
    except PackageNotFoundError:
        yield Finding("fail", "masksweep", "not installed", "pip install .")
        return
    asked = {r.name: r.specifier for r in map(Requirement, requires("masksweep") or [])}
    asked["python"] = SpecifierSet(metadata("masksweep")["Requires-Python"])
    ours = platform.python_version()
    yield _version("python", ours, asked["python"])
    yield Finding("ok", "masksweep", found)
    for name in PACKAGES:
        try:
            found = version(name)
        except PackageNotFoundError:
            yield Finding("fail", name, "not installed", f"pip install '{name}{asked[name]}'")
        else:
            yield _version(name, found, asked[name])


def _version(name: str, found: str, asked: Any) -> Finding:
    if asked.contains(found, prereleases=True):
        return Finding("ok", name, found)
    advice = "" if name == "python" else f"pip install '{name}{asked}'"
    return Finding("fail", name, f"{found} is not {asked}", advice)


def devices() -> Finding:
    """What TensorFlow sees, asked in a process of its own, so that this one stays small."""
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    child = [sys.executable, "-c", DEVICES]
    try:
        done = subprocess.run(child, capture_output=True, text=True, timeout=SECONDS, env=env)
    except subprocess.TimeoutExpired:
        return Finding("fail", "devices", f"TensorFlow does not load within {SECONDS} s")
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:]
        reason = said[0] if said else _ended(done.returncode)
        advice = "pip install --force-reinstall tensorflow"
        return Finding("fail", "devices", f"TensorFlow does not load: {reason}", advice)
    cards = done.stdout.splitlines()
    cores = f"{os.cpu_count()} CPU cores"
    if cards:
        names = ", ".join(f"{cards.count(c)} x {c}" for c in dict.fromkeys(cards))
        return Finding("ok", "devices", f"{cores}, {names}")
    if shutil.which("nvidia-smi"):
        found = f"{cores}; TensorFlow sees no GPU, though there is an NVIDIA driver"
        return Finding("warn", "devices", found, "pip install 'masksweep[gpu]'")
    return Finding("ok", "devices", f"{cores}, no GPU")


def _ended(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def trials(planned: Sequence[Trial]) -> Finding:
    """The trials, by the models that they build: whether a plan can be made, and how many are."""
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
    """The tracking store, written to."""
    from masksweep.sweeps.tracking.probe import probe
    from masksweep.sweeps.tracking.store import Away, Refused

    try:
        return Finding("ok", "store", probe(tracking))
    except Away as error:
        advice = "start it; until then results wait on disk, and masksweep sync sends them"
        return Finding("warn", "store", f"is away: {error}", advice)
    except (Invalid, Refused) as error:
        return Finding("fail", "store", str(error), "see tracking.uri and MLFLOW_TRACKING_URI")


def checkpoints(path: str | None) -> Finding:
    """The folder of checkpoints, written to."""
    from masksweep.sweeps.training.checkpoint import check

    folder = path or ".masksweep/checkpoints"
    there = folder if "://" in folder else str(_there(Path(folder).absolute()))
    try:
        check(there)
    except Invalid as error:
        return Finding("fail", "checkpoints", str(error), "see checkpoint.path")
    return Finding("ok", "checkpoints", f"{shown(folder)} can be written")


def _there(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there: looking must not make it."""
    return folder if folder.exists() else _there(folder.parent)


def disks() -> Iterator[Finding]:
    """Of the current folder, where results wait, and of the temporary one, where Ray lives."""
    try:
        require_state()
    except Invalid as error:
        yield Finding("fail", "this folder", str(error), "choose another one")
    else:
        yield _free("this folder", Path.cwd())
    yield _free("temp folder", Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()))


def _free(what: str, folder: Path) -> Finding:
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:  # Ray's finding says that it stops a sweep
        return Finding("warn", what, f"{folder}: {error.strerror}")
    # Ray stops storing objects when a disk is 95 % full
    little = usage.free < LITTLE or usage.free < usage.total / 20
    advice = "it may fill up before a sweep's end; make room" if little else ""
    said = f"{folder}: {usage.free / 1e9:.1f} GB free"
    return Finding("warn" if little else "ok", what, said, advice)
