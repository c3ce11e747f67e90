"""Tests of `masksweep doctor`: it reports what would stop a sweep, and leaves no files behind."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.cli import doctor_checks
from masksweep.sweeps.config.sections import Tracking
from masksweep.sweeps.tracking.probe import probe
from masksweep.sweeps.tracking.store import StoreUnavailable
from tests.support.ray_head import Head, ray_head
from tests.support.sweep_process import Driver, ran

NAMES = (
    *("python", "masksweep", "tensorflow", "keras", "ray", "mlflow", "hydra-core", "numpy"),
    *(
        "devices",
        "trials",
        "Ray",
        "room",
        "workers",
        "store",
        "checkpoints",
        "this folder",
        "temp folder",
    ),
)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head() as started:
        yield started


def doctor(folder: Path, *arguments: str, **env: str) -> Driver:
    return ran(folder, *arguments, command=("doctor",), env=env)


def findings(driver: Driver) -> dict[str, tuple[str, str]]:
    """Parses the output into (state, text) by the name of the checked thing."""
    states: dict[str, tuple[str, str]] = {}
    name = ""
    for line in driver.stdout.splitlines()[:-2]:
        assert len(line) <= 80
        assert "\x1b" not in line
        if line[:4].strip():
            name = line[5:17].strip()
            states[name] = line[:4].strip(), ""
        state, text = states[name]
        states[name] = state, f"{text} {line[18:].strip()}".strip()
    return states


@pytest.mark.slow
def test_nothing_would_stop_a_sweep(tmp_path: Path) -> None:
    driver = doctor(tmp_path)
    assert driver.code == 0, driver.stdout + driver.stderr
    states = findings(driver)
    assert tuple(states) == NAMES
    assert {state for state, _ in states.values()} == {"ok"}
    assert states["Ray"][1].startswith("starts here, ")
    assert driver.stdout.endswith("\n\nNothing would stop a sweep here.\n")
    assert {path.name for path in tmp_path.iterdir()} == {"stdout", "stderr"}


@pytest.mark.slow
def test_a_cluster_is_looked_at_node_by_node(head: Head, tmp_path: Path) -> None:
    driver = doctor(tmp_path, "--address", head.client, "resources.num_cpus=2")
    assert driver.code == 0, driver.stdout + driver.stderr
    states = findings(driver)
    assert states["Ray"][1].startswith(f"{head.client}: 1 node, 2 CPUs, ")
    assert states["room"][1].endswith("1 trial at a time")
    assert states["workers"][0] == "ok"


@pytest.mark.slow  # waits for a Ray that is not there
def test_everything_that_would_stop_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    options = (
        "--address",
        "127.0.0.1:1",
        "checkpoint.path=file/below",
        "tracking.uri=foo://me:pw@x",
    )
    driver = doctor(tmp_path, *options)
    assert driver.code == 1
    states = findings(driver)
    failed = {name: text for name, (state, text) in states.items() if state == "fail"}
    assert list(failed) == ["Ray", "store", "checkpoints"]
    assert failed["Ray"].startswith("launch.address=127.0.0.1:1: no Ray cluster there")
    assert failed["store"].startswith("tracking.uri=foo://x: cannot be opened: ")
    assert "checkpoint.path=" in failed["checkpoints"]
    assert all("->" in text for text in failed.values())
    assert driver.stdout.endswith("\n\n3 things would stop a sweep here.\n")
    assert "pw" not in driver.stdout + driver.stderr


@pytest.mark.slow
def test_a_trial_that_fits_nowhere_stops_it(head: Head, tmp_path: Path) -> None:
    driver = doctor(tmp_path, f"launch.address={head.client}", "resources.num_gpus=64")
    assert driver.code == 1
    state, text = findings(driver)["Ray"]
    assert (state, "resources.num_gpus=64.0: must be at most" in text) == ("fail", True)
    assert driver.stdout.endswith("\n\nOne thing would stop a sweep here.\n")


def test_versions_that_are_old_or_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = [
        "numpy>=99",
        "keras",
        "absent>=1",
        "ray[default]>=2.54",
        'pytest>=99; extra == "test"',
    ]
    monkeypatch.setattr(doctor_checks, "requires", lambda name: needed)
    monkeypatch.setattr(doctor_checks, "PACKAGES", ("numpy", "keras", "absent", "ray"))
    results = {f.subject: f for f in doctor_checks.versions()}
    assert {f.subject for f in results.values() if f.state == "fail"} == {"numpy", "absent"}
    assert results["numpy"].advice == "pip install 'numpy>=99'"
    assert results["absent"].result == "not installed"


class TestStore:
    """The probe writes to the store, and undoes what it wrote."""

    def test_a_store_is_written_and_looks_as_before(self, tmp_path: Path) -> None:
        file = tmp_path / "mlflow.db"
        tracking = Tracking(uri=f"sqlite:///{file}")
        assert probe(tracking) == f"{tracking.uri} will be made"
        assert not file.exists()
        client = MlflowClient(tracking.uri)
        client.create_experiment("masksweep", str(tmp_path / "artifacts"))
        before = contents(file)
        assert probe(tracking) == f"{tracking.uri} can be written"
        assert contents(file) == before
        assert list(tmp_path.iterdir()) == [file]

    def test_a_store_that_cannot_be_written_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "mlflow.db"
        MlflowClient(f"sqlite:///{file}").search_experiments()
        with closing(sqlite3.connect(file)) as database:  # file modes do not stop root
            database.execute(
                "CREATE TRIGGER full BEFORE INSERT ON experiment_tags"
                " BEGIN SELECT RAISE(FAIL, 'the disk is full'); END"
            )
        with pytest.raises(Invalid, match=r"tracking.uri=.*: cannot be written: .*disk is full"):
            probe(Tracking(uri=f"sqlite:///{file}"))

    def test_a_folder_that_is_not_there_will_be_made(self, tmp_path: Path) -> None:
        tracking = Tracking(uri=f"sqlite:///{tmp_path}/none/below/mlflow.db")
        assert probe(tracking) == f"{tracking.uri} will be made"
        assert not list(tmp_path.iterdir())

    def test_a_server_that_is_not_there_is_away(self) -> None:
        with pytest.raises(StoreUnavailable):
            probe(Tracking(uri="http://127.0.0.1:1"))


def contents(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as database:
        return list(database.iterdump())


TINY = ("strategy=weight_mask", "data=digits", "model.hidden=[8]", "train.steps=5")


def broken(folder: Path, how: str) -> tuple[list[str], dict[str, str]]:
    """Prepares a folder for the case `how`, and returns (arguments, environment) of the command."""
    uri = "tracking.uri=sqlite:///mlflow.db"
    match how:
        case "store is a folder":
            (folder / "mlflow.db").mkdir()
        case "store is a text":
            (folder / "mlflow.db").write_text("no database" * 99)
        case "store in a file":
            (folder / "file").touch()
            uri = "tracking.uri=sqlite:///file/mlflow.db"
        case "newer store":
            with closing(sqlite3.connect(folder / "mlflow.db")) as database:
                MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()
                database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
                database.commit()
        case "state is a file":
            (folder / ".masksweep").touch()
        case "spool is a file":
            (folder / ".masksweep").mkdir()
            (folder / ".masksweep" / "spool").touch()
        case "artifacts are a file":
            (folder / "mlartifacts").touch()
        case "new folder":
            uri = "tracking.uri=sqlite:///a/b/mlflow.db"
        case "temporary folder is long":
            (folder / ("x" * 80)).mkdir()
            return [uri], {"TMPDIR": str(folder / ("x" * 80))}
        case "no temporary folder":
            return [uri], {"RAY_TMPDIR": str(folder / "none")}
        case "no such weight":
            return [uri, "targets=[nothere]"], {}
        case "too many cores":
            return [uri, "resources.num_cpus=999"], {}
    return [uri], {}


STOPPED = (
    *("store is a folder", "store is a text", "store in a file", "newer store"),
    *("state is a file", "spool is a file", "artifacts are a file", "no temporary folder"),
    *("no such weight", "too many cores"),
)


@pytest.mark.slow
@pytest.mark.parametrize("how", [*STOPPED, "new folder", "temporary folder is long"])
def test_what_is_said_is_what_run_does(how: str, tmp_path: Path) -> None:
    arguments, env = broken(tmp_path, how)
    checked = doctor(tmp_path, *TINY, *arguments, **env)
    failures = {text for state, text in findings(checked).values() if state == "fail"}
    before = set(tmp_path.rglob("*"))
    driver = ran(tmp_path, *TINY, *arguments, env=env)
    if how not in STOPPED:
        assert (checked.code, driver.code, failures) == (0, 0, set()), (
            checked.stdout + driver.stderr
        )
        return
    assert (checked.code, driver.code) == (1, 2), checked.stdout + driver.stderr
    text = driver.stderr.splitlines()[-1].removeprefix("masksweep: ")
    # the output is wrapped, also within words
    flat = ["".join(failure.split()) for failure in failures]
    assert any("".join(text.split())[:100] in failure for failure in flat), (text, failures)
    assert "Traceback" not in driver.stderr
    assert set(tmp_path.rglob("*")) == before, "nothing was written"
