"""Tests that the required versions of dependencies exclude known vulnerabilities."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
CLOSED = {
    "filelock": "3.20.3",  # CVE-2025-68146, CVE-2026-22701
    "keras": "3.15",  # CVE-2025-8747, -9905, -9906, -12058, CVE-2026-0897, -1462, -12481
    "mlflow": "3.11.1",  # CVE-2025-14279, CVE-2026-0545, -2614, -2651, -2652, -4137, -33866
    "pillow": "12.1.1",  # CVE-2025-48379, CVE-2026-25990
    "pyyaml": "6.0",  # CVE-2020-14343
    "ray": "2.54",  # CVE-2026-27482
    "scikit-learn": "1.5",  # CVE-2024-5206
}
"""The first version of each package without these vulnerabilities."""


@pytest.mark.parametrize("name", CLOSED)
def test_no_older_version_can_be_installed(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    specifiers = {r.name: r.specifier for r in map(Requirement, project["dependencies"])}
    floors = [Version(s.version) for s in specifiers[name] if s.operator in (">=", "==", "~=")]
    assert floors, f"{name} has no least version"
    assert max(floors) >= Version(CLOSED[name])


def test_the_versions_of_the_image_are_such() -> None:
    lines = (ROOT / "docker" / "constraints.txt").read_text().splitlines()
    pinned = dict(line.lower().replace("_", "-").split("==") for line in lines if "==" in line)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in map(Requirement, project["dependencies"]):
        assert requirement.specifier.contains(pinned[requirement.name]), requirement
