"""The Ray of a local sweep: closed to others of this machine, and to all other machines."""

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

from masksweep.strategies.base import Invalid
from masksweep.sweeps.launch.local_ray import LOOPBACK, SOCKET_ROOM, ray_folder
from tests.support.ray_join import JOIN, WRONG, join
from tests.support.sweep_process import Driver, clean_env, cmdline, sweep

LONG = ("data=digits", "model.hidden=[8]", "train.epochs=100000000")


@dataclass(frozen=True)
class Running:
    driver: Driver
    address: str
    """Of its Ray, as a node joins."""
    folder: Path
    """That its Ray lives in."""
    long: Path
    """The system's temporary folder."""


def option(driver: Driver, name: str) -> str:
    """What a process of its Ray was given."""
    said = " ".join(" ".join(cmdline(p)) for p in driver.family)
    (found,) = set(re.findall(rf"--{name}=(\S+)", said))
    return str(found)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A sweep at its only trial, by somebody without a home that could be written to."""
    # schedulers give temporary folders of such names; Ray would split this one at the blank
    long = tmp_path_factory.mktemp(f"job {'x' * 64}")
    env = {"HOME": "/dev/null/home", "TMPDIR": str(long)}
    with sweep(tmp_path_factory.mktemp("sweep"), *LONG, env=env) as driver:
        driver.wait_for(lambda: driver.workers)
        found = Running(
            driver, option(driver, "gcs-address"), Path(option(driver, "temp-dir")), long
        )
        yield found
        driver.process.terminate()
        assert driver.wait() == 143
    assert not found.folder.parent.exists()
    assert not list(long.glob("ray-*"))


def knocked(running: Running, folder: Path, **env: str) -> CompletedProcess[str]:
    """What another process of this machine, by somebody else's home, makes of its Ray."""
    # without, Ray asks for 127.0.0.1 at the machine's other address, where nobody listens
    return join(folder, running.address, HOME=str(folder), **LOOPBACK, **env)


def test_its_ray_takes_no_token_but_its_own(running: Running, tmp_path: Path) -> None:
    without = knocked(running, tmp_path)
    assert without.returncode
    assert without.stderr.startswith(f"launch.address={running.address}: it asks for a token")
    wrong = knocked(running, tmp_path, **WRONG)
    assert wrong.returncode
    assert wrong.stderr == f"launch.address={running.address}: it refuses this token\n"
    # which the same user may read, so that it is seen to be the token that was missing
    (worker,) = running.driver.workers
    known = {k: v for k, v in worker.environ().items() if k.startswith("RAY_AUTH_")}
    right = knocked(running, tmp_path, **known)
    assert right.returncode == 0, right.stderr


def listening(driver: Driver) -> list[tuple[str, int]]:
    """Addresses that it and its Ray listen on."""
    found = []
    for process in [psutil.Process(driver.process.pid), *driver.family]:
        for one in process.net_connections(kind="inet"):
            if one.status == psutil.CONN_LISTEN:
                found.append((one.laddr.ip, one.laddr.port))
    return found


def test_its_ray_is_reached_from_this_machine_alone(running: Running) -> None:
    found = listening(running.driver)
    assert len(found) > 5
    assert {ip for ip, _ in found} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def answered(port: int) -> int | None:
    """The HTTP status of a question about jobs; none where nothing there speaks HTTP."""
    asked = f"http://127.0.0.1:{port}/api/job_agent/jobs/"
    try:
        with urllib.request.urlopen(asked, timeout=5) as answer:
            return None if not answer.read().startswith(b"[") else int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException):
        return None


def test_no_page_of_its_ray_answers_without_a_token(running: Running) -> None:
    """The agent on each node can run jobs, by HTTP."""
    found = {answered(port) for _, port in listening(running.driver)}
    assert 401 in found
    assert 200 not in found


def test_nobody_else_may_look_into_its_folder(running: Running) -> None:
    for outer in (running.folder.parent, running.folder.resolve().parent):
        assert stat.S_IMODE(outer.stat().st_mode) == 0o700
        assert outer.stat().st_uid == os.getuid()


def test_a_long_temporary_folder_holds_its_files_and_a_link_leads_there(running: Running) -> None:
    assert len(str(running.folder)) <= SOCKET_ROOM
    assert running.folder.resolve().is_relative_to(running.long)
    assert list(running.folder.resolve().glob("session_*/sockets/plasma_store"))


def test_its_ports_are_free_ones(running: Running) -> None:
    """Another cluster of this machine, with Ray's own defaults, finds its ports free."""
    fixed = {52365, 44217, 44227, 6379, 8265, 8076, 8077, 10001}
    assert not fixed & {port for _, port in listening(running.driver)}


@pytest.mark.parametrize("key", ["RAY_TMPDIR", "TMPDIR"])
def test_a_folder_that_ray_cannot_live_in_is_told_in_a_line(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("masksweep.sweeps.launch.local_ray.SHORT", [tmp_path / "none"])
    monkeypatch.setattr("tempfile.tempdir", str(long))
    if key == "RAY_TMPDIR":
        monkeypatch.setenv(key, str(tmp_path / "none"))
        said = "must be a folder that can be written: No such file or directory"
    else:
        said = "set RAY_TMPDIR to one of at most 28 letters"
    with pytest.raises(Invalid, match=f"^{key}=.*{said}"), ray_folder():
        pass
    assert not list(long.iterdir())


LEAVES = """
import os
from ray._private import ray_constants
from ray._private.authentication.authentication_utils import is_token_auth_enabled
from ray._raylet import AuthenticationTokenLoader
from masksweep.sweeps.launch.local_ray import closed, loopback

def state():
    ours = [os.environ.get(k) for k in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")]
    known = AuthenticationTokenLoader.instance().get_token_for_http_header()
    return ours, is_token_auth_enabled(), known, ray_constants.ENABLE_RAY_CLUSTER

before, tokens = state(), []
for _ in range(2):
    with closed() as folder, loopback():
        tokens.append(os.environ["RAY_AUTH_TOKEN"])
        known = {"authorization": f"Bearer {tokens[-1]}"}
        assert state() == (["token", tokens[-1], None], True, known, False), state()
assert state() == before, (state(), before)
assert len(set(tokens)) == 2
assert all(len(t) == 64 for t in tokens)
"""


def test_a_token_is_of_one_ray_and_ends_with_it(tmp_path: Path) -> None:
    """The next cluster that this process joins is not shown it."""
    done = python(tmp_path, LEAVES, HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / ".ray").exists()


SAID = """
import os
from ray._private.authentication.authentication_utils import is_token_auth_enabled
from ray._raylet import AuthenticationTokenLoader
from masksweep.sweeps.launch.local_ray import closed

with closed():
    assert is_token_auth_enabled()
    known = AuthenticationTokenLoader.instance().get_token_for_http_header()
    print(known["authorization"].removeprefix("Bearer "))
"""


@pytest.mark.parametrize("way", ["token", "path", "file", "empty"])
def test_what_the_user_said_of_tokens_holds(way: str, tmp_path: Path) -> None:
    mine, home = "a" * 64, tmp_path / ".ray" / "auth_token"
    home.parent.mkdir()
    home.write_text(mine)
    env = {
        "token": {"RAY_AUTH_TOKEN": mine},
        "path": {"RAY_AUTH_TOKEN_PATH": str(home)},
        "file": {},  # that of the user's clusters, and of no local sweep
        "empty": {"RAY_AUTH_MODE": "", "RAY_AUTH_TOKEN": "", "RAY_AUTH_TOKEN_PATH": ""},
    }[way]
    done = python(tmp_path, SAID, HOME=str(tmp_path), **env)
    assert done.returncode == 0, done.stderr
    token = done.stdout.strip()
    assert (token == mine) == (way in ("token", "path"))
    assert len(token) == 64
    assert home.read_text() == mine


@pytest.mark.slow
def test_a_user_may_do_without_tokens(tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("a" * 64)  # which is not looked at
    done = join(tmp_path, None, HOME=str(tmp_path), RAY_AUTH_MODE="disabled")
    assert done.returncode == 0, done.stderr


def test_a_token_that_cannot_be_read_is_told_in_one_line(tmp_path: Path) -> None:
    env = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "nope")}
    done = python(tmp_path, JOIN, "null", HOME=str(tmp_path), **env)
    said = f"RAY_AUTH_TOKEN_PATH={tmp_path}/nope: must be a file that holds a token"
    assert done.stderr == f"{said}\n"


def python(folder: Path, code: str, *arguments: str, **env: str) -> CompletedProcess[str]:
    return run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=clean_env(**env),
    )
