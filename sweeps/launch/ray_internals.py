"""All uses of Ray's private interfaces, in one place, because another version may change them.

`tests/launch/test_ray_internals.py` tests each of them, and so shows what a new version of Ray has
changed. This file imports nothing of Masksweep.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def bootstrap_address(address: str) -> str | None:
    """Returns the `host:port` of an address. `auto` stands for a Ray that runs on this machine."""
    from ray._private.services import canonicalize_bootstrap_address

    resolved: str | None = canonicalize_bootstrap_address(address)
    return resolved


# -- tokens ----------------------------------------------------------------------------------


def take_own_token() -> None:
    """Uses the token of this user's Ray on this machine, as `ray.init` does."""
    from ray._private.authentication import authentication_token_setup

    authentication_token_setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def token_header() -> dict[str, str]:
    """Returns the HTTP header with the token that `ray.init` would send, or an empty header."""
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    loader = _token_loader()
    if not (is_token_auth_enabled() and loader.has_token(ignore_auth_mode=True)):
        return {}
    return dict(loader.get_token_for_http_header())


def read_token() -> None:
    """Reads the token. Raises Ray's `AuthenticationError` if it cannot be read."""
    _token_loader().has_token(ignore_auth_mode=True)


def forget_token() -> None:
    """Makes Ray read the token and its settings again. Ray caches them at the first read."""
    from ray._raylet import Config  # type: ignore[attr-defined]

    Config.initialize("")
    _token_loader().reset_cache()


def _token_loader() -> Any:
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    return AuthenticationTokenLoader.instance()


# -- starting Ray ----------------------------------------------------------------------------


@contextmanager
def loopback_ports() -> Iterator[None]:
    """While entered, a Ray that starts here listens on 127.0.0.1, its agent on a free port.

    By default the agent of a node has a fixed port. If two clusters on a machine use this port, the
    second one has no agent, and so accepts no jobs. `ray.init` has no option for the port.
    """
    from ray._private import parameter, ray_constants

    enabled, original = ray_constants.ENABLE_RAY_CLUSTER, parameter.RayParams
    ray_constants.ENABLE_RAY_CLUSTER = False
    parameter.RayParams = functools.partial(original, dashboard_agent_listen_port=0)
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = enabled
        parameter.RayParams = original


def safe_job_config() -> Any:
    """Returns a Ray job config that adds no folder of the driver to the workers' import path.

    `ray.init` puts the current folder and the script's folder first on that path. It has no option
    to prevent this.
    """
    from ray.job_config import JobConfig

    class SafeJobConfig(JobConfig):  # type: ignore[misc]
        @property
        def _py_driver_sys_path(self) -> list[str]:
            return []  # a new list each time, so that what Ray appends is lost

        @_py_driver_sys_path.setter
        def _py_driver_sys_path(self, folders: list[str]) -> None:
            pass

    return SafeJobConfig()


# -- running processes -----------------------------------------------------------------------


def node() -> Any:
    """Returns the Ray node of this process, or None if the process is not connected."""
    from ray._private.worker import _global_node

    return _global_node


def dead_processes(node: Any) -> list[str]:
    """Returns which of `gcs_server` and `raylet` have died, of those that this process started."""
    from ray._private import ray_constants

    kinds = (ray_constants.PROCESS_TYPE_GCS_SERVER, ray_constants.PROCESS_TYPE_RAYLET)
    return sorted({kind for kind, _ in node.dead_processes() if kind in kinds})
