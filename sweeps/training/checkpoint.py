"""Checkpoints of a trial, in a folder or under an fsspec URI. Loads no TensorFlow.

One file each: a line of JSON that says whose it is, with the SHA-256 of all that is in the file;
then plain arrays as `.npz`. Nothing in it can run.
"""

from __future__ import annotations

import hashlib
import io
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

from masksweep.strategies.base import Array, Invalid
from masksweep.sweeps.common.provenance import code_version
from masksweep.sweeps.common.redact import shown
from masksweep.sweeps.common.storage import Folder

FORMAT = 1
NAME = "{:012d}.checkpoint"
NAMED = re.compile(r"\d{12}\.checkpoint")
KEPT = 2
SHARE = 0.05
"""Part of a trial's time that checkpoints at the ends of epochs may take."""
# Throughout: file systems have exceptions of their own, so `Exception` is what is caught.


@dataclass(frozen=True)
class State:
    """A trial on its way, after `steps` steps."""

    steps: int
    position: Mapping[str, Any]
    """Plain values."""
    arrays: Sequence[Array]


class Checkpoints:
    """The checkpoints of one trial. `every_s`: seconds between two of them within an epoch."""

    def __init__(self, folder: str, trial_id: str, every_s: float) -> None:
        self._folder, self._trial, self._every_s = Folder(folder, trial_id), trial_id, every_s
        self._start, self._spent, self._failed = "", 0.0, False
        self._kept: list[str] = []

    def resume(self, start: str) -> tuple[State | None, str]:
        """The newest usable checkpoint, and what a person should know. The clock starts here.

        `start` stands for what the training starts from, beyond the trial's id. What is damaged or
        foreign is passed over. Raises nothing: without a checkpoint a trial starts anew.
        """
        self._start, found = start, None
        names, notes = [], []
        try:
            names = [n for n in self._folder.names() if NAMED.fullmatch(n)]
        except Exception as error:
            notes.append(f"checkpoints: {_line(error)}")
        for name in sorted(names, reverse=True):
            try:
                found = self._read(name)
                self._kept = [name]
                break
            except Exception as error:  # there may be one before
                notes.append(f"checkpoint of step {_steps(name)}: {_line(error)}")
        if found:
            notes.append(f"resumed from step {found.steps}")
        elif notes:
            notes.append("started anew")
        self._began = self._last = time.monotonic()
        return found, "; ".join(notes)

    def due(self, epoch_ended: bool, among: int = 1) -> bool:
        """Whether to save now, at the end of a chunk of steps.

        `every_s` after the last one in any case. At the end of an epoch also before, unless saving
        has taken more than 5 % of the time since the training began: epochs of milliseconds would
        be spent on saving. `among` trials save at once.
        """
        now = time.monotonic()
        cheap = among * self._spent <= SHARE * (now - self._began)
        return now - self._last >= self._every_s or (epoch_ended and cheap)

    def save(self, state: State) -> str:
        """Keep the state, and the one before it; older ones go.

        Where it cannot be written, the reason is returned the first time, for a person to know.
        """
        tic = time.monotonic()
        try:
            self._write(state)
            return ""
        except Exception as error:
            failed, self._failed = self._failed, True
            return "" if failed else f"no checkpoint at step {state.steps}: {_line(error)}"
        finally:
            self._last = time.monotonic()
            self._spent += self._last - tic

    def _write(self, state: State) -> None:
        buffer, text = io.BytesIO(), json.dumps(state.position).encode()
        np.savez(buffer, *state.arrays, position=np.frombuffer(text, np.uint8))
        payload, told = buffer.getvalue(), self._told(state.steps)
        header = json.dumps({**told, "sha256": _digest(told, payload)})
        name = NAME.format(state.steps)
        self._folder.write(name, header.encode() + b"\n" + payload)
        self._kept = [*self._kept, name][-KEPT:]
        with suppress(Exception):  # what cannot be removed does no harm
            for other in set(self._folder.names()) - set(self._kept):
                self._folder.remove(other)

    def _read(self, name: str) -> State:
        header, _, payload = self._folder.read(name).partition(b"\n")
        own, told = self._told(_steps(name)), _parsed(header)
        if told.pop("sha256", None) != _digest(told, payload):
            raise ValueError("damaged")
        for key, value in own.items():
            if told.get(key) != value:
                raise ValueError(f"of another {key}")
        with np.load(io.BytesIO(payload), allow_pickle=False) as file:
            arrays = [file[f"arr_{i}"] for i in range(len(file.files) - 1)]
            position = json.loads(file["position"].tobytes())
        return State(_steps(name), position, arrays)

    def _told(self, steps: int) -> dict[str, Any]:
        """What a header says beside the digest."""
        code = code_version()
        found = {"format": FORMAT, "trial": self._trial, "code": code, "start": self._start}
        return {**found, "step": steps}


def clear(folder: str, trial_id: str) -> None:
    """Remove a trial's checkpoints, if there are any and they can be reached."""
    with suppress(Exception):  # what is left over does no harm
        Folder(folder, trial_id).remove_all()


def check(folder: str) -> None:
    """Raise `Invalid` (key `checkpoint.path`) unless files can be written there.

    A folder of this machine that is not there yet is not made.
    """
    place, probe = Folder(_there(folder)), f"probe-{uuid.uuid4().hex}"
    try:
        place.write(probe, b"probe")
        place.remove(probe)
    except ImportError as error:
        allowed = f"needs a package: {_line(error)}"
        raise Invalid("checkpoint.path", shown(folder), allowed) from error
    except Exception as error:
        allowed = f"cannot be written: {_line(error)}"
        raise Invalid("checkpoint.path", shown(folder), allowed) from error


def _there(folder: str) -> str:
    """The folder, or the nearest one above it that is there. A URI stays as it is."""
    if "://" in folder:
        return folder
    path = Path(folder).absolute()
    return str(next(p for p in (path, *path.parents) if p.exists()))


def _steps(name: str) -> int:
    return int(name.partition(".")[0])


def _parsed(header: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(header))
    except (ValueError, TypeError):
        return {}


def _digest(told: Mapping[str, Any], payload: bytes) -> str:
    """SHA-256 of a header without its digest, and of the payload."""
    found = hashlib.sha256(json.dumps(told).encode())
    found.update(payload)
    return found.hexdigest()


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
