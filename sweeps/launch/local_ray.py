"""A Ray of this process' own: no other user may talk to it, no other machine, or see its files.

Ray by itself listens on every address of the machine, makes its folder writable for all, and keeps
a token in the user's home, which all may read and which is every cluster's of that user. Here the
token is a new one, which lives in the environment of this process and of those that it starts,
and ends with them: no file to guard, no home to need, and two sweeps do not share it. For the same
reason it takes free ports for all that listens.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from masksweep.strategies.base import Invalid
from masksweep.sweeps.launch import ray_internals

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Has Ray listen on 127.0.0.1 alone, as it does by itself on other systems than Linux."""


PORTS = {"AUTOSCALER_METRIC_PORT": "0", "DASHBOARD_METRIC_PORT": "0"}
"""Ray gives these servers the same port in every cluster of a machine. 0 is any free one."""
PREFIX = "ray-"
SOCKET_ROOM = 43
"""Bytes of the path of Ray's folder. Below it are sockets, whose whole path Linux limits to 107
bytes: `session_`, date, time and process id, then `sockets/plasma_store`."""
PLAIN = re.compile(r"[\w/.+-]+", re.ASCII)
"""Ray passes its folder on in command lines that it splits at blanks."""
SHORT = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))


@contextmanager
def closed() -> Iterator[str]:
    """While it lasts, a Ray that starts here asks for a token; the folder that it is to live in.

    What the user said in the environment holds: RAY_AUTH_MODE, RAY_AUTH_TOKEN,
    RAY_AUTH_TOKEN_PATH, and RAY_TMPDIR. Raises `Invalid` for a token that cannot be read, or a
    temporary folder that Ray cannot live in.
    """
    with ray_folder() as folder, _token():
        yield folder


@contextmanager
def ray_folder() -> Iterator[str]:
    """A new folder for Ray's files, below one that only this user may enter.

    It is in RAY_TMPDIR, or else in the system's temporary folder. Where that has a path that is
    too long for sockets, as schedulers give, the files are there and Ray uses a link to them.

    Raises:
        Invalid: The folder cannot be written, or its path is too long and no link can be made.
    """
    key = "RAY_TMPDIR" if os.environ.get("RAY_TMPDIR") else "TMPDIR"
    parent = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    with ExitStack() as stack:
        try:
            own = stack.enter_context(_private(Path(parent).absolute()))
        except OSError as error:
            allowed = f"must be a folder that can be written: {error.strerror}"
            raise Invalid(key, parent, allowed) from error
        folder = Path(own, "r")  # Ray lets everybody write to the one that it is given
        if len(os.fsencode(folder)) > SOCKET_ROOM or not PLAIN.fullmatch(str(folder)):
            folder.mkdir()
            folder = _link(stack, key, parent, folder)
        yield str(folder)


def _link(stack: ExitStack, key: str, parent: str, folder: Path) -> Path:
    """A link with a short path to the folder; it is removed with the stack."""
    for short in SHORT:
        try:
            if short.stat().st_mode & (stat.S_ISVTX | stat.S_IWOTH) == stat.S_IWOTH:
                continue  # others could put another folder in the place of ours
            link = Path(stack.enter_context(_private(short)), "r")
            link.symlink_to(folder)
        except OSError:
            continue
        return link
    longest = SOCKET_ROOM - len(f"/{PREFIX}xxxxxxxx/r")
    allowed = f"is no path for Ray's sockets; set RAY_TMPDIR to one of at most {longest} letters"
    raise Invalid(key, parent, allowed)


def _private(parent: Path) -> tempfile.TemporaryDirectory[str]:
    """A new folder that nobody but this user may enter."""
    return tempfile.TemporaryDirectory(prefix=PREFIX, dir=parent, ignore_cleanup_errors=True)


@contextmanager
def loopback() -> Iterator[None]:
    """A Ray that starts here meanwhile is reached from this machine alone, on free ports."""
    with _environment({**LOOPBACK, **PORTS}), ray_internals.own_ports():
        yield


@contextmanager
def _token() -> Iterator[None]:
    mode = os.environ.get(MODE) or "token"
    if mode.lower() != "token":
        yield  # a token that it has looked at once Ray would show all the same, and fail
        return
    values = {MODE: mode}
    if not (os.environ.get(TOKEN) or os.environ.get(TOKEN_PATH)):
        values[TOKEN] = secrets.token_hex(32)
    try:
        with _environment(values):
            ray_internals.forget_token()
            _require_token()
            yield
    finally:
        ray_internals.forget_token()  # another cluster, joined later, is not to be shown this token


def _require_token() -> None:
    from ray.exceptions import AuthenticationError

    try:
        ray_internals.read_token()
    except AuthenticationError as error:
        where = os.environ.get(TOKEN_PATH)
        raise Invalid(TOKEN_PATH, where, "must be a file that holds a token") from error


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
