"""The installation of `docker/compose.yaml`, as processes: used, attacked, hurt in mid-sweep."""

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

from masksweep.sweeps.tracking.client import CLIENT as AS_OURS
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
    """Where who uses it works, beside its `.env`."""

    @property
    def dashboard(self) -> str:
        return f"http://127.0.0.1:{self.secrets['DASHBOARD_PORT']}"

    @property
    def mlflow(self) -> str:
        return f"http://127.0.0.1:{self.secrets['MLFLOW_PORT']}"

    def typed(self, lines: str) -> str:
        """The same for this one's ports."""
        here = lines.replace("http://127.0.0.1:8265", self.dashboard)
        return here.replace("http://127.0.0.1:5000", self.mlflow)

    @property
    def env(self) -> dict[str, str]:
        """What the README exports."""
        lines = re.findall(r"^    (export .*)$", ONE_MACHINE, re.M)
        script = self.typed("\n".join([*lines, "env -0"]))
        done = subprocess.run(
            ["sh", "-ec", script],
            env={"PATH": os.environ["PATH"]},
            cwd=self.user,
            check=True,
            capture_output=True,
            text=True,
        )
        set_ = dict(line.split("=", 1) for line in done.stdout.split("\0") if line)
        return {k: v for k, v in set_.items() if k not in ("PATH", "PWD", "OLDPWD", "SHLVL", "_")}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    user = tmp_path_factory.mktemp("user")
    subprocess.run([DOCKER / "secrets.sh", user / ".env"], check=True)
    mlflow, dashboard = map(str, free_ports(2))
    secrets = variables(user / ".env") | {"MLFLOW_PORT": mlflow, "DASHBOARD_PORT": dashboard}
    # sockets need short paths, and PostgreSQL's user a way to its data
    with (
        tempfile.TemporaryDirectory(prefix="stack-", ignore_cleanup_errors=True) as made,
        stack(Path(made), secrets | {"WORKERS": "2"}) as services,
    ):
        Path(made).chmod(0o755)
        services.up("ray-worker", "ray-worker-2")
        for name in ("ray-worker", "ray-worker-2"):
            services.wait(name, "service_healthy")
        yield Installed(services, secrets, user)


def status(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=30
        ) as got:
            return int(got.status)
    except urllib.error.HTTPError as error:
        return error.code


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


TABLES = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
GUESSED = "0" * 64


def test_who_knows_no_password_gets_nothing_of_mlflow(installed: Installed) -> None:
    page = installed.mlflow + TABLES
    known = basic("admin", installed.secrets["MLFLOW_AUTH_ADMIN_PASSWORD"])
    assert status(page) == 401
    for guess in (GUESSED, "password1234", ""):
        assert status(page, **basic("admin", guess)) == 401
    assert status(page, **known) == 200
    # as a page elsewhere would call it, that a browser here was made to open
    assert status(page, Host="elsewhere.invalid:5000", **known) == 403


def test_who_knows_no_token_gets_nothing_of_ray(installed: Installed, tmp_path: Path) -> None:
    page = f"{installed.dashboard}/api/jobs/"
    assert status(page) in (401, 403)
    assert status(page, Authorization=f"Bearer {GUESSED}") in (401, 403)
    known = f"Bearer {installed.secrets['RAY_AUTH_TOKEN']}"
    assert status(page, Authorization=known) == 200
    wrong = installed.env | {"RAY_AUTH_TOKEN": GUESSED}
    asked = ran(tmp_path, command=("submit", "--address", installed.dashboard), env=wrong)
    assert asked.code == 2
    assert asked.stderr.startswith(f"masksweep: --address={installed.dashboard}: refuses: ")
    assert len(asked.stderr.splitlines()) == 1
    # nor may a machine join
    nodes = installed.stack.services["ray-worker"]
    joined = nodes.ran(
        "env", f"RAY_AUTH_TOKEN={GUESSED}", "ray", "status", "--address=ray-head:6379"
    )
    assert joined.returncode != 0
    assert "nauthenticated" in joined.stdout + joined.stderr
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
    ask = ("python3", "-c", "import psycopg2; psycopg2.connect(dbname='mlflow').close()")
    assert from_mlflow(*ask).returncode == 0
    refused = from_mlflow("env", "PGPASSWORD=mlflow", *ask)
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
    with sweep(installed.user, command=shlex.split(submit), env=env) as asked:
        asked.wait_for(lambda: len(asked.ended) >= 2)
        services["ray-worker-2"].kill()
        asked.wait_for(lambda: len(asked.ended) >= 4)
        services["mlflow"].kill()
        asked.wait_for(lambda: len(asked.ended) >= 6)
        services["mlflow"].start()
        services["ray-worker-2"].start()
        asked.wait_for(lambda: len(asked.ended) >= 8)
        assert services["postgres"].stop()
        asked.wait_for(lambda: len(asked.ended) >= 10)
        services["postgres"].start()
        assert asked.wait() == 0, asked.stderr
    wait_for(services["mlflow"].healthy)
    store = Store(installed.mlflow, "hurt")
    assert store.parent.info.status == "FINISHED"
    assert store.by_status() == {"FINISHED": 2 * SEEDS}
    assert len(store.digests()) == 2 * SEEDS
    for run in store.children:
        assert run.data.metrics["integrity/ok"] == (
            run.data.tags["trial.strategy"] == "weight_mask"
        )
    # the artifacts come through the server: this side cannot reach the object store
    assert ran(tmp_path, command=shlex.split(report), env=env).code == 0
    (trials,) = tmp_path.glob("**/trials.csv")
    assert len(trials.read_text().splitlines()) == 1 + 2 * SEEDS
    # once more from the same shell: nothing is missing
    done = store.digests()
    again = ran(tmp_path, command=shlex.split(submit), env=env)
    assert again.code == 0, again.stderr
    assert not again.ended
    assert store.digests() == done
    page = urllib.request.Request(
        f"{installed.dashboard}/api/jobs/{asked.stdout.strip()}",
        headers={"Authorization": f"Bearer {installed.secrets['RAY_AUTH_TOKEN']}"},
    )
    with urllib.request.urlopen(page) as answer:
        told = answer.read().decode()
    assert "SUCCEEDED" in told
    for name, value in installed.secrets.items():
        public = name.endswith("_PORT") or name.startswith("COMPOSE_")
        assert public or value not in told + asked.stderr


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
        done = services["postgres"].ran("env", password, program, "-U", "mlflow", *arguments)
        assert done.returncode == 0, done.stderr

    dump = services["postgres"].folder / "results.dump"
    on_the_database("pg_dump", "--format=custom", f"--file={dump}", "mlflow")
    client.delete_run(run)
    assert services["mlflow"].stop()
    on_the_database("pg_restore", "--clean", "--if-exists", "--dbname=mlflow", str(dump))
    services["mlflow"].start()
    wait_for(services["mlflow"].healthy)
    found = client.get_run(run)
    assert found.info.lifecycle_stage == "active"
    assert found.data.metrics == {"kept": 1.0}
    got = client.download_artifacts(run, "kept.txt", str(tmp_path))
    assert Path(got).read_text() == "worth keeping"

    client.delete_run(run)
    (collect,) = re.findall(r"exec mlflow sh -c '(.*?)'", README, re.S)
    done = services["mlflow"].ran("sh", "-c", collect.replace("\n", " "))
    assert done.returncode == 0, done.stderr
    with pytest.raises(MlflowException, match="not found"):
        client.get_run(run)
    listed = f"import boto3; s = boto3.client('s3', endpoint_url='http://objects:9000'); \
print([k['Key'] for k in s.list_objects_v2(Bucket='masksweep')['Contents'] if '{run}' in k['Key']])"
    assert services["mlflow"].ran("python3", "-c", listed).stdout == "[]\n"


def test_mlflows_password_is_changed_and_all_end_in_time(installed: Installed) -> None:
    services, known = installed.stack.services, installed.env
    (lines,) = re.findall(r"^( +new=.*?)    #", SECURITY, re.M | re.S)
    changed = subprocess.run(
        ["sh", "-ec", installed.typed(textwrap.dedent(lines))],
        env=known | {"PATH": os.environ["PATH"]},
        check=True,
        capture_output=True,
        text=True,
    )
    new = changed.stdout.split()[-1]
    assert len(new) == 48
    # Compose starts a server whose environment changed; this one ends what it kept in memory
    assert services["mlflow"].stop()
    services["mlflow"].start()
    wait_for(services["mlflow"].healthy)
    page = installed.mlflow + TABLES
    assert status(page, **basic("admin", known["MLFLOW_TRACKING_PASSWORD"])) == 401
    assert status(page, **basic("admin", new)) == 200
    for name in ("ray-worker-2", "ray-worker", "ray-head", "mlflow", "postgres"):
        assert services[name].stop(), name
