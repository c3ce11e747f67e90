"""Components of other distributions: listing, planning, identity and errors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from masksweep.strategies import STRATEGIES, Invalid, Strategy, register
from masksweep.strategies.hard_mask import HardMask
from masksweep.sweeps.components.groups import GROUPS
from tests.support.command import complaint, masksweep
from tests.support.plugin import MODEL, WIDE, install
from tests.support.trials import trial


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


def theirs(tmp_path: Path, version: str = "1.0") -> str:
    return str(install(tmp_path / version, WIDE, {"their_models.py": MODEL}, version=version))


def planned(folder: Path, path: str, *arguments: str) -> list[str]:
    """The ids of the planned trials."""
    process = masksweep("plan", *arguments, "--json", cwd=folder, light=True, PYTHONPATH=path)
    return [trial["id"] for trial in json.loads(process.stdout)["trials"]]


def test_each_of_ours_is_found_in_a_file_of_its_own() -> None:
    for registry in GROUPS.values():
        assert len(registry) > 1
        modules = [component.__module__ for component in registry.values()]
        assert len(set(modules)) == len(modules)
        assert not any(registry.origin(name) for name in registry)


def test_a_model_of_another_distribution_is_listed_and_planned(
    folder: Path, tmp_path: Path
) -> None:
    path = theirs(tmp_path)
    listed = masksweep("list", cwd=folder, light=True, PYTHONPATH=path).stdout
    assert "  wide            One hidden layer. [their-parts 1.0]" in listed
    assert len(set(planned(folder, path, "model=wide", "model.units=8,16"))) == 2
    process = masksweep("plan", "model=wide", "model.units=0.5", cwd=folder, PYTHONPATH=path)
    assert complaint(process).startswith("model.units=0.5: ")


def test_its_version_belongs_to_the_identity(folder: Path, tmp_path: Path) -> None:
    paths = theirs(tmp_path), theirs(tmp_path, "1.1")
    (first,), (other,) = (planned(folder, path, "model=wide") for path in paths)
    assert first != other


def test_an_experiment_of_another_distribution_is_listed_and_planned(
    folder: Path, tmp_path: Path
) -> None:
    points = {**WIDE, "masksweep.experiments": {"theirs": "their_configs"}}
    files = {
        "their_models.py": MODEL,
        "their_configs/__init__.py": "",
        "their_configs/experiment/wide.yaml": "# @package _global_\n# How wide?\n"
        "defaults:\n  - override /model: wide\n"
        "sweep: {name: wide, parts: {a: {model.units: [4, 8]}}}\n",
    }
    path = str(install(tmp_path / "path", points, files))
    listed = masksweep("list", cwd=folder, light=True, PYTHONPATH=path).stdout
    assert "  wide            How wide? [their-parts 1.0]" in listed
    process = masksweep("plan", "+experiment=wide", cwd=folder, light=True, PYTHONPATH=path)
    assert "2 trials" in process.stdout, process.stderr


@pytest.mark.parametrize(
    ("points", "text", "said"),
    [
        (
            WIDE,
            "import nothing_of_this_name",
            "masksweep.models=wide: of their-parts 1.0 ",
        ),
        (
            WIDE,
            "class Wide: pass",
            "masksweep.models=wide: of their-parts 1.0 ",
        ),
        (
            WIDE,
            MODEL.replace('"wide"', '"mlp"'),
            "masksweep.models=mlp: the name of two components: masksweep.",
        ),
        (
            {"masksweep.experiments": {"x": "their_models"}},
            MODEL,
            "masksweep.experiments=x: no package with a folder experiment: ",
        ),
    ],
    ids=["does not import", "no component", "a name of ours", "no experiments"],
)
def test_what_is_wrong_with_another_distribution_is_one_line(
    points: dict[str, dict[str, str]], text: str, said: str, folder: Path, tmp_path: Path
) -> None:
    path = str(install(tmp_path / "path", points, {"their_models.py": text}))
    for command in ("plan", "list"):
        process = masksweep(command, cwd=folder, light=True, PYTHONPATH=path)
        assert complaint(process).startswith(said)


def test_what_is_no_component_is_refused() -> None:
    with pytest.raises(TypeError, match="must derive from one of Strategy, "):
        register(int)

    class Loose(Strategy):
        name = "loose"

    with pytest.raises(TypeError, match="must be a frozen dataclass"):
        register(Loose)

    @dataclass(frozen=True)
    class Spaced(Strategy):
        name: ClassVar[str] = "with blanks"

    with pytest.raises(TypeError, match="must be lower case"):
        register(Spaced)


def test_what_is_registered_by_code_has_its_files_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Own(Strategy):
        name: ClassVar[str] = "own"

    monkeypatch.setattr(STRATEGIES, "_components", dict(STRATEGIES))
    register(Own)
    assert STRATEGIES["own"] is Own
    assert STRATEGIES.origin("own").startswith("test_registry.py sha256:")
    with pytest.raises(Invalid, match=r"masksweep\.strategies=own: the name of two components"):

        @register
        @dataclass(frozen=True)
        class Another(Strategy):
            name: ClassVar[str] = "own"


def test_the_content_of_a_components_own_file_belongs_to_the_identity(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(STRATEGIES, "_components", dict(STRATEGIES))

    @register
    @dataclass(frozen=True)
    class Own(HardMask):
        name: ClassVar[str] = "own"
        path: str = ""

    file, ids = tmp_path / "own.txt", []
    for content in ("a", "b", "a"):
        file.write_text(content)
        ids.append(trial(strategy={"name": "own", "path": str(file)}).id)
    assert ids[0] == ids[2] != ids[1]
