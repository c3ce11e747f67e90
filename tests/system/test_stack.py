"""Tests of `docker/compose.yaml`, run as processes: in use, attacked, and disturbed in a sweep."""

from __future__ import annotations

import base64
import os
import re
import shlex
import subprocess
import tempfile
import textwrap
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from masksweep.sweeps.tracking.client import CLIENT_SETTINGS as AS_OURS
from tests.support.compose_stack import Stack, stack
from tests.support.docker_files import DOCKER, variables
from tests.support.servers import free_ports, postgres_binaries
from tests.support.sweep_process import Store, ran, sweep, wait_for

pytestmark = pytest.mark.slow
README = (DOCKER / "README.md").read_text()
ONE_MACHINE = README.partition("## One machine\n")[2].partition("\n## ")[0]
SECURITY = (DOCKER / "SECURITY.md").read_text()
SEEDS = 8
TRIALS = (
    "strategy=weight_mask,init_only",
    f"seed=range({SEEDS})",
    "data=digits",
    "model.hidden=[16]",
    "train.epochs=400",
    "resources.num_cpus=2",
)


@dataclass(frozen=True)
class Installed:
    stack: Stack
    secrets: Mapping[str, str]
    user: Path
    """The user's working folder, with `.env` in it."""

    @property
    def dashboard(self) -> str:
        return f"http://127.0.0.1:{self.secrets['DASHBOARD_PORT']}"

    @property
    def mlflow(self) -> str:
        return f"http://127.0.0.1:{self.secrets['MLFLOW_PORT']}"

    def typed(self, lines: str) -> str:
        """Replaces the README's ports with those of this installation."""
        text = lines.replace("http://127.0.0.1:8265", self.dashboard)
        return text.replace("http://127.0.0.1:5000", self.mlflow)

    @property
    def env(self) -> dict[str, str]:
        """The variables that the README's `export` lines set."""
        lines = re.findall(r"^    (export .*)$", ONE_MACHINE, re.M)
        script = self.typed("\n".join([*lines, "env -0"]))
        process = subprocess.run(
            ["sh", "-ec", script],
            env={"PATH": os.environ["PATH"]},
            cwd=self.user,
            check=True,
            capture_output=True,
            text=True,
        )
        pairs = dict(line.split("=", 1) for line in process.stdout.split("\0") if line)
        return {k: v for k, v in pairs.items() if k not in ("PATH", "PWD", "OLDPWD", "SHLVL", "_")}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    user = tmp_path_factory.mktemp("user")
    subprocess.run([DOCKER / "secrets.sh", user / ".env"], check=True)
    mlflow, dashboard = map(str, free_ports(2))
    secrets = variables(user / ".env") | {"MLFLOW_PORT": mlflow, "DASHBOARD_PORT": dashboard}
    # a short path for sockets, in a folder that PostgreSQL's user can enter
    with (
        tempfile.TemporaryDirectory(prefix="stack-", ignore_cleanup_errors=True) as folder,
        stack(Path(folder), secrets | {"WORKERS": "2"}) as services,
    ):
        Path(folder).chmod(0o755)
        services.up("ray-worker", "ray-worker-2")
        for name in ("ray-worker", "ray-worker-2"):
            services.wait(name, "service_healthy")
        yield Installed(services, secrets, user)


def status(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=30
        ) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


TABLES = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
GUESSED = "0" * 64


def test_who_knows_no_password_gets_nothing_of_mlflow(installed: Installed) -> None:
    page = installed.mlflow + TABLES
    credentials = basic("admin", installed.secrets["MLFLOW_AUTH_ADMIN_PASSWORD"])
    assert status(page) == 401
    for guess in (GUESSED, "password1234", ""):
        assert status(page, **basic("admin", guess)) == 401
    assert status(page, **credentials) == 200
    # as a web page would call it through a local browser (DNS rebinding)
    assert status(page, Host="elsewhere.invalid:5000", **credentials) == 403


def test_who_knows_no_token_gets_nothing_of_ray(installed: Installed, tmp_path: Path) -> None:
    page = f"{installed.dashboard}/api/jobs/"
    assert status(page) in (401, 403)
    assert status(page, Authorization=f"Bearer {GUESSED}") in (401, 403)
    header = f"Bearer {installed.secrets['RAY_AUTH_TOKEN']}"
    assert status(page, Authorization=header) == 200
    wrong = installed.env | {"RAY_AUTH_TOKEN": GUESSED}
    submitted = ran(tmp_path, command=("submit", "--address", installed.dashboard), env=wrong)
    assert submitted.code == 2
    assert submitted.stderr.startswith(f"masksweep: --address={installed.dashboard}: refuses: ")
    assert len(submitted.stderr.splitlines()) == 1
    # a machine without the token may not join either
    nodes = installed.stack.services["ray-worker"]
    status_process = nodes.ran(
        "env", f"RAY_AUTH_TOKEN={GUESSED}", "ray", "status", "--address=ray-head:6379"
    )
    assert status_process.returncode != 0
    assert "nauthenticated" in status_process.stdout + status_process.stderr
    assert nodes.ran("ray", "status", "--address=ray-head:6379").returncode == 0


def test_services_reach_whom_they_need_alone(installed: Installed) -> None:
    services = installed.stack.services
    reach = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"

    def reached(source: str, host: str, port: int) -> bool:
        return services[source].ran("python3", "-c", reach, host, str(port)).returncode == 0

    assert reached("mlflow", "postgres", 5432)
    assert reached("ray-head", "mlflow", 5000)
    assert reached("ray-worker", "ray-head", 6379)
    for name, port in (("postgres", 5432), ("objects", 9000), ("mlflow", 5000)):
        (address, *_) = services[name].addresses.values()
        assert not reached("ray-worker", name, port)
        assert not reached("ray-worker", address, port)
    assert not reached("ray-head", "postgres", 5432)


def test_a_password_of_postgresql_is_asked_for(installed: Installed) -> None:
    from_mlflow = installed.stack.services["mlflow"].ran
    connect = ("python3", "-c", "import psycopg2; psycopg2.connect(dbname='mlflow').close()")
    assert from_mlflow(*connect).returncode == 0
    refused = from_mlflow("env", "PGPASSWORD=mlflow", *connect)
    assert "password authentication failed" in refused.stderr


def test_a_sweep_outlives_a_worker_a_server_and_a_database(
    installed: Installed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = installed.env
    assert env == {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": installed.secrets["RAY_AUTH_TOKEN"],
        "MLFLOW_TRACKING_USERNAME": "admin",
        "MLFLOW_TRACKING_PASSWORD": installed.secrets["MLFLOW_AUTH_ADMIN_PASSWORD"],
    }
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, env[name])
    services = installed.stack.services
    (submit,) = re.findall(r"^    masksweep (submit .*)$", installed.typed(ONE_MACHINE), re.M)
    (report,) = re.findall(r"^    masksweep (report .*)$", installed.typed(ONE_MACHINE), re.M)
    smaller = shlex.join([*TRIALS, "sweep.name=hurt"])
    submit = submit.replace("+experiment=quickstart", smaller)
    submit = submit.replace("/checkpoints", str(installed.user / "checkpoints"))
    report = report.replace("quickstart", "hurt")
    with sweep(installed.user, command=shlex.split(submit), env=env) as driver:
        driver.wait_for(lambda: len(driver.ended) >= 2)
        services["ray-worker-2"].kill()
        driver.wait_for(lambda: len(driver.ended) >= 4)
        services["mlflow"].kill()
        driver.wait_for(lambda: len(driver.ended) >= 6)
        services["mlflow"].start()
        services["ray-worker-2"].start()
        driver.wait_for(lambda: len(driver.ended) >= 8)
        assert services["postgres"].stop()
        driver.wait_for(lambda: len(driver.ended) >= 10)
        services["postgres"].start()
        assert driver.wait() == 0, driver.stderr
    wait_for(services["mlflow"].healthy)
    store = Store(installed.mlflow, "hurt")
    assert store.parent.info.status == "FINISHED"
    assert store.by_status() == {"FINISHED": 2 * SEEDS}
    assert len(store.digests()) == 2 * SEEDS
    for run in store.children:
        assert run.data.metrics["integrity/ok"] == (
            run.data.tags["trial.strategy"] == "weight_mask"
        )
    # artifacts come through the MLflow server: this side cannot reach the object store
    assert ran(tmp_path, command=shlex.split(report), env=env).code == 0
    (trials,) = tmp_path.glob("**/trials.csv")
    assert len(trials.read_text().splitlines()) == 1 + 2 * SEEDS
    # submitted again from the same shell: no trial is missing
    digests = store.digests()
    repeated = ran(tmp_path, command=shlex.split(submit), env=env)
    assert repeated.code == 0, repeated.stderr
    assert not repeated.ended
    assert store.digests() == digests
    page = urllib.request.Request(
        f"{installed.dashboard}/api/jobs/{driver.stdout.strip()}",
        headers={"Authorization": f"Bearer {installed.secrets['RAY_AUTH_TOKEN']}"},
    )
    with urllib.request.urlopen(page) as answer:
        job_text = answer.read().decode()
    assert "SUCCEEDED" in job_text
    for name, value in installed.secrets.items():
        public = name.endswith("_PORT") or name.startswith("COMPOSE_")
        assert public or value not in job_text + driver.stderr


def test_results_are_backed_up_restored_and_thrown_away(
    installed: Installed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (installed.env | AS_OURS).items():
        monkeypatch.setenv(name, value)
    services = installed.stack.services
    client = MlflowClient(installed.mlflow)
    run = client.create_run(client.create_experiment("kept")).info.run_id
    client.log_text(run, "worth keeping", "kept.txt")
    client.log_metric(run, "kept", 1.0)

    def on_the_database(command: str, *arguments: str) -> None:
        password = f"PGPASSWORD={installed.secrets['POSTGRES_PASSWORD']}"
        program = str(postgres_binaries() / command)
        process = services["postgres"].ran("env", password, program, "-U", "mlflow", *arguments)
        assert process.returncode == 0, process.stderr

    dump = services["postgres"].folder / "results.dump"
    on_the_database("pg_dump", "--format=custom", f"--file={dump}", "mlflow")
    client.delete_run(run)
    assert services["mlflow"].stop()
    on_the_database("pg_restore", "--clean", "--if-exists", "--dbname=mlflow", str(dump))
    services["mlflow"].start()
    wait_for(services["mlflow"].healthy)
    restored = client.get_run(run)
    assert restored.info.lifecycle_stage == "active"
    assert restored.data.metrics == {"kept": 1.0}
    path = client.download_artifacts(run, "kept.txt", str(tmp_path))
    assert Path(path).read_text() == "worth keeping"

    client.delete_run(run)
    (collect,) = re.findall(r"exec mlflow sh -c '(.*?)'", README, re.S)
    process = services["mlflow"].ran("sh", "-c", collect.replace("\n", " "))
    assert process.returncode == 0, process.stderr
    with pytest.raises(MlflowException, match="not found"):
        client.get_run(run)
    list_script = f"import boto3; s = boto3.client('s3', endpoint_url='http://objects:9000'); \
print([k['Key'] for k in s.list_objects_v2(Bucket='masksweep')['Contents'] if '{run}' in k['Key']])"
    assert services["mlflow"].ran("python3", "-c", list_script).stdout == "[]\n"


def test_mlflows_password_is_changed_and_all_end_in_time(installed: Installed) -> None:
    services, old_env = installed.stack.services, installed.env
    (lines,) = re.findall(r"^( +new=.*?)    #", SECURITY, re.M | re.S)
    process = subprocess.run(
        ["sh", "-ec", installed.typed(textwrap.dedent(lines))],
        env=old_env | {"PATH": os.environ["PATH"]},
        check=True,
        capture_output=True,
        text=True,
    )
    new_password = process.stdout.split()[-1]
    assert len(new_password) == 48
    # Compose would restart the server, whose environment changed; a restart also clears its cache
    assert services["mlflow"].stop()
    services["mlflow"].start()
    wait_for(services["mlflow"].healthy)
    page = installed.mlflow + TABLES
    assert status(page, **basic("admin", old_env["MLFLOW_TRACKING_PASSWORD"])) == 401
    assert status(page, **basic("admin", new_password)) == 200
    for name in ("ray-worker-2", "ray-worker", "ray-head", "mlflow", "postgres"):
        assert services[name].stop(), name
