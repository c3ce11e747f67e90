"""Settings for a local Ray that other users and other machines can neither reach nor read.

By default Ray listens on every address of the machine, makes its folder writable for all users, and
keeps one token for all clusters of a user, in a file in the user's home. Here each Ray gets a new
token, which exists only in the environment of this process and of its child processes. So no file
must be protected, no home is needed, and two sweeps do not share a token. All servers of this Ray
use free ports, so that two sweeps do not collide.
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

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.launch import ray_internals

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Makes Ray listen on 127.0.0.1 only, which is its default on systems other than Linux."""


PORTS = {"AUTOSCALER_METRIC_PORT": "0", "DASHBOARD_METRIC_PORT": "0"}
"""By default these servers have the same port in every cluster. 0 stands for any free port."""
FOLDER_PREFIX = "ray-"
MAX_FOLDER_BYTES = 43
"""Longest path of Ray's folder, in bytes. Ray has sockets below it, and Linux limits the whole path
of a socket to 107 bytes. The rest is `session_` with date, time and process id, and then
`sockets/plasma_store`."""
USABLE_PATH = re.compile(r"[\w/.+-]+", re.ASCII)
"""A path that Ray can use. Ray writes it into command lines, which it splits at spaces."""
SHORT_FOLDERS = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))
"""Folders with a short path, for a link to a folder with a long one."""


@contextmanager
def private_ray() -> Iterator[str]:
    """Yields a private folder for a Ray that asks for a token while the context is entered.

    The user's settings in the environment are respected: RAY_AUTH_MODE, RAY_AUTH_TOKEN,
    RAY_AUTH_TOKEN_PATH, and RAY_TMPDIR.

    Raises:
        Invalid: The token cannot be read, or Ray cannot use the temporary folder.
    """
    with ray_folder() as folder, _token():
        yield folder


@contextmanager
def ray_folder() -> Iterator[str]:
    """Yields a new folder for Ray's files, below a folder that only this user may enter.

    The folder is in RAY_TMPDIR, or else in the system's temporary folder. If that path is too long
    for sockets, as under some job schedulers, Ray gets a link with a short path.

    Raises:
        Invalid: The folder cannot be written, or its path is too long and no link can be made.
    """
    key = "RAY_TMPDIR" if os.environ.get("RAY_TMPDIR") else "TMPDIR"
    parent = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    with ExitStack() as stack:
        try:
            private = stack.enter_context(_private_folder(Path(parent).absolute()))
        except OSError as error:
            allowed = f"must be a folder that can be written: {error.strerror}"
            raise Invalid(key, parent, allowed) from error
        folder = Path(private, "r")  # Ray makes its own folder writable for all
        if len(os.fsencode(folder)) > MAX_FOLDER_BYTES or not USABLE_PATH.fullmatch(str(folder)):
            folder.mkdir()
            folder = _short_link(stack, key, parent, folder)
        yield str(folder)


def _short_link(stack: ExitStack, key: str, parent: str, folder: Path) -> Path:
    """Returns a link with a short path to the folder. The link is removed with the stack.

    Raises:
        Invalid: No link can be made. `key` and `parent` are the setting that is to blame.
    """
    for short in SHORT_FOLDERS:
        try:
            if short.stat().st_mode & (stat.S_ISVTX | stat.S_IWOTH) == stat.S_IWOTH:
                continue  # other users could replace this folder
            link = Path(stack.enter_context(_private_folder(short)), "r")
            link.symlink_to(folder)
        except OSError:
            continue
        return link
    longest = MAX_FOLDER_BYTES - len(f"/{FOLDER_PREFIX}xxxxxxxx/r")
    allowed = f"is no path for Ray's sockets; set RAY_TMPDIR to one of at most {longest} letters"
    raise Invalid(key, parent, allowed)


def _private_folder(parent: Path) -> tempfile.TemporaryDirectory[str]:
    """Makes a new temporary folder that only this user may enter."""
    return tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX, dir=parent, ignore_cleanup_errors=True)


@contextmanager
def loopback() -> Iterator[None]:
    """While entered, a Ray that starts here uses free ports, reachable from this machine only."""
    with _environment({**LOOPBACK, **PORTS}), ray_internals.loopback_ports():
        yield


@contextmanager
def _token() -> Iterator[None]:
    """While entered, Ray uses the user's token, or else a new one."""
    mode = os.environ.get(MODE) or "token"
    if mode.lower() != "token":
        yield  # not even read: Ray would then send the token all the same, and fail
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
        ray_internals.forget_token()  # a cluster that is joined later must not get this token


def _require_token() -> None:
    from ray.exceptions import AuthenticationError

    try:
        ray_internals.read_token()
    except AuthenticationError as error:
        path = os.environ.get(TOKEN_PATH)
        raise Invalid(TOKEN_PATH, path, "must be a file that holds a token") from error


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables while the context is entered."""
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
