"""The Ray cluster that a sweep runs on: joined or started here, and what it has room for."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from masksweep.strategies.base import Invalid
from masksweep.sweeps.common import safe_path, signals
from masksweep.sweeps.launch import ray_internals
from masksweep.sweeps.launch.local_ray import closed, loopback

PACKAGES = ("strategies", "sweeps", "conf")
ADDRESSES, STORE_SHARE = 6e9, 0.3
"""Bytes of addresses that each process takes, beside this part of the free memory, which Ray's
store of objects maps."""
PAUSES = (1.0, 5.0)
"""Seconds between tries to have a server of Ray's client started on a busy head."""
PROBE_SECONDS = 5.0
"""How long an address may take to answer."""


@dataclass(frozen=True)
class Spec:
    """What a worker is and takes; jobs of unlike specs never share one."""

    num_cpus: float = 1
    num_gpus: float = 0
    memory: int | None = None
    """Bytes."""
    threads: int = 1


@dataclass(frozen=True)
class Resources:
    """What a cluster has, by Ray's names: `CPU` and `GPU` in pieces, `memory` in bytes."""

    nodes: int
    total: Mapping[str, float]
    free: Mapping[str, float]


@contextmanager
def cluster(address: str | None = None) -> Iterator[None]:
    """Be connected to Ray: as this process is already, to `address`, or to one started here.

    `address` is `host:port` or `auto` from a node of the cluster, `ray://host:port` from anywhere.
    A Ray that was started or joined here is left at the end. Raises `Invalid` if there is none at
    the address.
    """
    # a driver's own metrics: leaving a cluster whose head has died would wait for their receiver
    os.environ.setdefault("RAY_enable_metrics_collection", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with ExitStack() as stack:
        folder = stack.enter_context(closed()) if address is None else None
        started = set[psutil.Process]()
        # Ray ends its own; but the agents of one that has died would go on for up to a minute
        stack.callback(signals.kill, started)
        stack.callback(ray.shutdown)
        with _own_sigterm():
            if address is None:
                _start(folder, started)
            else:
                _join(address)
        yield


def _start(folder: str | None, started: set[psutil.Process]) -> None:
    """Start Ray on this machine, and add its processes to `started`.

    Raises:
        Invalid: It cannot be started.
    """
    _require_addresses()
    this = psutil.Process()
    before = set(this.children(recursive=True))
    try:
        with loopback():
            # without a word, ray.init would join one that runs here
            _init("local", _temp_dir=folder)
    except Exception as error:  # Ray has many
        raise Invalid(
            "launch.address", "null", f"Ray does not start here: {_said(error)}"
        ) from error
    finally:
        started.update(set(this.children(recursive=True)) - before)


def _require_addresses() -> None:
    """Raise `Invalid` if `ulimit -v` is too low: Ray then waits for itself, for minutes."""
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    needed = ADDRESSES + STORE_SHARE * psutil.virtual_memory().available
    if limit not in (resource.RLIM_INFINITY, -1) and limit < needed:
        least = f"must be at least {needed / 1024:.0f} for Ray and TensorFlow, or unlimited"
        raise Invalid("ulimit -v", limit // 1024, least)


def quiet() -> None:
    """Keep Ray's warnings off the screen; its loggers set levels of their own, again and again."""
    import ray  # noqa: F401

    for handler in logging.getLogger("ray").handlers:
        handler.setLevel(logging.ERROR)


@contextmanager
def code() -> Iterator[dict[str, list[str]]]:
    """The runtime environment that takes this code along; it holds nothing else, secrets least.

    Ray sends folders, and the packages may lie in several places. So they are copied into one
    folder of their common name, which is there until the environment has been sent.
    """
    with tempfile.TemporaryDirectory(prefix="masksweep-code-") as folder:
        package = Path(folder, "masksweep")
        for name in PACKAGES:
            spec = find_spec(f"masksweep.{name}")
            assert spec is not None
            assert spec.submodule_search_locations
            skipped = shutil.ignore_patterns("__pycache__")
            shutil.copytree(spec.submodule_search_locations[0], package / name, ignore=skipped)
        yield {"py_modules": [str(package)]}


def _init(address: str, **options: Any) -> None:
    import ray

    # a Ray client's job is set up by the cluster, which takes no folder of this machine
    if safe_path.kept() and not address.startswith("ray://"):
        options["job_config"] = ray_internals.safe_job_config()
    ray.init(
        address, include_dashboard=False, log_to_driver=False, logging_level="ERROR", **options
    )


def _join(address: str) -> None:
    from ray.exceptions import RayError

    # a Ray job brings its code already, and refuses to be told twice
    with_code = nullcontext() if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ else code()
    quiet()
    try:
        knock(address)
        with with_code as env, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what went wrong is raised too
            for pause in (*PAUSES, None):
                try:
                    _init(address, runtime_env=env)
                    break
                except ConnectionAbortedError:
                    # behind ray:// Ray starts a server for us, which on a busy head may not start
                    if pause is None:
                        raise
                    time.sleep(pause)
    except PermissionError as error:
        raise Invalid("launch.address", address, str(error)) from error
    except (ValueError, OSError, RuntimeError, RayError) as error:
        raise Invalid("launch.address", address, f"no Ray cluster there: {_said(error)}") from error


def _said(error: Exception) -> str:
    """An error in one line."""
    text = getattr(error, "strerror", None) or str(error).strip()
    return " ".join((text.splitlines()[-1] if "Traceback" in text else text).split())[:300]


def knock(address: str) -> None:
    """Raise `OSError` or `ValueError` unless a Ray that takes this process' token answers there.

    `PermissionError`, one of the former, is for the token. Ray itself asks a dead address for
    minutes and then ends the process, and repeats a wrong token for half a minute.
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or address
    local = address == "auto"
    laptop = address.startswith("ray://")
    if "://" in address and not laptop:
        raise ValueError("must be auto, host:port or ray://host:port")
    found = address.removeprefix("ray://") if laptop else ray_internals.bootstrap_address(address)
    host, _, port = (found or "").rpartition(":")
    if not host or not port.isdigit():
        reason = "must be auto, host:port or ray://host:port"
        raise ConnectionError("none runs on this machine") if local else ValueError(reason)
    socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS).close()
    if os.environ.get("RAY_USE_TLS", "0") in ("0", "false"):
        method = "RayletDriver/ClusterInfo" if laptop else "NodeInfoGcsService/CheckAlive"
        _ask(f"{host}:{port}", method, local)


def _ask(found: str, method: str, local: bool) -> None:
    """Call a method of Ray's, with the token that `ray.init` would show there."""
    import grpc  # type: ignore[import-untyped]

    if local:
        ray_internals.take_own_token()
    token = ray_internals.token_header()
    with grpc.insecure_channel(found, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            grpc.channel_ready_future(channel).result(PROBE_SECONDS)
            call = channel.unary_unary(f"/ray.rpc.{method}")
            call(b"", timeout=PROBE_SECONDS, metadata=tuple(token.items()))
        except grpc.FutureTimeoutError:
            raise ConnectionError(f"what answers at {found} is not Ray") from None
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                if token:
                    raise PermissionError("it refuses this token") from None
                reason = "it asks for a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
                raise PermissionError(f"{reason} (or keep it in ~/.ray/auth_token)") from None
            # whatever else it says to an empty call, Ray answered


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep this process' own handler of SIGTERM, which `ray.init` replaces."""
    before = signal.getsignal(signal.SIGTERM)
    ours = callable(before) and threading.current_thread() is threading.main_thread()
    try:
        yield
    except SystemExit:
        if not ours:
            raise
        # the signal came while Ray's handler, which exits, was in place
        signal.signal(signal.SIGTERM, before)
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        if ours:
            signal.signal(signal.SIGTERM, before)


def resources() -> Resources:
    """What the cluster has, and what of it is free now."""
    import ray

    nodes = sum(bool(node["Alive"]) for node in ray.nodes())
    return Resources(nodes, ray.cluster_resources(), ray.available_resources())


def slots(spec: Spec) -> int:
    """How many workers of this spec the nodes that are there take at once.

    Raises `Invalid` if none can take one. Which nodes an autoscaler could add, Ray tells nobody.
    """
    import ray

    wanted = {
        "CPU": ("num_cpus", spec.num_cpus),
        "GPU": ("num_gpus", spec.num_gpus),
        "memory": ("memory", spec.memory or 0),
    }
    asked = {r: a for r, (_, a) in wanted.items() if a}
    nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
    for resource, amount in asked.items():
        has = max((node.get(resource, 0) for node in nodes), default=0)
        if amount > has:
            allowed = f"must be at most {has:g}, what the largest node has"
            raise Invalid(f"resources.{wanted[resource][0]}", amount, allowed)
    found = sum(min(_fit(r, node.get(r, 0), a) for r, a in asked.items()) for node in nodes)
    if not found:
        raise Invalid("resources", asked, "must fit on one node, and no node has them all")
    return found


def _fit(resource: str, there: float, each: float) -> int:
    """How often a node has an amount. Ray puts a fraction of a card on one card."""
    if resource == "GPU" and each < 1:
        return int(there) * _fit("", 1, each)
    return int(there / each + 1e-9)
