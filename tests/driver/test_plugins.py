"""Sweeps with a model and a data set of `--plugin`: here, on the nodes of a cluster, as a job."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from masksweep.sweeps.cli.main import main
from tests.support.plugin import my_net, split_my_net
from tests.support.ray_head import Head, ray_head, ray_node
from tests.support.sweep_process import Store, local_store, ran, sweep, working

MINE = ("model=my_net", "data=my_data", "sweep.name=mine")
TINY = ("train.steps=20", "train.jit=false", "speed.rounds=0")


def artifacts(store: Store, folder: Path) -> dict[str, bytes]:
    """The plugins that the sweep's run has, by path."""
    run = store.parent.info.run_id
    path = Path(store.client.download_artifacts(run, "plugins", str(folder)))
    return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file()}


@pytest.mark.slow  # four commands, of which three train
def test_two_workers_train_it_and_it_is_reproduced_if_it_is_named_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    empty_store: Path,
) -> None:
    here, elsewhere, copies = (tmp_path / name for name in ("here", "elsewhere", "copies"))
    for folder in (here, elsewhere, copies):
        folder.mkdir()
    shutil.copy(empty_store, here / "mlflow.db")
    (here / "my_net.py").write_text(my_net())
    driver = ran(here, "--plugin", "my_net.py", *MINE, *TINY, "strategy=weight_mask,projection")
    assert driver.code == 0, driver.stderr
    store = local_store(here, "mine")
    assert store.by_status() == {"FINISHED": 2}
    assert artifacts(store, copies) == {"my_net.py": my_net().encode()}
    command = store.parent.data.tags["sweep.command"]
    assert command.startswith("masksweep run --plugin=my_net.py model=my_net data=my_data ")

    run = store.children[0].info.run_id
    uri = ("--uri", store.client.tracking_uri)
    (elsewhere / "my_net.py").write_text(my_net())
    monkeypatch.chdir(elsewhere)
    assert main(["reproduce", run, *uri]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"masksweep: run={run}: components.model=my_net.py sha256:")
    assert said.endswith(": is of a file that was not named; add --plugin my_net.py")
    again = ran(elsewhere, run, *uri, "--plugin", "my_net.py", command=("reproduce",))
    assert again.code == 0, again.stderr
    assert again.stdout.endswith("verdict: identical\n")
    (elsewhere / "my_net.py").write_text(f"{my_net()}\n")
    changed = ran(elsewhere, run, *uri, "--plugin", "my_net.py", command=("reproduce",))
    assert changed.code == 2
    assert ": here it is my_net.py sha256:" in changed.stderr


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head(num_cpus=1) as started:
        yield started


@pytest.mark.slow
def test_it_travels_to_both_nodes_of_a_cluster(tmp_path: Path, head: Head) -> None:
    """With the file beside it; both are deleted before a worker starts."""
    split_my_net(tmp_path)
    arguments = ("--plugin", "my_net.py", *MINE, "train.epochs=300", *TINY[1:], "seed=range(6)")
    with ray_node(head) as node:
        joined = (*arguments, f"launch.address={head.address}")
        with sweep(tmp_path, *joined, env={"HOME": str(head.home)}) as driver:
            driver.wait_for(lambda: "Joining Ray" in driver.stderr)
            (tmp_path / "my_net.py").unlink()
            (tmp_path / "parts/layers.py").unlink()
            driver.wait_for(lambda: working(node.pid))
            assert driver.wait() == 0, driver.stderr
    store = local_store(tmp_path, "mine")
    assert store.by_status() == {"FINISHED": 6}
    (tmp_path / "copies").mkdir()
    assert set(artifacts(store, tmp_path / "copies")) == {"my_net.py", "parts/layers.py"}
    digests = {run.data.params["components.model"] for run in store.children}
    assert len(digests) == 1


@pytest.mark.slow
def test_doctor_loads_it_on_each_node(tmp_path: Path, head: Head) -> None:
    (tmp_path / "my_net.py").write_text(my_net())
    arguments = ("--plugin", "my_net.py", *MINE[:2], "--address", head.client)
    driver = ran(tmp_path, *arguments, command=("doctor",))
    assert driver.code == 0, driver.stdout + driver.stderr
    # it imports what the nodes, which have another home, do not have
    (tmp_path / "my_net.py").write_text(f"{my_net()}\nimport os\nos.stat('here')\n")
    (tmp_path / "here").touch()
    driver = ran(tmp_path, *arguments, command=("doctor",))
    assert driver.code == 1
    said = "".join(driver.stdout.split())
    assert "--plugin=my_net.py:doesnotimport:FileNotFoundError:" in said


@pytest.mark.slow
def test_it_travels_with_a_job(tmp_path: Path, head: Head) -> None:
    split_my_net(tmp_path)
    store_uri = f"sqlite:///{head.home / 'store.db'}"
    arguments = ("--plugin", "my_net.py", *MINE, *TINY, f"tracking.uri={store_uri}")
    command = ("submit", "--address", head.dashboard, "--follow")
    driver = ran(tmp_path, *arguments, command=command)
    assert driver.code == 0, driver.stderr
    store = Store(store_uri, "mine")
    assert store.by_status() == {"FINISHED": 1}
    (trial,) = store.children
    planned = ran(tmp_path, *arguments[:-1], "--json", command=("plan",))
    assert trial.data.tags["trial.id"] in planned.stdout
