"""The Ray of a local sweep is closed to other users and to other machines."""

from __future__ import annotations

import http.client
import os
import re
import stat
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess, run

import psutil
import pytest

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.launch.local_ray import LOOPBACK, MAX_FOLDER_BYTES, ray_folder
from tests.support.ray_join import JOIN, WRONG, join
from tests.support.sweep_process import Driver, clean_env, cmdline, sweep

LONG = ("data=digits", "model.hidden=[8]", "train.epochs=100000000")


@dataclass(frozen=True)
class Running:
    driver: Driver
    address: str
    """Address of its Ray, `host:port`, as a node uses it to join."""
    folder: Path
    """Folder of its Ray."""
    long: Path
    """The system's temporary folder."""


def option(driver: Driver, name: str) -> str:
    """The value of an option in the command lines of the driver's Ray processes."""
    command_lines = " ".join(" ".join(cmdline(p)) for p in driver.family)
    (value,) = set(re.findall(rf"--{name}=(\S+)", command_lines))
    return str(value)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A sweep that runs its only trial, of a user without a writable home."""
    # job schedulers make such long names; Ray would split this path at the space
    long = tmp_path_factory.mktemp(f"job {'x' * 64}")
    env = {"HOME": "/dev/null/home", "TMPDIR": str(long)}
    with sweep(tmp_path_factory.mktemp("sweep"), *LONG, env=env) as driver:
        driver.wait_for(lambda: driver.workers)
        state = Running(
            driver, option(driver, "gcs-address"), Path(option(driver, "temp-dir")), long
        )
        yield state
        driver.process.terminate()
        assert driver.wait() == 143
    assert not state.folder.parent.exists()
    assert not list(long.glob("ray-*"))


def knocked(running: Running, folder: Path, **env: str) -> CompletedProcess[str]:
    """Joins its Ray from another process, with the home of another user."""
    # without LOOPBACK, Ray would use another address of the machine, where nothing listens
    return join(folder, running.address, HOME=str(folder), **LOOPBACK, **env)


def test_its_ray_takes_no_token_but_its_own(running: Running, tmp_path: Path) -> None:
    without = knocked(running, tmp_path)
    assert without.returncode
    assert without.stderr.startswith(f"launch.address={running.address}: it asks for a token")
    wrong = knocked(running, tmp_path, **WRONG)
    assert wrong.returncode
    assert wrong.stderr == f"launch.address={running.address}: it refuses this token\n"
    # with the right token joining succeeds, so only the token was missing before
    (worker,) = running.driver.workers
    token_settings = {k: v for k, v in worker.environ().items() if k.startswith("RAY_AUTH_")}
    right = knocked(running, tmp_path, **token_settings)
    assert right.returncode == 0, right.stderr


def listening(driver: Driver) -> list[tuple[str, int]]:
    """The addresses that the driver and its Ray listen on."""
    addresses = []
    for process in [psutil.Process(driver.process.pid), *driver.family]:
        for connection in process.net_connections(kind="inet"):
            if connection.status == psutil.CONN_LISTEN:
                addresses.append((connection.laddr.ip, connection.laddr.port))
    return addresses


def test_its_ray_is_reached_from_this_machine_alone(running: Running) -> None:
    addresses = listening(running.driver)
    assert len(addresses) > 5
    assert {ip for ip, _ in addresses} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def answered(port: int) -> int | None:
    """The HTTP status of a request for the list of jobs; None if no job server answers."""
    url = f"http://127.0.0.1:{port}/api/job_agent/jobs/"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return None if not answer.read().startswith(b"[") else int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException):
        return None


def test_no_page_of_its_ray_answers_without_a_token(running: Running) -> None:
    """The agent on each node can start jobs by HTTP, so it must ask for the token."""
    statuses = {answered(port) for _, port in listening(running.driver)}
    assert 401 in statuses
    assert 200 not in statuses


def test_nobody_else_may_look_into_its_folder(running: Running) -> None:
    for outer in (running.folder.parent, running.folder.resolve().parent):
        assert stat.S_IMODE(outer.stat().st_mode) == 0o700
        assert outer.stat().st_uid == os.getuid()


def test_a_long_temporary_folder_holds_its_files_and_a_link_leads_there(running: Running) -> None:
    assert len(str(running.folder)) <= MAX_FOLDER_BYTES
    assert running.folder.resolve().is_relative_to(running.long)
    assert list(running.folder.resolve().glob("session_*/sockets/plasma_store"))


def test_its_ports_are_free_ones(running: Running) -> None:
    """The default ports of Ray stay free for another cluster on this machine."""
    fixed = {52365, 44217, 44227, 6379, 8265, 8076, 8077, 10001}
    assert not fixed & {port for _, port in listening(running.driver)}


@pytest.mark.parametrize("key", ["RAY_TMPDIR", "TMPDIR"])
def test_a_folder_that_ray_cannot_live_in_is_told_in_a_line(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("masksweep.sweeps.launch.local_ray.SHORT_FOLDERS", [tmp_path / "none"])
    monkeypatch.setattr("tempfile.tempdir", str(long))
    if key == "RAY_TMPDIR":
        monkeypatch.setenv(key, str(tmp_path / "none"))
        message = "must be a folder that can be written: No such file or directory"
    else:
        message = "set RAY_TMPDIR to one of at most 28 letters"
    with pytest.raises(Invalid, match=f"^{key}=.*{message}"), ray_folder():
        pass
    assert not list(long.iterdir())


LEAVES = """
import os
from ray._private import ray_constants
from ray._private.authentication.authentication_utils import is_token_auth_enabled
from ray._raylet import AuthenticationTokenLoader
from masksweep.sweeps.launch.local_ray import loopback, private_ray

def state():
    ours = [os.environ.get(k) for k in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")]
    known = AuthenticationTokenLoader.instance().get_token_for_http_header()
    return ours, is_token_auth_enabled(), known, ray_constants.ENABLE_RAY_CLUSTER

before, tokens = state(), []
for _ in range(2):
    with private_ray() as folder, loopback():
        tokens.append(os.environ["RAY_AUTH_TOKEN"])
        known = {"authorization": f"Bearer {tokens[-1]}"}
        assert state() == (["token", tokens[-1], None], True, known, False), state()
assert state() == before, (state(), before)
assert len(set(tokens)) == 2
assert all(len(t) == 64 for t in tokens)
"""


def test_a_token_is_of_one_ray_and_ends_with_it(tmp_path: Path) -> None:
    """A cluster that this process joins later does not get the token."""
    process = python(tmp_path, LEAVES, HOME=str(tmp_path))
    assert process.returncode == 0, process.stderr
    assert not (tmp_path / ".ray").exists()


SAID = """
import os
from ray._private.authentication.authentication_utils import is_token_auth_enabled
from ray._raylet import AuthenticationTokenLoader
from masksweep.sweeps.launch.local_ray import private_ray

with private_ray():
    assert is_token_auth_enabled()
    known = AuthenticationTokenLoader.instance().get_token_for_http_header()
    print(known["authorization"].removeprefix("Bearer "))
"""


@pytest.mark.parametrize("way", ["token", "path", "file", "empty"])
def test_what_the_user_said_of_tokens_holds(way: str, tmp_path: Path) -> None:
    own_token, token_file = "a" * 64, tmp_path / ".ray" / "auth_token"
    token_file.parent.mkdir()
    token_file.write_text(own_token)
    env = {
        "token": {"RAY_AUTH_TOKEN": own_token},
        "path": {"RAY_AUTH_TOKEN_PATH": str(token_file)},
        "file": {},  # the token file of the user's clusters is not used for a local sweep
        "empty": {"RAY_AUTH_MODE": "", "RAY_AUTH_TOKEN": "", "RAY_AUTH_TOKEN_PATH": ""},
    }[way]
    process = python(tmp_path, SAID, HOME=str(tmp_path), **env)
    assert process.returncode == 0, process.stderr
    token = process.stdout.strip()
    assert (token == own_token) == (way in ("token", "path"))
    assert len(token) == 64
    assert token_file.read_text() == own_token


@pytest.mark.slow
def test_a_user_may_do_without_tokens(tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("a" * 64)  # not read
    process = join(tmp_path, None, HOME=str(tmp_path), RAY_AUTH_MODE="disabled")
    assert process.returncode == 0, process.stderr


def test_a_token_that_cannot_be_read_is_told_in_one_line(tmp_path: Path) -> None:
    env = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "nope")}
    process = python(tmp_path, JOIN, "null", HOME=str(tmp_path), **env)
    message = f"RAY_AUTH_TOKEN_PATH={tmp_path}/nope: must be a file that holds a token"
    assert process.stderr == f"{message}\n"


def python(folder: Path, code: str, *arguments: str, **env: str) -> CompletedProcess[str]:
    return run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=clean_env(**env),
    )
