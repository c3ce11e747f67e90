"""Tests that no secret of the environment is in files, output, requests or command lines."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from masksweep import sweeps
from masksweep.sweeps.cli.main import main
from masksweep.sweeps.common.redact import redact
from tests.support.planted_secrets import NAMES, Watch, environment, leaks, leaks_of, secret
from tests.support.ray_head import ray_head
from tests.support.servers import postgres
from tests.support.sweep_process import local_store, ran, wait_for

SWEEP = (
    "strategy=weight_mask,var_list",  # var_list refuses these masks
    "optimizer.learning_rate=0.01,1e30",  # with 1e30 it diverges
    "seed=0,1",
    "data=digits",
    "model.hidden=[8]",
    "train.epochs=2",
    "launch.pack=2",
    "checkpoint.every_s=0.001",
    "sweep.name=secrets",
)
FOO = secret("FOO_SECRET")
SLEEP = (sys.executable, "-c", "import time; time.sleep(60)")


# -- the searcher ----------------------------------------------------------------------------------


def npz(text: str) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, said=np.array([text]))
    return file.getvalue()


def png(text: str) -> bytes:
    file, info = io.BytesIO(), PngInfo()
    info.add_text("comment", text, zip=True)
    Image.new("L", (4, 4)).save(file, "png", pnginfo=info)
    return file.getvalue()


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner", content)
    return file.getvalue()


LEAKS = {
    "a log": f"started with {FOO} today".encode(),
    "a URI": f"http://me:{quote(FOO, safe='')}@host".encode(),
    "base64": base64.b64encode(f"user:{FOO}@".encode()),
    "base64, one on": base64.b64encode(f"users:{FOO}@".encode()),
    "base64, two on": base64.urlsafe_b64encode(f"a user:{FOO}@".encode()),
    "an .npz": npz(FOO),
    "a picture": png(FOO),
    "a .zip in a .zip": zipped(zipped(FOO.encode())),
    "a .gz": gzip.compress(FOO.encode()),
    "Parquet": pd.DataFrame({"said": [f"it is {FOO}"] * 9}).to_parquet(),
}


@pytest.mark.parametrize("content", LEAKS.values(), ids=LEAKS)
def test_a_leak_on_purpose_is_found(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    leak_list = leaks_of(tmp_path)
    assert leak_list
    assert all(leak.startswith(f"FOO_SECRET in {tmp_path}/file") for leak in leak_list)


def test_a_leak_in_a_database_is_found_though_it_lies_in_pieces(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "some.db") as database:
        database.execute("create table told (what text)")
        database.execute("insert into told values (?)", [f"{'x' * 4000}{FOO * 400}"])
    database.close()
    assert any("its rows" in leak for leak in leaks_of(tmp_path))


def test_a_leak_in_a_name_or_a_command_is_found(tmp_path: Path) -> None:
    (tmp_path / quote(FOO, safe="")).touch()
    assert "the name of" in leaks_of(tmp_path)[0]
    with Watch(tmp_path) as watch, subprocess.Popen([*SLEEP, FOO]) as process:
        gone = tmp_path / "gone"
        gone.write_text(FOO)
        wait_for(lambda: watch.commands and gone in watch.files)
        gone.unlink()
        process.kill()
    leak_list = watch.leaks()
    assert any("time.sleep" in leak for leak in leak_list)
    assert any("gone" in leak for leak in leak_list)


# -- a sweep on this machine -----------------------------------------------------------------------


@dataclass(frozen=True)
class Ran:
    folder: Path
    env: dict[str, str]
    leaks: list[str]
    """Leaks in Ray's folder, which has been deleted, and in the command lines of processes."""
    seen: tuple[int, int]
    """Number of Ray's files, and of command lines, that were searched."""


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """Runs a sweep from a git work tree whose remote address has a token."""
    tree = tmp_path_factory.mktemp("tree")
    for package in ("strategies", "sweeps", "conf"):
        source = Path(sweeps.__file__).parents[1] / package
        shutil.copytree(
            source, tree / "masksweep" / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    remote = f"https://me:{quote(secret('remote'), safe='')}@127.0.0.1/x.git"
    git = ["git", "-C", str(tree), "-c", "user.name=a", "-c", "user.email=a@b"]
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    for command in (["init", "-q"], ["remote", "add", "origin", remote], ["add", "."]):
        subprocess.run([*git, *command], check=True, env=env)
    subprocess.run([*git, "commit", "-q", "-m", "all"], check=True, env=env)
    folder = tree / "work"
    folder.mkdir()
    # a short path: Ray keeps sockets in this folder
    with tempfile.TemporaryDirectory(prefix="t-") as short:
        env = {**environment(), "RAY_TMPDIR": short, "PYTHONPATH": str(tree)}
        with Watch(Path(short)) as watch:
            driver = ran(folder, *SWEEP, env=env)
        assert driver.code == 1, driver.stderr  # trials fail on purpose
        yield Ran(folder, env, watch.leaks(), (len(watch.files), len(watch.commands)))


@pytest.mark.slow
def test_a_sweep_writes_prints_and_is_called_nothing_secret(swept: Ran) -> None:
    store = local_store(swept.folder, "secrets")
    tags = [run.data.tags["trial.status"] for run in store.children]
    assert {s: tags.count(s) for s in set(tags)} == {"ok": 2, "failed": 2, "skipped": 4}
    assert swept.seen > (20, 5)
    assert swept.leaks == []
    assert leaks_of(swept.folder) == []
    run_dictionaries = [run.to_dictionary() for run in (store.parent, *store.children)]
    assert list(leaks(json.dumps(run_dictionaries).encode(), "the client's runs")) == []
    for run in store.children:
        download_folder = swept.folder.parent / "downloaded" / run.info.run_id
        download_folder.mkdir(parents=True)
        store.client.download_artifacts(run.info.run_id, "", str(download_folder))
        assert leaks_of(download_folder) == []


@pytest.mark.slow
def test_no_other_command_writes_or_prints_anything_secret(swept: Ran) -> None:
    run = next(
        r.info.run_id
        for r in local_store(swept.folder, "secrets").children
        if r.data.tags["trial.status"] == "ok"
    )
    for command in (
        ("report", "secrets"),
        ("reproduce", run),
        ("audit", run),
        ("plan", "--json", "--check", *SWEEP),
        ("doctor", *SWEEP),
        ("sync",),
    ):
        with Watch(Path(swept.env["RAY_TMPDIR"])) as watch:
            driver = ran(swept.folder, *command[1:], command=command[:1], env=swept.env)
        assert driver.code == 0, (command, driver.stdout, driver.stderr)
        assert watch.leaks() == []
        assert leaks_of(swept.folder) == [], command


@pytest.mark.slow
@pytest.mark.parametrize("way", ["override", "environment"])
def test_a_stores_password_is_neither_shown_nor_written(way: str, tmp_path: Path) -> None:
    import sqlalchemy

    with postgres(tmp_path) as server, tempfile.TemporaryDirectory(prefix="t-") as short:
        uri = server.uri.replace("tester@", f"tester:{quote(secret('store'), safe='')}@")
        env = {**environment(), "RAY_TMPDIR": short}
        overrides, folder = list(SWEEP), tmp_path / "work"
        folder.mkdir()
        if way == "override":
            overrides.append(f"tracking.uri='{uri}'")
        else:
            env["MLFLOW_TRACKING_URI"] = uri
        with Watch(Path(short)) as watch:
            driver = ran(folder, *overrides, env=env)
        assert driver.code == 1, driver.stderr
        # other users of the machine can see what the user types on the command line
        own_commands = {c for c in watch.commands if "masksweep.sweeps.cli run strategy" in c}
        assert own_commands
        watch.commands -= own_commands if way == "override" else set()
        assert watch.leaks() == []
        assert leaks_of(folder) == []
        assert leaks_of(tmp_path / "postgres.log") == []
        engine = sqlalchemy.create_engine(server.uri)
        with engine.connect() as database:
            for table in sqlalchemy.inspect(engine).get_table_names():
                rows = database.execute(sqlalchemy.text(f'select t::text from "{table}" t')).all()
                assert list(leaks(repr(rows).encode(), table)) == []
        engine.dispose()
        doctor = ran(folder, *overrides, command=("doctor",), env=env)
        assert leaks_of(folder) == [], doctor.stdout


# -- error messages --------------------------------------------------------------------------------

PLACES = (
    "tracking.uri='http://me:SECRET@127.0.0.1:1'",
    "tracking.uri='postgresql://me:SECRET@127.0.0.1:1/x'",
    "tracking.uri='mysql//me:SECRET@127.0.0.1:1/x'",  # mistyped
    "checkpoint.path='s3://me:SECRET@bucket/x'",
    "launch.address='http://me:SECRET@127.0.0.1:1'",
    "tracking.url='http://me:SECRET@127.0.0.1:1'",  # no such key
    "seed='http://me:SECRET@127.0.0.1:1'",  # a key whose value is not an address
)


@pytest.mark.parametrize("command", ["plan", "doctor", "submit"])
@pytest.mark.parametrize("place", PLACES)
def test_an_address_with_a_password_is_not_said_again(
    command: str,
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if command == "doctor" and "url" not in place and "seed" not in place:
        pytest.skip("starts Ray")
    monkeypatch.chdir(tmp_path)
    overrides = [place.replace("SECRET", quote(secret("store"), safe="")), "data=digits"]
    main([command, *(["--json"] if command == "plan" else []), *overrides])
    output = "".join(capfd.readouterr())
    assert output
    assert list(leaks(output.encode(), command)) == []
    assert leaks_of(tmp_path) == []


# -- a job of a cluster ----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_job_carries_and_tells_nothing_secret(tmp_path: Path) -> None:
    env = environment() | {"RAY_AUTH_MODE": "token"}
    with ray_head(**env) as head:
        uri = f"sqlite:///{head.home / 'store.db'}"
        overrides = [*SWEEP, f"tracking.uri={uri}"]
        with Watch(head.log.parent) as watch:
            sent = ran(
                tmp_path,
                *overrides,
                command=("submit", "--follow", "--address", head.dashboard),
                env=env,
            )
        assert sent.code == 1, sent.stderr
        headers = {"Authorization": f"Bearer {env['RAY_AUTH_TOKEN']}"}
        job = sent.stdout.strip()
        for page in ("", job, f"{job}/logs"):
            request = urllib.request.Request(f"{head.dashboard}/api/jobs/{page}", headers=headers)
            with urllib.request.urlopen(request) as answer:
                content = answer.read()
            assert b"failed: " in content or b"metadata" in content
            assert list(leaks(content, f"/api/jobs/{page}")) == []
        assert watch.leaks() == []
        assert leaks_of(head.log.parent) == []
        assert leaks_of(tmp_path) == []


def test_every_name_is_planted() -> None:
    assert set(NAMES) <= set(environment())


@pytest.mark.parametrize(
    "text",
    ["s3://b/c?token=abc", "x='s3://b/c?token=abc': no", "a?password=p&b=1 http://me:pw@host/x"],
)
def test_what_is_shown_once_more_stays_as_it_is(text: str) -> None:
    once = redact(text)
    assert not any(secret in once for secret in ("abc", "=p&", "pw"))
    assert redact(once) == once
