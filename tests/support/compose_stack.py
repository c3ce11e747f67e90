"""Runs `docker/compose.yaml` without a container engine, with its services as local processes.

Like a container, each service has its own process, mount and network namespaces. It finds its peers
by name on the networks that they share. Commands, environments, health checks, start order, grace
periods and published ports come from the file as Compose reads it, and the image's settings from
the Dockerfile. PostgreSQL and the object store, whose images are not built here, have stand-ins.
Namespaces need root. Files and users are those of this machine.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import psutil

from tests.support.docker_files import DOCKER, composed, in_the_image, seconds
from tests.support.extras import missing, module
from tests.support.port_forward import forwarded
from tests.support.servers import postgres_binaries

PATIENCE_S = 180.0


@dataclass
class Service:
    """One service of the file, run as a process in its own namespaces."""

    name: str
    spec: Mapping[str, Any]
    folder: Path
    addresses: Mapping[str, str]
    """IP address by network."""
    netns: str
    stop_signal: ClassVar = signal.SIGTERM
    """The image's stop signal."""
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def command(self) -> list[str]:
        return [a.replace("/etc/masksweep", str(DOCKER / "image")) for a in self.spec["command"]]

    @property
    def check(self) -> list[str] | None:
        test = self.spec.get("healthcheck", {}).get("test")
        image_check = in_the_image("HEALTHCHECK").partition("CMD ")[2]
        return test[1:] if test else json.loads(image_check)

    @property
    def env(self) -> dict[str, str]:
        """The service's environment, which inherits nothing from this process but PATH."""
        variables = {k: str(v) for k, v in self.spec.get("environment", {}).items()}
        ini = "MLFLOW_AUTH_CONFIG_PATH"
        if ini in variables:
            variables[ini] = variables[ini].replace("/etc/masksweep", str(DOCKER / "image"))
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        home, tmp = self.folder / "home", self.folder / "tmp"
        home.mkdir(exist_ok=True)
        tmp.mkdir(exist_ok=True)
        image = dict(word.split("=", 1) for word in in_the_image("ENV").split())
        # Ray's sockets need short paths
        base = {"PATH": path, "HOME": str(home), "TMPDIR": str(tmp), "RAY_TMPDIR": str(tmp)}
        return image | base | variables

    def prepare(self) -> None:
        """Does what the image does before it starts the command."""

    def start(self) -> None:
        if self.process and self.process.poll() is None:
            raise RuntimeError(f"{self.name} runs already")
        self.prepare()
        # replace resolv.conf too: asking an unreachable name server takes seconds
        mounts = ("hosts", "resolv.conf")
        script = " && ".join(f'mount --bind "$0/{file}" /etc/{file}' for file in mounts)
        script += ' && exec "$@"'
        prefix = ["ip", "netns", "exec", self.netns, "unshare", "--mount", "--pid", "--fork"]
        prefix += ["--kill-child", "--mount-proc", "sh", "-c", script, str(self.folder)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*prefix, *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self.env,
                start_new_session=True,
            )

    @property
    def init(self) -> psutil.Process | None:
        """Process 1 of the service's namespace; None if it does not run."""
        assert self.process
        with suppress(psutil.NoSuchProcess):
            return next(iter(psutil.Process(self.process.pid).children()), None)
        return None

    def ran(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command in the service's namespaces."""
        init = self.init
        if init is None:
            return subprocess.CompletedProcess(command, 1, "", f"{self.name} does not run")
        prefix = [
            "nsenter",
            f"--target={init.pid}",
            "--mount",
            "--net",
            "--pid",
            f"--wd={self.folder}",
        ]
        return subprocess.run(
            [*prefix, *command], env=self.env, capture_output=True, text=True, check=False
        )

    def healthy(self) -> bool:
        return self.ran(*self.check).returncode == 0

    def kill(self) -> None:
        """Kills all processes of the service at once, as when a machine fails."""
        if self.process:
            self.process.kill()
            self.process.wait()

    def stop(self) -> bool:
        """Stops the service as a container engine does. Returns whether it ended in time."""
        init = self.init if self.process else None
        ended = True
        if init:
            with suppress(psutil.NoSuchProcess):
                init.send_signal(self.stop_signal)
            try:
                init.wait(seconds(self.spec.get("stop_grace_period", "10s")))
            except psutil.TimeoutExpired:
                ended = False
        self.kill()
        return ended


class PostgresImage(Service):
    """Stand-in for the official PostgreSQL image: Debian's PostgreSQL with the same variables.

    It asks clients for passwords too.
    """

    stop_signal: ClassVar = signal.SIGINT

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def command(self) -> list[str]:
        settings = {"listen_addresses": "*", "unix_socket_directories": str(self.folder / "tmp")}
        options = [f"--{k}={v}" for k, v in settings.items()]
        return [
            *as_postgres(),
            str(postgres_binaries() / "postgres"),
            "-D",
            str(self.data),
            *options,
        ]

    @property
    def env(self) -> dict[str, str]:
        return super().env | {"PGHOST": str(self.folder / "tmp")}

    def prepare(self) -> None:
        if self.data.exists():
            return
        env, binaries = self.env, postgres_binaries()
        self.data.mkdir()
        secret = self.folder / "password"
        secret.write_text(env["POSTGRES_PASSWORD"])
        if as_postgres():
            for path in (self.folder, self.data, secret, self.folder / "tmp"):
                shutil.chown(path, "postgres")
        initdb = [str(binaries / "initdb"), f"--pgdata={self.data}", f"--pwfile={secret}"]
        initdb += [f"--username={env['POSTGRES_USER']}", "--auth=scram-sha-256", "--no-sync"]
        subprocess.run([*as_postgres(), *initdb], check=True, capture_output=True, cwd="/")
        secret.unlink()
        with (self.data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all all scram-sha-256\n")
        single = [str(binaries / "postgres"), "--single", "-D", str(self.data), "postgres"]
        statement = f"CREATE DATABASE {env['POSTGRES_DB']}\n".encode()
        subprocess.run(
            [*as_postgres(), *single], input=statement, check=True, capture_output=True, cwd="/"
        )


class ObjectsImage(Service):
    """Stand-in for RustFS: Moto's S3 server. It loses its data when it stops; any key is valid."""

    @property
    def command(self) -> list[str]:
        module("moto")
        return [sys.executable, "-m", "moto.server", "--host=0.0.0.0", "--port=9000"]

    @property
    def check(self) -> list[str]:
        page = "http://127.0.0.1:9000/moto-api/"
        return [sys.executable, "-c", f"import urllib.request as u; u.urlopen('{page}')"]


STAND_INS = {"postgres": PostgresImage, "objects": ObjectsImage}


def as_postgres() -> list[str]:
    """Command prefix that runs PostgreSQL as user postgres: it refuses to run as root."""
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]


class Stack:
    """The services of the file with this environment.

    A service with several instances has the names `service`, `service-2`, and so on.
    """

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.spec = composed(env)
        self.services: dict[str, Service] = {}
        self._undo = ExitStack()
        self._tag = f"ms{os.getpid() % 100_000}"
        nets = {
            name: f"10.{77 + os.getpid() % 100}.{i}" for i, name in enumerate(self.spec["networks"])
        }
        members: dict[str, list[str]] = {}
        for kind, spec in self.spec["services"].items():
            count = spec.get("scale", 1)
            members[kind] = [kind if n == 0 else f"{kind}-{n + 1}" for n in range(count)]
        names = [name for service_names in members.values() for name in service_names]
        for i, subnet in enumerate(nets.values()):
            self._bridge(i, subnet)
        for kind, service_names in members.items():
            spec = self.spec["services"][kind]
            for name in service_names:
                number = names.index(name) + 2
                joined = spec.get("networks", {})
                addresses = {net: f"{nets[net]}.{number}" for net in nets if net in joined}
                service_folder = folder / name
                service_folder.mkdir()
                netns = f"{self._tag}-{number}"
                service_class = STAND_INS.get(kind, Service)
                self.services[name] = service_class(name, spec, service_folder, addresses, netns)
                self._namespace(self.services[name], number, list(nets))
        for service in self.services.values():
            peers = [
                f"{address} {peer.name}"
                for peer in self.services.values()
                for net, address in peer.addresses.items()
                if net in service.addresses
            ]
            hosts = "\n".join(["127.0.0.1 localhost", *peers, ""])
            (service.folder / "hosts").write_text(hosts)
            (service.folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")

    def _bridge(self, number: int, subnet: str) -> None:
        name = f"{self._tag}b{number}"
        ip("link", "add", name, "type", "bridge")
        self._undo.callback(ip, "link", "del", name)
        ip("addr", "add", f"{subnet}.1/24", "dev", name)
        ip("link", "set", name, "up")

    def _namespace(self, service: Service, number: int, nets: Sequence[str]) -> None:
        ip("netns", "add", service.netns)
        self._undo.callback(ip, "netns", "del", service.netns)
        namespace = ("-n", service.netns)
        ip(*namespace, "link", "set", "lo", "up")
        for i, (net, address) in enumerate(service.addresses.items()):
            outer, inner = f"{self._tag}v{number}{i}", f"eth{i}"
            ip("link", "add", outer, "type", "veth", "peer", "name", inner, "netns", service.netns)
            ip("link", "set", outer, "master", f"{self._tag}b{nets.index(net)}", "up")
            ip(*namespace, "addr", "add", f"{address}/24", "dev", inner)
            ip(*namespace, "link", "set", inner, "up")
            # Docker routes through the first network with a gateway, by priority, then by name
            gateway_networks = sorted(
                (-(options or {}).get("gw_priority", 0), n)
                for n, options in service.spec["networks"].items()
                if not self.spec["networks"][n].get("internal")
            )
            if gateway_networks and gateway_networks[0][1] == net:
                gateway = f"{address.rpartition('.')[0]}.1"
                ip(*namespace, "route", "add", "default", "via", gateway)

    def up(self, *names: str) -> None:
        """Starts these services; first those that they depend on, in the order of the file."""
        for name in names:
            service = self.services[name]
            if service.process:
                continue
            waits = service.spec.get("depends_on", {})
            self.up(*waits)
            for other, options in waits.items():
                self.wait(other, options["condition"])
            service.start()
            self._undo.callback(service.stop)
            for port in service.spec.get("ports", []):
                self._publish(service, port)

    def wait(self, name: str, condition: str) -> None:
        service = self.services[name]
        assert service.process
        deadline = time.monotonic() + PATIENCE_S
        runs_once = condition == "service_completed_successfully"
        while not (service.process.poll() is not None if runs_once else service.healthy()):
            ended = not runs_once and service.process.poll() is not None
            if ended or time.monotonic() > deadline:
                raise RuntimeError(f"{name} is not {condition}:\n{service.log[-3000:]}")
            time.sleep(0.2)
        if runs_once and service.process.returncode:
            raise RuntimeError(f"{name} failed:\n{service.log[-3000:]}")

    def _publish(self, service: Service, port: Mapping[str, Any]) -> None:
        target = (next(iter(service.addresses.values())), int(port["target"]))
        self._undo.enter_context(forwarded((port["host_ip"], int(port["published"])), target))

    def close(self) -> None:
        self._undo.close()


@contextmanager
def stack(folder: Path, env: Mapping[str, str]) -> Iterator[Stack]:
    """Yields the services, none of them started, and removes them all at the end.

    Where namespaces cannot be used, the test is skipped with `missing`.
    """
    if os.geteuid() or not all(map(shutil.which, ("ip", "unshare", "nsenter", "setpriv"))):
        missing("no network namespaces: not root, or no iproute2 or util-linux")
    started_stack = Stack(folder, env)
    try:
        yield started_stack
    finally:
        started_stack.close()


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
