"""Folders of configs from other people may hold only data. Others are refused before any start."""

from __future__ import annotations

import math
import os
import shutil
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from masksweep.sweeps.common import limits
from masksweep.sweeps.composing import includes, untrusted
from masksweep.sweeps.driver import sweep_jobs
from tests.support.data_files import write_csv
from tests.support.hostile_configs import (
    CALLBACKS,
    CONTENTS,
    FOLDERS,
    GLOBAL,
    HARMLESS,
    LEADS,
    SENT,
    SETTINGS,
    THEIRS,
)
from tests.support.light_process import Light, light


class Steals:
    def __reduce__(self) -> tuple[object, ...]:
        return shutil.copyfile, ("secret", "stolen")


def npy(header: str, content: bytes = b"") -> bytes:
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


def members(path: Path, content: bytes, said: int | None = None) -> None:
    """Writes an archive of one array. `said` is the size that the archive states for it."""
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("output/kernel.npy", content)
        packed.infolist()[0].file_size = said or len(content)


@pytest.fixture(scope="module")
def command() -> Iterator[Light]:
    with light() as started:
        yield started


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder, with `configs` from somebody else in it."""
    (tmp_path / "secret").write_text("a secret")
    masks = {"output/kernel": np.ones((100, 10), int)}
    np.savez(tmp_path / "mine.npz", **masks)  # type: ignore[arg-type]
    put(tmp_path / "elsewhere/runs.yaml", GLOBAL + CALLBACKS)
    configs = tmp_path / "configs"
    put(configs / THEIRS, GLOBAL)
    np.savez(configs / "masks.npz", **masks)  # type: ignore[arg-type]
    return tmp_path


def put(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def hostile_files(configs: Path) -> None:
    """Adds harmful files that somebody else could have put there."""
    put(configs / "tracking/them.yaml", "uri: there")
    put(configs / "mine/them.yaml", "uri: there")
    with zipfile.ZipFile(configs / "lambda.keras", "w") as packed:
        packed.writestr("config.json", '{"class_name": "Lambda", "config": {}}')
    (configs / "link.npz").symlink_to("../mine.npz")
    (configs / "loop.npz").symlink_to("loop.npz")
    for part in ("train", "test"):
        (configs / "images" / part / "a").mkdir(parents=True)
        (configs / "images" / part / "a/link.png").symlink_to("../../../../mine.npz")
    os.mkfifo(configs / "pipe.npz")
    os.mkfifo(configs / "pipe.keras")
    with (configs / "holes.keras").open("wb") as stream:
        stream.truncate(2**40)
    steals = np.array([Steals()], dtype=object)
    np.savez(configs / "pickled.npz", **{"output/kernel": steals})
    put(configs / "pickle.npz", steals.dumps())
    header = "{'descr': %s, 'fortran_order': False, 'shape': %s}"
    members(configs / "code.npz", npy(header % ("__import__('os').system('touch ran')", "(1,)")))
    members(configs / "shape.npz", npy(header % ("'<f8'", "(1000000000000000,)")))
    members(configs / "bomb.npz", npy(header % ("'|b1'", "(1,)"), b"1"), said=2**40)
    with (configs / "holes.npz").open("wb") as stream:
        stream.truncate(2**40)
        stream.seek(0, os.SEEK_END)
        with zipfile.ZipFile(stream, "w") as packed:
            packed.writestr("output/kernel.npy", b"")


def snapshot(folder: Path) -> dict[Path, float]:
    return {path: path.lstat().st_mtime for path in folder.rglob("*")}


def refused(command: Light, folder: Path, *arguments: str, names: str = "plan run") -> str:
    """The error line of the commands. Checks that they start, load and write nothing."""
    before, messages = snapshot(folder), set()
    for name in names.split():
        result = command(folder, name, "--config-dir", "configs", *arguments)
        assert result.code == 2, result.err
        assert result.out == ""
        assert result.loaded == []
        (line,) = result.err.splitlines()
        assert str(Path.home()) not in line.replace(str(folder), "")
        messages.add(line)
    assert snapshot(folder) == before
    (line,) = messages
    assert line.startswith("masksweep: ")
    return line.removeprefix("masksweep: ")


@pytest.mark.parametrize(
    ("text", "why"),
    [pytest.param(text, why, id=what) for why in CONTENTS for what, text in CONTENTS[why].items()],
)
def test_a_config_that_is_more_than_data_is_refused(
    text: str, why: str, command: Light, folder: Path
) -> None:
    put(folder / "configs" / THEIRS, GLOBAL + text)
    message = refused(command, folder, "+experiment=theirs")
    assert message.startswith(f"--config-dir=configs/experiment/theirs.yaml: {why}")


@pytest.mark.parametrize(("files", "why"), FOLDERS.values(), ids=FOLDERS)
def test_a_folder_that_holds_more_than_data_is_refused(
    files: dict[str, str | bytes], why: str, command: Light, folder: Path
) -> None:
    for name, content in files.items():
        put(folder / "configs" / name, content)
    assert refused(command, folder, "+experiment=theirs").startswith(why)


@pytest.mark.parametrize("files", LEADS.values(), ids=LEADS)
def test_defaults_that_lead_to_no_end_are_refused(
    files: dict[str, str], command: Light, folder: Path
) -> None:
    for name, content in files.items():
        put(folder / "configs/experiment" / name, content)
    message = refused(command, folder, "+experiment=theirs")
    assert message.endswith(": defaults lead to themselves, or to more than 1000 configs")


@pytest.mark.parametrize(("text", "why"), SETTINGS.values(), ids=SETTINGS)
def test_what_a_config_names_is_refused(text: str, why: str, command: Light, folder: Path) -> None:
    """Each text is added to a valid config, so that only the text can be the reason."""
    key, _, value = text.partition(": ")
    if key == "pattern" and not value.startswith("{"):
        text = f"defaults: [{{override /pattern: file}}]\npattern: {{path: {value}}}"
    hostile_files(folder / "configs")
    put(folder / "configs" / THEIRS, GLOBAL + text)
    assert refused(command, folder, "+experiment=theirs", names="plan").startswith(why)


@pytest.mark.parametrize("text", HARMLESS.values(), ids=HARMLESS)
def test_what_does_nothing_is_let_through(text: str, command: Light, folder: Path) -> None:
    put(folder / "configs" / THEIRS, GLOBAL + text)
    before = snapshot(folder)
    arguments = ("--config-dir", "configs", "+experiment=theirs")
    result = command(folder, "plan", *arguments)
    assert (result.code, result.err, result.loaded) == (0, "", [])
    assert "1 trial: 1 to run" in result.out
    assert snapshot(folder) == before


@pytest.mark.parametrize("name", ["../../stolen", "..", "/etc/passwd", "a\0b", "a" * 1000])
def test_a_sweeps_name_leads_nowhere(name: str, tmp_path: Path) -> None:
    inside = (tmp_path / sweep_jobs.log_folder(name)).resolve()
    assert inside.is_relative_to(tmp_path / limits.STATE_FOLDER)


@pytest.mark.parametrize("what", ["a file", "a folder", "a pipe", "nothing"])
def test_a_config_that_lies_elsewhere_is_refused(what: str, command: Light, folder: Path) -> None:
    config = folder / "configs" / "experiment" / "x.yaml"
    match what:
        case "a file":
            config.symlink_to("../../elsewhere/runs.yaml")
            why = "no link to another folder or file"
        case "a folder":
            config.with_suffix("").symlink_to("/")
            config, why = config.with_suffix(""), "no link to another folder or file"
        case "a pipe":
            os.mkfifo(config)
            why = "not readable as YAML: no file"
        case "nothing":
            config.symlink_to("nowhere")
            why = "no link to another folder or file"
    message = refused(command, folder, "seed=1")
    assert message == f"--config-dir={config.relative_to(folder)}: {why}"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--config-name", "theirs"], "--config-name=theirs: not offered"),
        (["-cn", "theirs"], "--config-name=theirs: not offered"),
        (["--config-path", "configs"], "--config-path=configs: not offered"),
        (["--experimental-rerun", "configs/pickle.npz"], "--experimental-rerun=: not offered"),
        (["hydra.searchpath=[file:///]"], "hydra.searchpath=[file:///]: Hydra's own config"),
        (["tracking=them"], f"tracking.uri=there: {SENT}"),
        (["tracking.uri=mine", "+experiment=insists"], f"tracking.uri=there: {SENT}"),
    ],
)
def test_a_command_line_does_not_open_a_door_by_accident(
    arguments: list[str], why: str, command: Light, folder: Path
) -> None:
    hostile_files(folder / "configs")
    put(folder / "configs/theirs.yaml", "seed: 1")
    insists = GLOBAL + "sweep: {parts: {a: {++tracking.uri: there}}}"
    put(folder / "configs/experiment/insists.yaml", insists)
    assert refused(command, folder, *arguments).startswith(why)


@pytest.mark.parametrize(
    ("named", "arguments"),
    [
        ("defaults: [/results/1/config]", ["+experiment=theirs"]),
        ("sweep: {parts: {a: {+results@optimizer: config}}}", ["+experiment=theirs"]),
        ("defaults: [/other/a]", ["+experiment=theirs"]),
        ("", ["+results/1=config"]),
        ("", ["+results@data=1/config"]),
        ("", ["+loose@data=x"]),
        ("defaults: [/loose]", ["+experiment=theirs"]),
    ],
)
def test_only_what_can_be_reached_is_looked_at(
    named: str, arguments: list[str], command: Light, folder: Path
) -> None:
    """The folder may hold results of a sweep, which are not configs unless something names them."""
    put(folder / "configs/results/1/config.yaml", CALLBACKS)
    put(folder / "configs/.github/workflows/x.yml", "a: ${b}")
    put(folder / "configs/loose.yaml", CALLBACKS)
    put(folder / "configs/other/a.yaml", GLOBAL + "defaults: [/results/1/config]")
    (folder / "configs/link").symlink_to("/")
    result = command(folder, "plan", "--config-dir", "configs", "+experiment=theirs")
    assert result.code == 0, result.err
    put(folder / "configs" / THEIRS, GLOBAL + named)
    message = refused(command, folder, *arguments)
    assert message.startswith("--config-dir=configs/"), message
    assert message.endswith(": Hydra's own config is fixed here"), message


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("zoo", ["zoo/a"]),
        ("zoo", ["/Zoo/a"]),
        ("Zoo", ["/zoo/a"]),
        ("STRASSE", ["/straße/a"]),
        ("caf\u00e9", ["/CAFE\u0301/a"]),
        ("Loose.YAML", ["lOOSE"]),
        ("Data", []),
        ("Config.yaml", []),
        ("HYDRA", []),
    ],
)
def test_a_file_system_without_case_opens_what_is_named_in_another(
    entry: str, words: list[str], tmp_path: Path
) -> None:
    """Such a file is checked too. `data` and `config.yaml` are names that Masksweep has."""
    path = tmp_path / entry
    path.touch() if path.suffix else path.mkdir()
    assert untrusted._is_reachable(path, {"data", "config.yaml"}, words)
    assert not untrusted._is_reachable(tmp_path / "other", {"data", "config.yaml"}, words)


def test_defaults_that_lead_to_themselves_in_another_case() -> None:
    config, other = Path("experiment/theirs.yaml"), Path("Zoo/A.yaml")
    counts = includes.count_included({config: {"defaults": ["/zoo/a"]}, other: {}})
    assert counts == {config: 2, other: 1}
    contents = {config: {"defaults": ["/zoo/a"]}, other: {"defaults": ["/ZOO/a"]}}
    counts = includes.count_included(contents)
    assert counts == {config: math.inf, other: math.inf}


def test_files_whose_names_differ_in_case_only_are_two() -> None:
    lower, upper = Path("a.yaml"), Path("A.yaml")
    assert includes.count_included({lower: {"defaults": ["A"]}, upper: {}}) == {lower: 2, upper: 1}


OWN = """\
# @package _global_
# the config of somebody who knows Hydra
defaults: [mine/base, {override /data: digits}, {override /pattern: file}]
seed: 7
train: {epochs: 3}
pattern: {path: configs/masks.npz}
sweep:
  name: mine
  question: Does it cost 5 $ {or more}?
  parts:
    a: &a {targets: [["output/*"]], seed: [1, 2]}
    b: {<<: *a, held: constant}
"""


def test_ones_own_config_files_are_used(command: Light, folder: Path) -> None:
    put(folder / "configs/experiment/own.yaml", OWN)
    put(folder / "configs/experiment/mine/base.yaml", GLOBAL + "optimizer: {learning_rate: 0.5}")
    before = snapshot(folder)
    result = command(folder, "plan", "--config-dir=configs", "+experiment=own")
    assert result.code == 0, result.err
    assert result.out.endswith("4 trials: 4 to run\n")
    assert "held constant" in result.out
    assert result.loaded == []
    assert snapshot(folder) == before


@pytest.mark.parametrize(
    "said",
    [
        ["tracking.uri=sqlite:///mine.db"],
        ["tracking={uri: 'sqlite:///mine.db'}"],
        ["checkpoint.path=s3://mine/x"],
        ["launch.address=ray://mine:1"],
        ["pattern=file", "pattern.path='mine.npz'"],
        ["pattern=file", "pattern.path=mine.npz,configs/more.npz,more.npz"],
        ["pattern=union", "pattern.of=[random,{name: file, path: mine.npz}]"],
        ["pattern=complement", "pattern.of={name: file, path: mine.npz},columns"],
        ["pattern=file", "pattern={path: more.npz}"],
        ["held=file", "held.path=mine.npz"],
        ["schedule=given", "schedule.path=mine.npz"],
        ["strategy=glob(*mask)", "pattern=glob(ro*)"],
        ["data=csv", "data.path=mine.csv", "data.target=kind"],
        ["model=keras_file", "model.path=mine.keras"],
        ["start.path=mine.keras"],
    ],
    ids=" ".join,
)
def test_a_place_of_the_command_line_is_taken(
    said: list[str], command: Light, folder: Path
) -> None:
    """The command line may name places that a config must not name."""
    with zipfile.ZipFile(folder / "mine.keras", "w") as packed:
        packed.writestr("config.json", '{"class_name": "Sequential", "config": {}}')
    for name in (
        "configs/more.npz",
        "more.npz",
    ):  # different masks make different trials
        masks = {"output/kernel": np.eye(100, 10, len(name))}
        np.savez(folder / name, **masks)  # type: ignore[arg-type]
    write_csv(folder / "mine.csv")
    result = command(folder, "plan", "--config-dir", "configs", "--rerun", *said)
    assert result.code == 0, result.err


def test_what_is_shipped_would_pass_as_a_strangers() -> None:
    """So a user can start from a copy of a shipped config."""
    shipped = Path(untrusted.__file__).parents[2] / "conf"
    configs = [path for path in shipped.rglob("*.yaml") if path.name != "config.yaml"]
    assert len(configs) > 40
    for path in configs:
        untrusted.read(path, Path("experiment/copy.yaml"))
