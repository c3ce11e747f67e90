"""What a command does when its reader ends early, or its output cannot be written."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.selection import by_default
from tests.support.sweep_process import clean_env, local_store

TINY = ("strategy=weight_mask", "data=digits", "model.hidden=[8]", "train.steps=5")


def shell(folder: Path, script: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs a bash script, where `$M` is the command. The exit code is that of the first command."""
    variables = {"M": f"{sys.executable} -m masksweep.sweeps.cli", **env}
    return subprocess.run(
        ["bash", "-c", f"{script}; exit ${{PIPESTATUS[0]}}"],
        cwd=folder,
        env=clean_env(**variables),
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("command", "buffered"),
    by_default(
        [("list", ""), ("plan", "1"), ("run --cfg job", "")],
        itertools.product(
            ["list", "--help", "plan", "run --help", "run --cfg job", "bench --help"], ["", "1"]
        ),
    ),
)
def test_a_reader_that_leaves_is_no_failure(command: str, buffered: str, tmp_path: Path) -> None:
    process = shell(tmp_path, f"$M {command} | true", PYTHONUNBUFFERED=buffered)
    assert (process.returncode, process.stderr) == (141, "")


@pytest.mark.slow
@pytest.mark.parametrize("pipe", ["| head -1", "2>&1 | true"])
def test_a_sweep_whose_reader_leaves_is_recorded_whole(pipe: str, tmp_path: Path) -> None:
    process = shell(tmp_path, f"$M run sweep.name=n {' '.join(TINY)} {pipe}")
    assert process.returncode == 141, process.stderr
    assert "Traceback" not in process.stderr
    store = local_store(tmp_path, "n")
    assert store.by_status() == {"FINISHED": 1}
    assert store.parent.info.status == "FINISHED"
    for command in ("report", "doctor", f"audit {store.children[0].info.run_id}"):
        assert shell(tmp_path, f"$M {command} | true").returncode == 141, command
    names = {f.path for f in store.client.list_artifacts(store.parent.info.run_id, "report")}
    assert "report/trials.csv" in names


def test_output_that_cannot_be_written_is_told_in_a_line(tmp_path: Path) -> None:
    process = shell(tmp_path, "$M list > /dev/full")
    assert (process.returncode, process.stderr) == (1, "masksweep: No space left on device\n")
    process = shell(tmp_path, "$M run >&-")
    message = "masksweep: stdout=closed: must be open; /dev/null if nobody is to read it\n"
    assert (process.returncode, process.stderr) == (2, message)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("closed", ["2>&-", "<&-", "2>&- <&-"])
def test_other_streams_may_be_closed(closed: str, tmp_path: Path) -> None:
    process = shell(tmp_path, f"$M list {closed}")
    assert process.returncode == 0
    assert "weight_mask" in process.stdout
    assert not process.stderr


@pytest.mark.parametrize("port", ["99999999", "-5", "0"])
def test_a_port_that_is_none_is_refused_and_nothing_is_made(port: str, tmp_path: Path) -> None:
    process = shell(tmp_path, f"$M ui --port={port}")
    message = f"masksweep: --port={port}: must be from 1 to 65535\n"
    assert (process.returncode, process.stderr, process.stdout) == (2, message, "")
    assert not list(tmp_path.iterdir())


def test_a_port_that_is_in_use_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        process = shell(tmp_path, f"$M ui --port {port}")
    assert process.returncode == 2
    assert process.stderr.startswith(f"masksweep: --port={port}: Address already in use; ")
    assert not list(tmp_path.iterdir())
