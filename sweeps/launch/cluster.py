"""Joins or starts the Ray cluster that a sweep runs on, and says how many workers it can hold."""

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

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.common import safe_path, signals
from masksweep.sweeps.launch import ray_internals
from masksweep.sweeps.launch.local_ray import loopback, private_ray

PACKAGES = ("strategies", "sweeps", "conf")
SENT_PLUGINS = "sent_plugins"
"""Folder beside the packages that has the plugins of a submitted sweep."""
ADDRESS_SPACE_BYTES, OBJECT_STORE_SHARE = 6e9, 0.3
"""Address space that Ray needs: `ADDRESS_SPACE_BYTES` for each process, and in addition the
fraction `OBJECT_STORE_SHARE` of the available memory, which Ray's object store maps."""
JOIN_PAUSES_SECONDS = (1.0, 5.0)
"""Seconds between the tries to join through `ray://`. A busy head may fail to start the server
process that a Ray client needs."""
PROBE_SECONDS = 5.0
"""Seconds that an address may take to answer."""


@dataclass(frozen=True)
class Spec:
    """The resources of one worker. Jobs with different specs never share a worker."""

    num_cpus: float = 1
    num_gpus: float = 0
    memory: int | None = None
    """Bytes; None for no limit."""
    threads: int = 1
    """TensorFlow's threads within one operation."""


@dataclass(frozen=True)
class Resources:
    """Resources of a cluster by Ray's names. `CPU` and `GPU` are counts, `memory` is in bytes."""

    nodes: int
    total: Mapping[str, float]
    free: Mapping[str, float]


@contextmanager
def cluster(address: str | None = None) -> Iterator[None]:
    """Connects this process to Ray while the context is entered.

    An existing connection is used and stays open. Otherwise a cluster is joined or started, and
    left or stopped at the end.

    Args:
        address: `host:port` or `auto` on a node of the cluster, or `ray://host:port` from any
            machine. None starts Ray on this machine.

    Raises:
        Invalid: Ray cannot be started, or no Ray cluster at the address accepts this process.
    """
    # no metrics of the driver: when the head has died, leaving would wait for their receiver
    os.environ.setdefault("RAY_enable_metrics_collection", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with ExitStack() as stack:
        folder = stack.enter_context(private_ray()) if address is None else None
        started = set[psutil.Process]()
        # Ray ends its own processes; but if Ray has died, its agents run on for up to a minute
        stack.callback(signals.kill, started)
        stack.callback(ray.shutdown)
        with _keep_sigterm_handler():
            if address is None:
                _start(folder, started)
            else:
                _join(address)
        yield


def _start(folder: str | None, started: set[psutil.Process]) -> None:
    """Starts Ray on this machine, and adds its processes to `started`.

    Raises:
        Invalid: Ray cannot be started.
    """
    _require_addresses()
    this = psutil.Process()
    children_before = set(this.children(recursive=True))
    try:
        with loopback():
            # without "local", ray.init would join a Ray that already runs on this machine
            _init("local", _temp_dir=folder)
    except Exception as error:  # Ray raises many types
        raise Invalid(
            "launch.address", "null", f"Ray does not start here: {_one_line(error)}"
        ) from error
    finally:
        started.update(set(this.children(recursive=True)) - children_before)


def _require_addresses() -> None:
    """Raises `Invalid` if `ulimit -v` is too low. Ray would then hang for minutes."""
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    needed = ADDRESS_SPACE_BYTES + OBJECT_STORE_SHARE * psutil.virtual_memory().available
    if limit not in (resource.RLIM_INFINITY, -1) and limit < needed:
        least = f"must be at least {needed / 1024:.0f} for Ray and TensorFlow, or unlimited"
        raise Invalid("ulimit -v", limit // 1024, least)


def hide_warnings() -> None:
    """Hides Ray's warnings. The handlers are changed, because Ray resets the loggers' levels."""
    import ray  # noqa: F401

    for handler in logging.getLogger("ray").handlers:
        handler.setLevel(logging.ERROR)


@contextmanager
def code_environment(plugin_files: Mapping[str, bytes] = {}) -> Iterator[dict[str, list[str]]]:
    """Yields a Ray runtime environment that sends the code of Masksweep to the cluster.

    The environment holds nothing else, in particular no variables that may be secret. Ray sends
    one folder, but the packages may lie in several places. So they are copied into a temporary
    folder `masksweep`, which is removed when the context ends.

    Args:
        plugin_files: Content of the files of plugins, by path. They are sent as the subfolder
            `SENT_PLUGINS`, from which nothing is imported unless a command line names it.
    """
    with tempfile.TemporaryDirectory(prefix="masksweep-code-") as folder:
        package = Path(folder, "masksweep")
        for name in PACKAGES:
            spec = find_spec(f"masksweep.{name}")
            assert spec is not None
            assert spec.submodule_search_locations
            skipped = shutil.ignore_patterns("__pycache__")
            shutil.copytree(spec.submodule_search_locations[0], package / name, ignore=skipped)
        for path, content in plugin_files.items():
            file = package / SENT_PLUGINS / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        yield {"py_modules": [str(package)]}


def _init(address: str, **options: Any) -> None:
    import ray

    # with ray:// the cluster sets up the job, and uses no folder of this machine
    if safe_path.is_current_folder_removed() and not address.startswith("ray://"):
        options["job_config"] = ray_internals.safe_job_config()
    ray.init(
        address, include_dashboard=False, log_to_driver=False, logging_level="ERROR", **options
    )


def _join(address: str) -> None:
    """Connects to the cluster at the address.

    Raises:
        Invalid: No Ray cluster answers there, or it refuses this process.
    """
    from ray.exceptions import RayError

    # a Ray job has brought the code already, and Ray refuses to have it set twice
    with_code = nullcontext() if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ else code_environment()
    hide_warnings()
    try:
        check_address(address)
        with with_code as env, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # errors are raised as well
            for pause in (*JOIN_PAUSES_SECONDS, None):
                try:
                    _init(address, runtime_env=env)
                    break
                except ConnectionAbortedError:
                    # for ray:// the head starts a server process, which may fail when it is busy
                    if pause is None:
                        raise
                    time.sleep(pause)
    except PermissionError as error:
        raise Invalid("launch.address", address, str(error)) from error
    except (ValueError, OSError, RuntimeError, RayError) as error:
        reason = f"no Ray cluster there: {_one_line(error)}"
        raise Invalid("launch.address", address, reason) from error


def _one_line(error: Exception) -> str:
    """Returns the message of an error on one line, cut to 300 characters."""
    text = getattr(error, "strerror", None) or str(error).strip()
    return " ".join((text.splitlines()[-1] if "Traceback" in text else text).split())[:300]


def check_address(address: str) -> None:
    """Checks that Ray answers at an address, and that it accepts this process's token.

    `ray.init` alone would try a dead address for minutes and then end the process, and would
    repeat a wrong token for half a minute. With RAY_USE_TLS only the connection is tested.

    Args:
        address: `host:port`, `auto` or `ray://host:port`, as in `cluster`.

    Raises:
        ValueError: The address has another form.
        PermissionError: Ray asks for a token, or refuses this one. It is an `OSError` too.
        OSError: Nothing answers there, or something that is not Ray.
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or address
    is_local = address == "auto"
    is_client = address.startswith("ray://")
    if "://" in address and not is_client:
        raise ValueError("must be auto, host:port or ray://host:port")
    resolved = (
        address.removeprefix("ray://") if is_client else ray_internals.bootstrap_address(address)
    )
    host, _, port = (resolved or "").rpartition(":")
    if not host or not port.isdigit():
        reason = "must be auto, host:port or ray://host:port"
        raise ConnectionError("none runs on this machine") if is_local else ValueError(reason)
    socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS).close()
    if os.environ.get("RAY_USE_TLS", "0") in ("0", "false"):
        method = "RayletDriver/ClusterInfo" if is_client else "NodeInfoGcsService/CheckAlive"
        _call_grpc(f"{host}:{port}", method, is_local)


def _call_grpc(target: str, method: str, is_local: bool) -> None:
    """Calls a gRPC method of Ray with the token that `ray.init` would send.

    Args:
        target: `host:port` of the server.
        method: Service and method, such as `NodeInfoGcsService/CheckAlive`.
        is_local: Whether to use the token that this user has for a Ray of this machine.

    Raises:
        PermissionError: Ray asks for a token, or refuses this one.
        ConnectionError: The server is not Ray.
    """
    import grpc  # type: ignore[import-untyped]

    if is_local:
        ray_internals.take_own_token()
    token = ray_internals.token_header()
    with grpc.insecure_channel(target, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            grpc.channel_ready_future(channel).result(PROBE_SECONDS)
            call = channel.unary_unary(f"/ray.rpc.{method}")
            call(b"", timeout=PROBE_SECONDS, metadata=tuple(token.items()))
        except grpc.FutureTimeoutError:
            raise ConnectionError(f"what answers at {target} is not Ray") from None
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                if token:
                    raise PermissionError("it refuses this token") from None
                reason = "it asks for a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
                raise PermissionError(f"{reason} (or keep it in ~/.ray/auth_token)") from None
            # any other error is an answer of Ray: the call had an empty message


@contextmanager
def _keep_sigterm_handler() -> Iterator[None]:
    """Restores this process's own SIGTERM handler, which `ray.init` replaces."""
    own_handler = signal.getsignal(signal.SIGTERM)
    can_restore = callable(own_handler) and threading.current_thread() is threading.main_thread()
    try:
        yield
    except SystemExit:
        if not can_restore:
            raise
        # SIGTERM came while Ray's handler was set, which exits: send it to the own handler
        signal.signal(signal.SIGTERM, own_handler)
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        if can_restore:
            signal.signal(signal.SIGTERM, own_handler)


def resources() -> Resources:
    """Returns the resources of all living nodes of the cluster: in total, and free now."""
    import ray

    nodes = sum(bool(node["Alive"]) for node in ray.nodes())
    return Resources(nodes, ray.cluster_resources(), ray.available_resources())


def worker_slots(spec: Spec) -> int:
    """Returns how many workers of this spec fit on the present nodes at the same time.

    Other workers are not subtracted. Nodes that an autoscaler could add do not count, because Ray
    does not say which they are.

    Raises:
        Invalid: No node can hold a worker of this spec.
    """
    import ray

    requests = {
        "CPU": ("num_cpus", spec.num_cpus),
        "GPU": ("num_gpus", spec.num_gpus),
        "memory": ("memory", spec.memory or 0),
    }
    amounts = {r: a for r, (_, a) in requests.items() if a}
    nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
    for resource, amount in amounts.items():
        largest = max((node.get(resource, 0) for node in nodes), default=0)
        if amount > largest:
            allowed = f"must be at most {largest:g}, what the largest node has"
            raise Invalid(f"resources.{requests[resource][0]}", amount, allowed)
    workers = sum(min(_fit(r, node.get(r, 0), a) for r, a in amounts.items()) for node in nodes)
    if not workers:
        raise Invalid("resources", amounts, "must fit on one node, and no node has them all")
    return workers


def _fit(resource: str, available: float, amount: float) -> int:
    """Returns how often an amount fits. Ray puts a fraction of a GPU on one GPU."""
    if resource == "GPU" and amount < 1:
        return int(available) * _fit("", 1, amount)
    return int(available / amount + 1e-9)
