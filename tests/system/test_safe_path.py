"""Tests that no command imports modules from the current folder, which may not be trusted."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from masksweep.sweeps.cli.ui import port_problem
from masksweep.sweeps.common import safe_path
from tests.support.ray_head import Head, ray_head
from tests.support.servers import free_ports
from tests.support.sweep_process import (
    Driver,
    clean_env,
    local_store,
    ran,
    stop_alone,
    sweep,
    wait_for,
)

COMMAND = (str(Path(sys.executable).parent / "masksweep"),)
MODULE = (sys.executable, "-m", "masksweep.sweeps.cli")
TINY = ("data=digits", "model.hidden=[8]", "train.steps=5", "train.jit=false", "speed.rounds=0")
OURS = ("masksweep", "sweeps", "strategies", "conf", "tests", "hydra_plugins")
BY_PYTHON = {"masksweep", "sitecustomize", "usercustomize", *sys.stdlib_module_names}
"""Modules that `python -m` itself may import from the current folder, before our code runs."""


@dataclass(frozen=True)
class Planted:
    """A folder of modules. Each creates a file in `marks` when it is imported."""

    folder: Path
    marks: Path

    @property
    def imported(self) -> list[str]:
        """The names of the modules that were imported."""
        return sorted(path.name for path in self.marks.iterdir())

    def ran(self, *arguments: str, program: Sequence[str] = COMMAND, **env: str) -> Driver:
        """Runs a command in the folder, from its start to its end."""
        command, *others = arguments
        return ran(self.folder, *others, command=(command,), program=program, env=env)


def plant(folder: Path, marks: Path, leave_out: Set[str] = frozenset()) -> Planted:
    """Writes a module for every name of the standard library, installed packages and Masksweep."""
    code = f"open({str(marks)!r} + '/' + __name__.partition('.')[0], 'w').close()\n"
    names = {*sys.stdlib_module_names, *packages_distributions(), "sitecustomize", "usercustomize"}
    for name in (n for n in names if n.isidentifier() and n not in {*OURS, *leave_out}):
        (folder / f"{name}.py").write_text(code)
    for name in {*OURS} - {*leave_out}:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(code)
    if "hydra_plugins" not in leave_out:
        (folder / "hydra_plugins" / "theirs.py").write_text(code)
    return Planted(folder, marks)


def make(folder: Path, leave_out: Set[str] = frozenset()) -> Planted:
    """Creates a planted folder, and the folder of its marks beside it."""
    for name in ("theirs", "marks"):
        (folder / name).mkdir()
    return plant(folder / "theirs", folder / "marks", leave_out)


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    return make(tmp_path)


def test_what_is_planted_leaves_a_mark(planted: Planted) -> None:
    """Python itself imports the planted modules, so the tests below can fail."""
    subprocess.run(
        [sys.executable, "-c", "import keras, sweeps"], cwd=planted.folder, env=clean_env()
    )
    assert {"keras", "sweeps"} <= set(planted.imported)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["list"], 0),
        (["--help"], 0),
        (["plan", *TINY], 0),
        (["sync"], 0),
        (["run", "seed=x"], 2),
        (["report", "nope"], 2),
        (["audit", "model.keras", "masks.npz"], 2),
        (["reproduce", "config.yaml"], 2),
        (["verify", "--only", "nope"], 2),
        (["bench", "--sizes", "Q"], 2),
        (["status", "--address", "http://127.0.0.1:1"], 2),
    ],
    ids=lambda value: value if isinstance(value, int) else " ".join(value[:2]),
)
def test_no_command_imports_from_the_current_folder(
    planted: Planted, arguments: list[str], code: int
) -> None:
    driver = planted.ran(*arguments)
    assert (driver.code, planted.imported) == (code, []), driver.stderr
    assert "Traceback" not in driver.stderr


def test_no_worker_imports_from_the_current_folder(planted: Planted) -> None:
    driver = planted.ran("run", *TINY)
    assert (driver.code, planted.imported) == (0, []), driver.stderr
    assert "held in all of 1 trials" in driver.stdout


def test_a_search_path_that_names_the_current_folder_is_not_followed(tmp_path: Path) -> None:
    """By an empty entry, a dot, or its full path. The other entries of PYTHONPATH are used."""
    # leave out the modules that Python itself would import before our code runs
    planted = make(tmp_path, leave_out={*BY_PYTHON, *OURS, "_distutils_hack"})
    other = tmp_path / "other" / "hydra_plugins"
    other.mkdir(parents=True)
    (other / "own.py").write_text(f"open({str(other / 'own')!r}, 'w').close()")
    search_path = f"{other.parent}::.:{planted.folder}"
    driver = planted.ran("plan", "--check", *TINY, PYTHONPATH=search_path)
    assert (driver.code, planted.imported) == (0, []), driver.stderr
    assert (other / "own").exists()


def test_a_module_that_is_run_imports_no_more_than_python_itself(tmp_path: Path) -> None:
    planted = make(tmp_path, leave_out=BY_PYTHON)
    driver = planted.ran("plan", *TINY, program=MODULE)
    assert (driver.code, planted.imported) == (0, []), driver.stderr


def test_the_folder_of_this_code_stays_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """This lets tests and commands run in a checkout."""
    root = Path(safe_path.__file__).parents[2]
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "path", [str(root), *sys.path])
    safe_path.remove_current_folder()
    assert str(root) in sys.path


@pytest.mark.slow
def test_nothing_that_looks_at_results_imports_from_the_current_folder(planted: Planted) -> None:
    assert planted.ran("run", *TINY, "sweep.name=mine").code == 0
    (trial,) = local_store(planted.folder, "mine").children
    for arguments in (
        ["report", "mine"],
        ["audit", trial.info.run_id],
        ["reproduce", trial.info.run_id],
        ["doctor"],
        ["verify", "--only", "constant_weight"],
        ["bench", "--sizes", "S", "--strategies", "weight_mask", "--sparsities", "0.9"],
    ):
        driver = planted.ran(*arguments)
        assert (driver.code, planted.imported) == (0, []), f"{arguments}: {driver.stderr}"


@pytest.mark.slow  # starts MLflow's server
def test_the_ui_imports_nothing_from_the_current_folder_and_ends_with_its_server(
    planted: Planted,
) -> None:
    (port,) = free_ports(1)
    with sweep(planted.folder, "--port", str(port), command=("ui",), program=COMMAND) as server:

        def answers() -> bool:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
                return True
            return False

        wait_for(lambda: answers() or server.process.poll() is not None)
        assert answers(), server.stderr
        assert stop_alone(server.process, signal.SIGTERM) == 143
        assert not port_problem(port)
    assert "Traceback" not in server.stderr
    assert planted.imported == []


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head() as started:
        yield started


@pytest.mark.slow
def test_a_cluster_imports_nothing_from_the_current_folder(planted: Planted, head: Head) -> None:
    """Neither the sender's current folder, nor the one in which a job runs on the head."""
    results = head.home / "masksweep-results"
    results.mkdir()
    plant(results, planted.marks)
    store = f"tracking.uri=sqlite:///{head.home / 'store.db'}"
    for name, address in (("node", head.address), ("laptop", head.client)):
        arguments = (*TINY, store, f"sweep.name={name}", f"launch.address={address}")
        driver = planted.ran("run", *arguments)
        assert (driver.code, planted.imported) == (0, []), driver.stderr
    sent = planted.ran("submit", "--address", head.dashboard, "--follow", *TINY, store)
    assert (sent.code, planted.imported) == (0, []), sent.stderr
    job = sent.stdout.strip()
    for command in ("status", "stop"):
        driver = planted.ran(command, "--address", head.dashboard, job)
        assert (driver.code, planted.imported) == (0, []), driver.stderr
