"""Follows `.github/CONTRIBUTING.md` word by word in a new virtual environment."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import sysconfig
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from masksweep.sweeps.components.groups import GROUPS
from tests.support.sweep_process import clean_env, local_store

PAGE = Path(__file__).parents[2] / ".github" / "CONTRIBUTING.md"
BLOCK = re.compile(r"(?:^(Add to )?`([^`\n]+)`:\n\n)?^```(\w+)\n(.*?)^```$", re.M | re.S)
ADDED = ("strategies", "patterns", "held", "schedules", "models", "datasets", "optimizers")


@dataclass(frozen=True)
class Page:
    files: dict[str, str]
    """Contents of the files that the page defines, by path."""
    commands: list[str]
    """The console commands of its last section."""


def read() -> Page:
    text = PAGE.read_text().partition("## A package of your own")[2]
    files: dict[str, str] = {}
    commands: list[str] = []
    for addition, path, language, content in BLOCK.findall(text):
        if language == "console":
            commands += content.splitlines()
        else:
            assert path, f"a block without a path: {content[:50]}"
            assert bool(addition) == (path in files), path
            files[path] = f"{files[path]}\n{content}" if addition else content
    return Page(files, commands)


def test_the_page_adds_one_component_of_each_kind() -> None:
    page = read()
    points = tomllib.loads(page.files["pyproject.toml"])["project"]["entry-points"]
    assert list(points) == [f"masksweep.{kind}" for kind in ADDED]
    assert {registry.kind for registry in GROUPS.values()} == set(ADDED)
    for group in points.values():
        ((name, value),) = group.items()
        assert f'name: ClassVar[str] = "{name}"' in page.files[f"my_parts/{name}.py"]
        assert value.startswith(f"my_parts.{name}:")
        assert f"tests/test_{name}.py" in page.files
    assert {c.split()[0] for c in page.commands} == {"pip", "pytest", "masksweep"}


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Follows the page; returns (the project's folder, what each command printed)."""
    folder = tmp_path_factory.mktemp("followed")
    page, env = read(), folder / "env"
    subprocess.run([sys.executable, "-m", "venv", str(env)], check=True)
    # the new environment also sees this environment's packages; commands run with its own Python
    site = sysconfig.get_path("purelib")
    site_packages = next(env.glob("lib/python*/site-packages"))
    (site_packages / "here.pth").write_text(f"import site; site.addsitedir({site!r})\n")
    for command, module in (("masksweep", "masksweep.sweeps.cli"), ("pytest", "pytest")):
        script = env / "bin" / command
        script.write_text(f'#!/bin/sh\nexec "{env}/bin/python" -P -m {module} "$@"\n')
        script.chmod(0o755)
    project = folder / "project"
    for path, content in page.files.items():
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text(content)
    printed = {}
    for command in page.commands:
        process = subprocess.run(
            shlex.split(command),
            cwd=project,
            env=clean_env(PATH=f"{env}/bin{os.pathsep}{os.environ['PATH']}"),
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, f"{command}\n{process.stdout}\n{process.stderr}"
        printed[command.split(" strategy")[0]] = process.stdout
    return project, printed


@pytest.mark.slow
def test_the_page_can_be_followed(followed: tuple[Path, dict[str, str]]) -> None:
    _, printed = followed
    for name in ("reset", "stripes", "mean", "shuffled", "shallow", "circles", "adamax"):
        assert re.search(rf"^  {name} .*\[my-parts 1\.0\]$", printed["masksweep list"], re.M), name
    assert "2 trials" in printed["masksweep plan"]
    assert re.search(r"^reset .*holds", printed["masksweep run"], re.M), printed["masksweep run"]


@pytest.mark.slow
def test_what_was_swept_is_reproduced(followed: tuple[Path, dict[str, str]]) -> None:
    project, printed = followed
    (name,) = re.findall(r"\(sweep '(.*)'\)", printed["masksweep run"])
    (trial,) = [
        run
        for run in local_store(project, name).children
        if run.data.tags["trial.strategy"] == "reset"
    ]
    assert trial.info.status == "FINISHED"
    process = subprocess.run(
        [str(project.parent / "env/bin/masksweep"), "reproduce", trial.info.run_id],
        cwd=project,
        env=clean_env(),
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout + process.stderr
