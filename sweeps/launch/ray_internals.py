"""What is used of Ray's private parts, in one place: another version may have them otherwise.

`tests/launch/test_ray_internals.py` tries each of them, so that it says what a new version of Ray
has changed. It may import nothing of Masksweep.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def bootstrap_address(address: str) -> str | None:
    """The `host:port` of an address, which for `auto` is that of a Ray of this machine."""
    from ray._private.services import canonicalize_bootstrap_address

    found: str | None = canonicalize_bootstrap_address(address)
    return found


# -- tokens ----------------------------------------------------------------------------------


def take_own_token() -> None:
    """Show the token of a Ray that this user started, as `ray.init` does on the same machine."""
    from ray._private.authentication import authentication_token_setup

    authentication_token_setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def token_header() -> dict[str, str]:
    """The HTTP header with the token that `ray.init` would show; empty if it would show none."""
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    loader = _token_loader()
    if not (is_token_auth_enabled() and loader.has_token(ignore_auth_mode=True)):
        return {}
    return dict(loader.get_token_for_http_header())


def read_token() -> None:
    """Read the token. Raises Ray's `AuthenticationError` if it cannot be read."""
    _token_loader().has_token(ignore_auth_mode=True)


def forget_token() -> None:
    """Let Ray read the token's settings again: it keeps what it has read first."""
    from ray._raylet import Config  # type: ignore[attr-defined]

    Config.initialize("")
    _token_loader().reset_cache()


def _token_loader() -> Any:
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    return AuthenticationTokenLoader.instance()


# -- how Ray starts --------------------------------------------------------------------------


@contextmanager
def own_ports() -> Iterator[None]:
    """A Ray that starts here meanwhile listens on 127.0.0.1, its agent on any free port.

    The agent of a node listens on a fixed port by default. If two clusters of a machine want it,
    the second one has no agent, and so takes no jobs. No option of `ray.init` sets it.
    """
    from ray._private import parameter, ray_constants

    before, params = ray_constants.ENABLE_RAY_CLUSTER, parameter.RayParams
    ray_constants.ENABLE_RAY_CLUSTER = False
    parameter.RayParams = functools.partial(params, dashboard_agent_listen_port=0)
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        parameter.RayParams = params


def safe_job_config() -> Any:
    """A Ray job's settings that put no folder of the driver on the import path of the workers.

    `ray.init` adds the current folder and the script's there, first of all, and has no option
    against it.
    """
    from ray.job_config import JobConfig

    class SafeJobConfig(JobConfig):  # type: ignore[misc]
        @property
        def _py_driver_sys_path(self) -> list[str]:
            return []  # a new one each time, so nothing that is added stays

        @_py_driver_sys_path.setter
        def _py_driver_sys_path(self, folders: list[str]) -> None:
            pass

    return SafeJobConfig()


# -- what runs -------------------------------------------------------------------------------


def node() -> Any:
    """The node that this process is connected through; None if it is not, or not any more."""
    from ray._private.worker import _global_node

    return _global_node


def dead_processes(node: Any) -> list[str]:
    """Which of the node's `gcs_server` and `raylet` this process started and have died."""
    from ray._private import ray_constants

    kinds = (ray_constants.PROCESS_TYPE_GCS_SERVER, ray_constants.PROCESS_TYPE_RAYLET)
    return sorted({kind for kind, _ in node.dead_processes() if kind in kinds})
