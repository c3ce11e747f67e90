"""Packages import only those below them, and everything is installed under one import name."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[1]


def test_imports_run_one_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert lint_imports(no_cache=True) == 0


def test_no_files_import_each_other_in_a_circle() -> None:
    """Also not for annotations only, and not inside functions."""
    packages = grimp.build_graph("masksweep.strategies", "masksweep.sweeps", cache_dir=None)
    imports = {file: packages.find_modules_directly_imported_by(file) for file in packages.modules}
    assert len(imports) > 200
    TopologicalSorter(imports).prepare()  # raises CycleError


def test_an_import_that_runs_upward_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checks the same contract on empty packages of the same names, one with an upward import."""
    package = tmp_path / "masksweep"
    for name in ("strategies", "sweeps"):
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").touch()
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    for contract in contracts["contracts"]:
        for container in contract.get("containers", ()):
            for layer in " | ".join(contract["layers"]).split(" | "):
                (package / container.rsplit(".", 1)[-1] / f"{layer}.py").touch()
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())

    def linted() -> int:
        command = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
        env = {"PYTHONPATH": str(tmp_path)}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True).returncode

    assert linted() == 0
    for folder, low, high in (("sweeps", "common", "cli"), ("strategies", "plan", "keras_model")):
        upward = f"if TYPE_CHECKING:\n    from masksweep.{folder} import {high}\n"
        lower = package / folder / f"{low}.py"
        lower.write_text(f"from typing import TYPE_CHECKING\n{upward}")
        assert linted() == 1
        lower.write_text("")


def test_each_package_is_installed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = [
        p.parent
        for top in ("conf", "strategies", "sweeps")
        for p in ROOT.glob(f"{top}/**/__init__.py")
    ]
    assert sorted(listed) == sorted(
        ".".join(["masksweep", *f.relative_to(ROOT).parts]) for f in folders
    )


def test_nothing_is_installed_under_another_name(tmp_path: Path) -> None:
    code = (
        "from importlib.util import find_spec;"
        "print([n for n in ('conf', 'strategies', 'sweeps') if find_spec(n)])"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "[]"


def test_no_test_file_imports_another() -> None:
    imported = re.compile(r"^\s*(?:from|import) (?:tests[\w.]*)?\.test_", re.MULTILINE)
    assert imported.search("from tests.cli.test_main import masksweep")
    files = [p for p in ROOT.glob("tests/**/*.py") if imported.search(p.read_text())]
    assert files == []
