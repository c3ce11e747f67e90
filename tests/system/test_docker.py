"""Checks `docker/` without a container engine: with linters, and for settings that must stay."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.docker_files import COMPOSE, DOCKER, composed, seconds, variables
from tests.support.extras import command
from tests.support.sweep_process import wait_for

TOP = DOCKER.parent
SCRIPTS = sorted([*DOCKER.glob("**/*.sh"), TOP / ".ci" / "run"])
README = (DOCKER / "README.md").read_text()
SETTINGS = {"COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES"}
"""Variables that docker/secrets.sh writes and that are not secret."""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    env_file = tmp_path_factory.mktemp("secrets") / "env"
    subprocess.run([DOCKER / "secrets.sh", env_file], check=True)
    return env_file


@pytest.fixture(scope="module")
def secrets(file: Path) -> dict[str, str]:
    return {k: v for k, v in variables(file).items() if k not in SETTINGS}


@pytest.fixture(scope="module")
def whole(secrets: dict[str, str]) -> dict[str, Any]:
    """The resolved compose file with both kinds of workers."""
    return composed(secrets | {"COMPOSE_PROFILES": "cpu,gpu"})


@pytest.fixture(scope="module")
def services(whole: dict[str, Any]) -> dict[str, Any]:
    specs: dict[str, Any] = whole["services"]
    return specs


CLEAN = (0, "")


def linted(linter: str, *arguments: str | Path) -> tuple[int, str]:
    """Runs a linter, and returns (exit code, output)."""
    process = subprocess.run([command(linter), *arguments], capture_output=True, text=True)
    return process.returncode, process.stdout + process.stderr


def test_hadolint() -> None:
    assert linted("hadolint", DOCKER / "Dockerfile") == CLEAN


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck(script: Path) -> None:
    options = ("--enable=all", "--exclude=SC2250,SC2292,SC2312")
    assert linted("shellcheck", *options, script) == CLEAN


def test_as_it_is_made_there_is_one_worker_without_cards(file: Path) -> None:
    services = composed({}, file)["services"]
    workers = {n: s.get("scale", 1) for n, s in services.items() if n.startswith("ray-worker")}
    assert workers == {"ray-worker": 1}


def test_what_is_set_counts_and_one_worker_has_all_cards(file: Path) -> None:
    settings = {
        "COMPOSE_PROFILES": "cpu,gpu",
        "WORKERS": "3",
        "WORKER_CPUS": "4",
        "WORKER_MEMORY": "2g",
        "GPU_WORKER_MEMORY": "3g",
        "MASKSWEEP_TAG": "one",
        "MASKSWEEP_GPU_TAG": "two",
    }
    services = composed(settings, file)["services"]
    cpu, gpu = services["ray-worker"], services["ray-worker-gpu"]
    assert (cpu["scale"], gpu.get("scale", 1)) == (3, 1)
    assert (cpu["cpus"], gpu["cpus"]) == (4, 4)
    assert (cpu["mem_limit"], gpu["mem_limit"]) == (str(2 << 30), str(3 << 30))
    assert (cpu["image"], gpu["image"]) == ("masksweep:one", "masksweep:two")
    (card,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert (card["driver"], card["count"], card["capabilities"]) == ("nvidia", -1, ["gpu"])


def test_every_setting_is_in_the_file_that_is_made_with_what_holds_without(file: Path) -> None:
    commented = dict(re.findall(r"^#([A-Z_]+)=(.*)$", file.read_text(), re.M))
    defaults = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", COMPOSE.read_text()))
    assert commented == defaults


def test_only_two_ports_can_be_reached_and_from_this_machine_alone(
    services: dict[str, Any],
) -> None:
    ports = {
        name: [(port["host_ip"], port["published"], port["target"]) for port in spec["ports"]]
        for name, spec in services.items()
        if "ports" in spec
    }
    assert ports == {
        "mlflow": [("127.0.0.1", "5000", 5000)],
        "ray-head": [("127.0.0.1", "8265", 8265)],
    }


def test_every_service_has_its_limits(services: dict[str, Any]) -> None:
    for name, spec in services.items():
        assert int(spec["mem_limit"]) > 0, name
        runs_once = spec["restart"] == "no"
        assert runs_once or spec["restart"] == "unless-stopped", name
        assert "no-new-privileges:true" in spec["security_opt"], name
        assert "privileged" not in spec, name
        # services that depend on it need its health check
        own_image = spec["image"].startswith("masksweep:")
        assert runs_once or own_image or spec["healthcheck"]["test"], name
        assert not own_image or spec["cap_drop"] == ["ALL"], name
        assert not spec["image"].endswith(":latest"), name


def test_ray_ends_in_order_and_is_called_from_the_workers_network(whole: dict[str, Any]) -> None:
    from ray._private.ray_constants import RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S as DRAINS

    nodes = {name: spec for name, spec in whole["services"].items() if name.startswith("ray-")}
    assert all(spec["command"][:2] == ["ray", "start"] for spec in nodes.values())
    for name, spec in nodes.items():
        assert seconds(spec["stop_grace_period"]) > DRAINS, name
    head = nodes.pop("ray-head")["networks"]
    assert {tuple(spec["networks"]) for spec in nodes.values()} == {("cluster",)}
    assert head["cluster"]["gw_priority"] > 0
    assert not any(options for name, options in head.items() if name != "cluster")
    assert whole["networks"]["data"]["internal"] is True


def test_a_node_on_a_machine_of_its_own_is_as_confined(services: dict[str, Any]) -> None:
    worker = services["ray-worker"]
    flags = [f"--cap-drop {dropped}" for dropped in worker["cap_drop"]]
    flags += [f"--security-opt {option}" for option in worker["security_opt"]]
    flags += [f"--log-opt {k}={v}" for k, v in worker["logging"]["options"].items()]
    flags += [f"--stop-timeout {seconds(worker['stop_grace_period'])}"]
    flags += [f"--shm-size {int(worker['shm_size']) >> 30}g"]
    flags += [f"--memory {int(worker['mem_limit']) >> 30}g", f"--restart {worker['restart']}"]
    assert worker["init"] is True
    (node,) = re.findall(r"^    node\(\) \{ docker run -d (.*?) \}$", README, re.M | re.S)
    node_flags = re.findall(r"--[a-z-]+(?: [^-\s]\S*)?", node)
    assert sorted(node_flags) == sorted([*flags, "--init", "--name ray", "--network host"])
    # every node is started by this function
    assert README.count("docker run -d") == 1
    assert len(re.findall(r"^    node .*?(?<!\\)$", README, re.M | re.S)) == 2


def test_a_secret_is_where_it_is_needed_alone(
    services: dict[str, Any], secrets: dict[str, str]
) -> None:
    secrets_by_service = {
        name: {k for k, v in secrets.items() if v in spec.get("environment", {}).values()}
        for name, spec in services.items()
    }
    objects = {"RUSTFS_ACCESS_KEY", "RUSTFS_SECRET_KEY"}
    account, token = {"MLFLOW_AUTH_ADMIN_PASSWORD"}, {"RAY_AUTH_TOKEN"}
    database = {"POSTGRES_PASSWORD"}
    assert secrets_by_service.pop("check-secrets") == secrets.keys()
    assert secrets_by_service == {
        "postgres": database,
        "objects": objects,
        "bucket": objects,
        "migrate": database,
        "mlflow": database | objects | account | {"MLFLOW_FLASK_SERVER_SECRET_KEY"},
        "ray-head": account | token,
        "ray-worker": token,
        "ray-worker-gpu": token,
    }
    references = re.findall(r"\$\{(\w+)(.*?)\}", COMPOSE.read_text())
    for name in secrets:
        # no secret has a default
        assert {default for key, default in references if key == name} == {
            ":?run docker/secrets.sh first"
        }


def test_git_and_the_image_leave_the_secrets_out() -> None:
    for name in ("docker/.env", "docker/.env.AbC123"):  # the second: left by a killed secrets.sh
        command = ["git", "check-ignore", "--quiet", name]
        assert subprocess.run(command, cwd=TOP).returncode == 0
    lines = (TOP / ".dockerignore").read_text().split("\n")
    included = [line.removeprefix("!") for line in lines if line.startswith("!")]
    assert lines[1] == "*"
    assert "docker/" not in included
    for name in included:
        assert (TOP / name).exists(), name


def test_the_image_runs_as_a_user_and_is_given_no_compiler() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    stages = {name: base for base, name in re.findall(r"^FROM (\S+) AS (\S+)$", text, re.M)}
    assert (stages["cpu"], stages["gpu"], stages["runtime"]) == (
        "runtime",
        "runtime",
        "${BASE_IMAGE}",
    )
    for target in ("cpu", "gpu"):
        body = re.search(rf"^FROM runtime AS {target}$(.*?)(?=^FROM|\Z)", text, re.M | re.S)
        assert body is not None
        assert body[1].strip().endswith("USER 10001")
    assert "gcc" not in text
    assert "build-essential" not in text


def test_secrets_are_made_once_for_their_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "env"
    for _ in range(2):
        process = subprocess.run([DOCKER / "secrets.sh", file], check=True, capture_output=True)
        assert not process.stdout
        content = file.read_text()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [f.name for f in tmp_path.iterdir()] == ["env"]
    subprocess.run([DOCKER / "secrets.sh", tmp_path / "other"], check=True)
    assert file.read_text() == content
    values = {v for k, v in variables(file).items() if k not in SETTINGS}
    assert len(values) == 6
    assert not any(value in (tmp_path / "other").read_text() for value in values)


def test_secrets_that_are_interrupted_leave_nothing(tmp_path: Path) -> None:
    slow_od = tmp_path / "bin" / "od"
    slow_od.parent.mkdir()
    slow_od.write_text(f"#!/bin/sh\ntouch {tmp_path}/begun\nexec sleep 60\n")
    slow_od.chmod(0o755)
    folder = tmp_path / "made"
    folder.mkdir()
    with subprocess.Popen(
        [DOCKER / "secrets.sh", folder / "env"],
        env={"PATH": f"{slow_od.parent}:/usr/bin:/bin"},
        start_new_session=True,
    ) as process:
        wait_for((tmp_path / "begun").exists)
        assert len(list(folder.iterdir())) == 1
        os.killpg(process.pid, signal.SIGTERM)
    assert process.returncode == 1
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("POSTGRES_PASSWORD", "", "is not set"),
        (
            "MLFLOW_AUTH_ADMIN_PASSWORD",
            "Password1234Password1234",
            "is one that others would guess",
        ),
        ("RUSTFS_SECRET_KEY", "rustfsadmin", "is one that others would guess"),
        ("RAY_AUTH_TOKEN", "0123456789abcdef", "is shorter than 20 characters"),
    ],
)
def test_a_secret_that_is_none_stops_all(
    secrets: dict[str, str], name: str, value: str, why: str
) -> None:
    spec = composed(secrets)["services"]
    check = [DOCKER / "image" / "check-secrets.sh"]
    env = {"PATH": "/usr/bin:/bin"} | spec["check-secrets"]["environment"]
    assert subprocess.run(check, env=env, check=False).returncode == 0
    process = subprocess.run(
        check, env=env | {name: value}, check=False, capture_output=True, text=True
    )
    assert process.returncode == 2
    assert process.stderr == f"check-secrets: {name} {why}: docker/secrets.sh makes good ones\n"
    # no service starts before the check has succeeded
    first = "check-secrets"
    for service in spec.values():
        dependencies = service.get("depends_on", {})
        assert service is spec[first] or dependencies
        if first in dependencies:
            assert dependencies[first]["condition"] == "service_completed_successfully"


def test_without_secrets_the_file_says_where_they_come_from() -> None:
    with pytest.raises(ValueError, match=r"run docker/secrets.sh first"):
        composed({})
