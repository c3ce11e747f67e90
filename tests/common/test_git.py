"""The git commit of the code, which the record of a trial's environment contains."""

from __future__ import annotations

import os
import re
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from masksweep.sweeps.common import git, provenance
from masksweep.sweeps.driver.compare_runs import compare
from masksweep.sweeps.results import TrialResult
from masksweep.sweeps.tracking import run_config
from tests.support.trials import trial as make

HASH = re.compile(r"[0-9a-f]{40}")


def run_git(folder: Path, *arguments: str) -> None:
    author = ["-c", "user.name=somebody", "-c", "user.email=some@body"]
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    subprocess.run(["git", "-C", str(folder), *author, *arguments], check=True, env=env)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The folder of a package that is committed in a repository with a remote."""
    for name in ("sweeps", "strategies", "conf"):
        (tmp_path / "tree" / name).mkdir(parents=True)
        (tmp_path / "tree" / name / "__init__.py").write_text("")
    tree = tmp_path / "tree"
    run_git(tree, "init", "-q", "-b", "secret_branch")
    run_git(tree, "remote", "add", "origin", "https://somebody:secret@host/x.git")
    run_git(tree, "add", ".")
    run_git(tree, "commit", "-q", "-m", "secret message")
    return tree / "sweeps"


def test_a_commit_is_its_hash_alone(package: Path) -> None:
    assert HASH.fullmatch(git.commit_of(package))


@pytest.mark.parametrize("changed", ["sweeps/__init__.py", "strategies/new.py", "conf/a.yaml"])
def test_changed_and_new_code_is_told(package: Path, changed: str) -> None:
    before = git.commit_of(package)
    (package.parent / changed).write_text("x = 1\n")
    assert git.commit_of(package) == f"{before} with changes"
    run_git(package.parent, "add", ".")
    assert git.commit_of(package) == f"{before} with changes"


def test_results_beside_the_code_are_no_change_of_it(package: Path) -> None:
    before = git.commit_of(package)
    (package.parent / "mlflow.db").write_text("results")
    assert git.commit_of(package) == before


def test_nothing_is_written_to_the_tree(package: Path) -> None:
    os.utime(package / "__init__.py", (1, 1))  # `git status` would refresh the index
    index = package.parent / ".git" / "index"
    before = index.read_bytes()
    assert HASH.fullmatch(git.commit_of(package))
    assert index.read_bytes() == before


def test_code_in_no_commit_has_none(package: Path, tmp_path: Path) -> None:
    """For example, code that is installed in a virtual environment within a repository."""
    installed = package.parent / ".venv" / "site-packages" / "sweeps"
    loose = tmp_path / "loose" / "sweeps"
    for folder in (installed, loose):
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
        assert git.commit_of(folder) == ""
    fresh = tmp_path / "fresh" / "sweeps"
    fresh.mkdir(parents=True)
    run_git(fresh.parent, "init", "-q")
    assert git.commit_of(fresh) == ""
    assert git.commit_of(tmp_path / "nowhere") == ""


def test_a_hook_of_another_repository_does_not_lead_there(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = git.commit_of(package)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "another"))
    assert git.commit_of(package) == before


def test_without_git_there_is_none(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert git.commit_of(package) == ""


def test_a_git_that_does_not_answer_is_not_waited_for(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", str(slow.parent), prepend=os.pathsep)
    monkeypatch.setattr(git, "TIMEOUT_SECONDS", 0.2)
    start = time.monotonic()
    assert git.commit_of(package) == ""
    assert time.monotonic() - start < 30


def test_git_is_asked_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []
    monkeypatch.setattr(git, "commit_of", lambda package: calls.append(package) or "a" * 40)
    git.commit.cache_clear()
    try:
        assert [git.commit() for _ in range(3)] == ["a" * 40] * 3
    finally:
        git.commit.cache_clear()
    assert calls == [Path(git.__file__).parents[1]]


def test_the_commit_is_recorded_and_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    configs = []
    for code in ("", "a" * 40, f"{'b' * 40} with changes"):
        monkeypatch.setattr(provenance, "commit", lambda code=code: code)
        environment = "".join(f"{k}: {v}\n" for k, v in provenance.environment().items())
        result = TrialResult("ok", artifacts={"environment.txt": environment.encode()})
        configs.append(run_config.recorded_results(make(), "r", result, {}, {}))
    nothing, clean, dirty = configs
    assert "commit" not in nothing.environment
    assert compare(clean, replace(clean, run="s")).environment == {}
    line = f"environment: commit was {'a' * 40}, is {'b' * 40} with changes"
    assert line in compare(clean, dirty).explanation()
    assert f"environment: commit was -, is {'a' * 40}" in compare(nothing, clean).explanation()
