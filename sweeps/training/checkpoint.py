"""Checkpoints of a trial, in a folder or under an fsspec URI. This module loads no TensorFlow.

A checkpoint is one file. Its first line is JSON: it identifies the trial, and has the SHA-256 of
the whole content. The rest is a `.npz` file of plain arrays. Reading it never runs code from the
file (no pickle).
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from masksweep.strategies.errors import Invalid
from masksweep.strategies.plan import Array
from masksweep.sweeps.common.provenance import code_version
from masksweep.sweeps.common.redact import redact
from masksweep.sweeps.common.storage import Folder
from masksweep.sweeps.training.array_file import from_bytes, to_bytes

FORMAT_VERSION = 1
"""Version of the file format."""
NAME_FORMAT = "{:012d}.checkpoint"
NAME_PATTERN = re.compile(r"\d{12}\.checkpoint")
KEPT_CHECKPOINTS = 2
"""Number of checkpoints that are kept of a trial: the newest ones."""
MAX_TIME_SHARE = 0.05
"""Largest share of a trial's time for checkpoints at the ends of epochs."""
# This module catches `Exception`, because each fsspec file system has its own exception classes.


@dataclass(frozen=True)
class State:
    """The state of a trial after `steps` steps."""

    steps: int
    position: Mapping[str, Any]
    """The fields of `state.Position`, as values that JSON can hold."""
    arrays: Sequence[Array]
    """Values of the variables that a training can change."""


class Checkpoints:
    """Saves and reads the checkpoints of one trial.

    Args:
        folder: A folder or fsspec URI, in which the trial has its own folder.
        trial_id: The trial's id.
        every_s: Seconds between two checkpoints within an epoch.
    """

    def __init__(self, folder: str, trial_id: str, every_s: float) -> None:
        self._folder, self._trial, self._every_s = Folder(folder, trial_id), trial_id, every_s
        self._start, self._spent, self._failed = "", 0.0, False
        self._kept: list[str] = []

    def resume(self, start: str) -> tuple[State | None, str]:
        """Reads the newest usable checkpoint, and starts the clock that `is_due` uses.

        Files that are damaged or belong to another training are skipped. No error is raised:
        without a usable checkpoint, the trial starts from its first step.

        Args:
            start: Identifies the start of the training beyond the trial's id; see
                `trial_run.fingerprint`.

        Returns:
            (state or None, message for the user).
        """
        self._start, state = start, None
        names, notes = [], []
        try:
            names = [n for n in self._folder.names() if NAME_PATTERN.fullmatch(n)]
        except Exception as error:
            notes.append(f"checkpoints: {_one_line(error)}")
        for name in sorted(names, reverse=True):
            try:
                state = self._read(name)
                self._kept = [name]
                break
            except Exception as error:  # try the checkpoint before this one
                notes.append(f"checkpoint of step {_steps(name)}: {_one_line(error)}")
        if state:
            notes.append(f"resumed from step {state.steps}")
        elif notes:
            notes.append("started from the first step")
        self._began = self._last = time.monotonic()
        return state, "; ".join(notes)

    def is_due(self, epoch_ended: bool, trial_count: int = 1) -> bool:
        """Whether to save now, at the end of a chunk of steps.

        A checkpoint is due when `every_s` seconds have passed since the last one. At the end of an
        epoch it is due earlier, unless saving has taken more than 5 % of the time since the
        training began: short epochs would otherwise spend most of their time on saving.

        Args:
            epoch_ended: Whether an epoch ends with this chunk.
            trial_count: Number of trials that save at once.
        """
        now = time.monotonic()
        cheap = trial_count * self._spent <= MAX_TIME_SHARE * (now - self._began)
        return now - self._last >= self._every_s or (epoch_ended and cheap)

    def save(self, state: State) -> str:
        """Saves a state, and removes all but the newest `KEPT_CHECKPOINTS` checkpoints.

        Returns:
            A message for the user the first time that a checkpoint cannot be written; else an empty
            string. No error is raised.
        """
        tic = time.monotonic()
        try:
            self._write(state)
            return ""
        except Exception as error:
            failed_before, self._failed = self._failed, True
            message = f"no checkpoint at step {state.steps}: {_one_line(error)}"
            return "" if failed_before else message
        finally:
            self._last = time.monotonic()
            self._spent += self._last - tic

    def _write(self, state: State) -> None:
        arrays = {f"arr_{i}": array for i, array in enumerate(state.arrays)}
        arrays["position"] = np.frombuffer(json.dumps(state.position).encode(), np.uint8)
        payload, fields = to_bytes(arrays), self._header_fields(state.steps)
        header = json.dumps({**fields, "sha256": _digest(fields, payload)})
        name = NAME_FORMAT.format(state.steps)
        self._folder.write(name, header.encode() + b"\n" + payload)
        self._kept = [*self._kept, name][-KEPT_CHECKPOINTS:]
        with suppress(Exception):  # a file that is left over does no harm
            for outdated in set(self._folder.names()) - set(self._kept):
                self._folder.remove(outdated)

    def _read(self, name: str) -> State:
        header, _, payload = self._folder.read(name).partition(b"\n")
        expected, fields = self._header_fields(_steps(name)), _parse_header(header)
        if fields.pop("sha256", None) != _digest(fields, payload):
            raise ValueError("damaged")
        for key, value in expected.items():
            if fields.get(key) != value:
                raise ValueError(f"of another {key}")
        arrays = from_bytes(payload)
        position = json.loads(arrays.pop("position").tobytes())
        return State(_steps(name), position, [arrays[f"arr_{i}"] for i in range(len(arrays))])

    def _header_fields(self, steps: int) -> dict[str, Any]:
        """The fields of a header, without the digest."""
        code = code_version()
        fields = {
            "format": FORMAT_VERSION,
            "trial": self._trial,
            "code": code,
            "start": self._start,
        }
        return {**fields, "step": steps}


def clear(folder: str, trial_id: str) -> None:
    """Removes a trial's checkpoints; errors are ignored.

    Args:
        folder: The folder or fsspec URI of the checkpoints.
        trial_id: The trial's id.
    """
    with suppress(Exception):  # a file that is left over does no harm
        Folder(folder, trial_id).remove_all()


def check(folder: str) -> None:
    """Checks that files can be written to a folder.

    A local folder that does not exist is not created; its nearest existing parent is checked.

    Args:
        folder: A local folder or an fsspec URI.

    Raises:
        Invalid: (key `checkpoint.path`) No file can be written, or a package is missing for the
            URI.
    """
    target, probe = Folder(_nearest_existing(folder)), f"probe-{uuid.uuid4().hex}"
    try:
        target.write(probe, b"probe")
        target.remove(probe)
    except ImportError as error:
        allowed = f"needs a package: {_one_line(error)}"
        raise Invalid("checkpoint.path", redact(folder), allowed) from error
    except Exception as error:
        allowed = f"cannot be written: {_one_line(error)}"
        raise Invalid("checkpoint.path", redact(folder), allowed) from error


def _nearest_existing(folder: str) -> str:
    """The folder or its nearest existing parent. A URI is returned unchanged."""
    if "://" in folder:
        return folder
    path = Path(folder).absolute()
    return str(next(p for p in (path, *path.parents) if p.exists()))


def _steps(name: str) -> int:
    return int(name.partition(".")[0])


def _parse_header(header: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(header))
    except (ValueError, TypeError):
        return {}


def _digest(fields: Mapping[str, Any], payload: bytes) -> str:
    """SHA-256 of a header without its digest, and of the payload."""
    sha256 = hashlib.sha256(json.dumps(fields).encode())
    sha256.update(payload)
    return sha256.hexdigest()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
