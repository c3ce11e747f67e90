"""A Ray of this process' own: no other user may talk to it, no other machine, or see its files.

Ray by itself listens on every address of the machine, makes its folder writable for all, and keeps
a token in the user's home, which all may read and which is every cluster's of that user. Here the
token is a new one, which lives in the environment of this process and of those that it starts,
and ends with them: no file to guard, no home to need, and two sweeps do not share it.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from strategies.base import Invalid

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Has Ray listen on 127.0.0.1 alone, as it does by itself on other systems than Linux."""


@contextmanager
def closed() -> Iterator[str]:
    """While it lasts, a Ray that starts here asks for a token; the folder that it is to live in.

    What the user said in the environment holds: RAY_AUTH_MODE, RAY_AUTH_TOKEN,
    RAY_AUTH_TOKEN_PATH, and RAY_TMPDIR. Raises `Invalid` for a token that cannot be read.
    """
    # made for its owner alone; names are short, for the paths of sockets
    folder = tempfile.TemporaryDirectory(
        prefix="ray-", dir=os.environ.get("RAY_TMPDIR") or None, ignore_cleanup_errors=True
    )
    with folder as made, _token():
        yield f"{made}/r"  # Ray opens the one that it is given to all


@contextmanager
def loopback() -> Iterator[None]:
    """Ray that starts here meanwhile is reached from this machine alone."""
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    with _environment(LOOPBACK):  # which Ray's processes read; this one has read it
        ray_constants.ENABLE_RAY_CLUSTER = False
        try:
            yield
        finally:
            ray_constants.ENABLE_RAY_CLUSTER = before


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
            _read_again()
            _require_token()
            yield
    finally:
        _read_again()  # another cluster, joined later, is not to be shown this token


def _read_again() -> None:
    """Have Ray look at the environment anew: it keeps what it saw first."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _require_token() -> None:
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]
    from ray.exceptions import AuthenticationError

    try:
        AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True)
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
