"""What can be said of `docker/` without a container engine: linters, and what must not change."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.stack import COMPOSE, DOCKER, composed

TOP = DOCKER.parent
BINARIES = Path(sys.executable).parent
SCRIPTS = sorted([*DOCKER.glob("**/*.sh"), TOP / ".ci" / "run"])
PROFILES = ("--profile", "cpu", "--profile", "gpu")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("secrets") / "env"
    subprocess.run([DOCKER / "secrets.sh", made], check=True)
    return made


@pytest.fixture(scope="module")
def secrets(file: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in file.read_text().split())


@pytest.fixture(scope="module")
def services(secrets: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = composed(secrets)["services"]
    return found


CLEAN = (0, "")


def linted(*command: str | Path) -> tuple[int, str]:
    """What a linter says."""
    done = subprocess.run([BINARIES / command[0], *command[1:]], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_hadolint() -> None:
    assert linted("hadolint", DOCKER / "Dockerfile") == CLEAN


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck(script: Path) -> None:
    options = ("--enable=all", "--exclude=SC2250,SC2292,SC2312")
    assert linted("shellcheck", *options, script) == CLEAN


@pytest.mark.skipif(not shutil.which("docker-compose"), reason="no docker-compose here")
class TestComposeConfig:
    def config(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = ["docker-compose", "--file", COMPOSE, *arguments, *PROFILES, "config", "--quiet"]
        env = {"PATH": "/usr/bin:/bin:/usr/local/bin"}
        return subprocess.run(command, capture_output=True, text=True, env=env)

    def test_with_secrets_it_is_whole(self, file: Path) -> None:
        done = self.config("--env-file", file)
        assert (done.returncode, done.stderr) == (0, "")

    def test_without_it_says_where_they_come_from(self, tmp_path: Path) -> None:
        (tmp_path / "empty").touch()
        done = self.config("--env-file", tmp_path / "empty")
        assert done.returncode == 1
        assert "run docker/secrets.sh first" in done.stderr


def test_only_two_ports_can_be_reached_and_from_this_machine_alone(
    services: dict[str, Any],
) -> None:
    ports = {name: spec["ports"] for name, spec in services.items() if "ports" in spec}
    assert ports == {"mlflow": ["127.0.0.1:5000:5000"], "ray-head": ["127.0.0.1:8265:8265"]}


def test_every_service_has_its_limits(services: dict[str, Any], secrets: dict[str, str]) -> None:
    networks = composed(secrets)["networks"]
    for name, spec in services.items():
        assert set(spec.get("networks", [])) <= networks.keys(), name
        assert spec["mem_limit"], name
        once = spec["restart"] == "no"
        assert once or spec["restart"] == "unless-stopped", name
        assert "no-new-privileges:true" in spec["security_opt"], name
        assert "privileged" not in spec, name
        # what waits for it must learn that it is there
        ours = spec["image"].startswith("masksweep:")
        assert once or ours or spec["healthcheck"]["test"], name
        assert not ours or spec["cap_drop"] == ["ALL"], name
        assert not spec["image"].endswith(":latest"), name


def test_a_secret_is_where_it_is_needed_alone(
    services: dict[str, Any], secrets: dict[str, str]
) -> None:
    has = {
        name: {key for key, value in secrets.items() if value in spec["environment"].values()}
        for name, spec in services.items()
    }
    objects = {"RUSTFS_ACCESS_KEY", "RUSTFS_SECRET_KEY"}
    account, token = {"MLFLOW_AUTH_ADMIN_PASSWORD"}, {"RAY_AUTH_TOKEN"}
    database = {"POSTGRES_PASSWORD"}
    assert has.pop("check-secrets") == secrets.keys() - {"COMPOSE_PROJECT_NAME"}
    assert has == {
        "postgres": database,
        "objects": objects,
        "bucket": objects,
        "migrate": database,
        "mlflow": database | objects | account | {"MLFLOW_FLASK_SERVER_SECRET_KEY"},
        "ray-head": account | token,
        "ray-worker": token,
        "ray-worker-gpu": token,
    }
    used = re.findall(r"\$\{(\w+)(.*?)\}", COMPOSE.read_text())
    for name in secrets.keys() - {"COMPOSE_PROJECT_NAME"}:
        # none has a default
        assert {rest for found, rest in used if found == name} == {":?run docker/secrets.sh first"}


def test_git_and_the_image_leave_the_secrets_out() -> None:
    command = ["git", "check-ignore", "--quiet", "docker/.env"]
    assert subprocess.run(command, cwd=TOP).returncode == 0
    lines = (TOP / ".dockerignore").read_text().split("\n")
    kept = [line.removeprefix("!") for line in lines if line.startswith("!")]
    assert lines[1] == "*"
    assert "docker/" not in kept
    for name in kept:
        assert (TOP / name).exists(), name


def test_the_image_runs_as_a_user_and_holds_no_compiler() -> None:
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
        assert body[1].strip().endswith("USER 1000")
    assert "gcc" not in text
    assert "build-essential" not in text


def test_secrets_are_made_once_for_their_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "env"
    for _ in range(2):
        done = subprocess.run([DOCKER / "secrets.sh", file], check=True, capture_output=True)
        assert not done.stdout
        kept = file.read_text()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [f.name for f in tmp_path.iterdir()] == ["env"]
    subprocess.run([DOCKER / "secrets.sh", tmp_path / "other"], check=True)
    assert file.read_text() == kept
    values = {line.split("=")[1] for line in kept.split()} - {"masksweep"}
    assert len(values) == 6
    assert not any(value in (tmp_path / "other").read_text() for value in values)


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
    done = subprocess.run(
        check, env=env | {name: value}, check=False, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == f"check-secrets: {name} {why}: docker/secrets.sh makes good ones\n"
    # nothing starts before it ended well
    first = "check-secrets"
    for service in spec.values():
        waits = service.get("depends_on", {})
        assert service is spec[first] or waits
        if first in waits:
            assert waits[first]["condition"] == "service_completed_successfully"


def test_without_secrets_the_file_says_where_they_come_from() -> None:
    with pytest.raises(ValueError, match=r"run docker/secrets.sh first"):
        composed({})
