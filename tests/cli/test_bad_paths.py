"""Tests of paths that cannot be read: they give one line and exit code 2, never a traceback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from masksweep.sweeps.cli import main as command
from masksweep.sweeps.cli.main import main
from masksweep.sweeps.tracking.store import StoreUnavailable

LONG = "a" * 300


@pytest.fixture
def deleted(tmp_path: Path) -> Iterator[None]:
    """Changes to a current folder that has been deleted."""
    before, folder = Path.cwd(), tmp_path / "gone"
    folder.mkdir()
    os.chdir(folder)
    folder.rmdir()
    yield
    os.chdir(before)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["audit", LONG, "masks.npz"], f"audit={LONG}"),
        (["audit", ".", "masks.npz", "--held", LONG], f"--held={LONG}"),
        (["reproduce", LONG], f"reproduce={LONG}"),
    ],
    ids=lambda value: None,
)
def test_a_name_that_no_file_can_have(
    arguments: list[str], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"masksweep: {key}: cannot be read: ")


@pytest.mark.parametrize(
    "command",
    ["run", "plan", "ui", "report", "bench", "doctor", "submit", "audit x y", "reproduce x"],
)
def test_a_current_folder_that_was_deleted(
    command: str, deleted: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command.split()) == 2
    assert capsys.readouterr().err == (
        "masksweep: current folder=: was deleted; change to another\n"
    )


def test_a_store_that_is_away_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(command: str, arguments: list[str]) -> int:
        raise StoreUnavailable("http://me:secret@127.0.0.1:1 does not answer")

    monkeypatch.setattr(command, "_run", away)
    assert main(["bench"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("masksweep: the tracking store cannot be reached: http")
    assert "secret" not in line
