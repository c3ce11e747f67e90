"""Tests of a run's config file: it is enough to run the trial again, and it is only data."""

from __future__ import annotations

import hashlib
import math
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from masksweep.strategies import Invalid
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.results import TrialResult
from masksweep.sweeps.tracking import run_config
from tests.support import data_files
from tests.support.trials import trial as make

RESULT = TrialResult(
    "ok",
    metrics={"test/loss": 0.1 + 0.2, "train/loss": math.nan, "speed/step_ms": 1.0},
    tags={"trial.weights_sha256": "ab" * 32},
    artifacts={"environment.txt": b"python: 3.12\ngpus: []\n"},
    epochs=2,
)
CURVES = {"train/loss": {1: 1 / 3, 2: math.inf}}


def written(folder: Path, trial: Trial) -> Path:
    """Writes the config of a run that has ended, and the files it names, into a folder."""
    copies = run_config.copy_named_files(trial)
    for name, content in copies.items():
        (folder / name).write_bytes(content)
    path = folder / "config.yaml"
    path.write_text(
        run_config.config_text(
            trial, run_config.recorded_results(trial, "r" * 32, RESULT, CURVES, copies)
        )
    )
    return path


def masks(folder: Path) -> Path:
    path = folder / "mine.npz"
    kernels = {"hidden_1/kernel": (64, 12), "hidden_2/kernel": (12, 8)}
    np.savez(path, **{n: np.arange(np.prod(s)).reshape(s) % 2 for n, s in kernels.items()})
    return path


def test_a_trial_is_read_as_it_was_written(tmp_path: Path) -> None:
    trial = make(launch={"pack": 4}, model={"name": "mlp", "hidden": [12], "dropout": 0.1})
    read_trial, recorded = run_config.read(written(tmp_path, trial))
    assert recorded
    assert read_trial.id == trial.id
    assert read_trial.width == 4
    assert recorded.trial == trial.id
    assert recorded.curves == CURVES
    assert recorded.metrics["test/loss"] == RESULT.metrics["test/loss"]
    assert math.isnan(recorded.metrics["train/loss"])
    assert recorded.environment == {"python": "3.12", "gpus": "[]"}


def test_files_that_the_config_names_travel_with_it(tmp_path: Path) -> None:
    mask_file, run_folder = masks(tmp_path), tmp_path / "far"
    run_folder.mkdir()
    trial = make(pattern={"name": "file", "path": str(mask_file)})
    path = written(run_folder, trial)
    digest = hashlib.sha256(mask_file.read_bytes()).hexdigest()
    mask_file.unlink()
    read_trial, recorded = run_config.read(path)
    assert recorded
    assert read_trial.id == trial.id
    assert recorded.files == {"given_pattern.npz": digest}
    (run_folder / "given_pattern.npz").write_bytes(masks(tmp_path).read_bytes() + b" ")
    with pytest.raises(Invalid, match="another content than the one that ran"):
        run_config.read(path)
    (run_folder / "given_pattern.npz").unlink()
    with pytest.raises(Invalid, match="no such file beside"):
        run_config.read(path)


def test_a_list_of_edges_travels_as_it_is_read(tmp_path: Path) -> None:
    edges, run_folder = tmp_path / "mine.csv", tmp_path / "far"
    run_folder.mkdir()
    edges.write_text("source,target\n0,1\n")
    trial = make(pattern={"name": "edges", "path": str(edges)}, targets=["hidden_1/kernel"])
    path = written(run_folder, trial)
    edges.unlink()
    read_trial, recorded = run_config.read(path)
    assert recorded
    assert read_trial.id == trial.id
    assert list(recorded.files) == ["given_pattern.csv"]
    assert all(map(run_config.is_file_of_run, recorded.files))


def test_files_of_the_parts_of_a_pattern_travel_too(tmp_path: Path) -> None:
    edges, mask_file, run_folder = tmp_path / "mine.csv", masks(tmp_path), tmp_path / "far"
    run_folder.mkdir()
    edges.write_text("source,target\n0,1\n")
    parts = [{"name": "edges", "path": str(edges)}, {"name": "file", "path": str(mask_file)}]
    pattern = {"name": "by_weight", "of": [["hidden_1/*", {"name": "union", "of": parts}]]}
    trial = make(pattern=pattern, targets=["hidden_1/kernel"])
    identity = trial.id
    path = written(run_folder, trial)
    assert trial.id == identity == make(pattern=pattern, targets=["hidden_1/kernel"]).id
    edges.unlink()
    mask_file.unlink()
    assert str(tmp_path) not in path.read_text()
    read_trial, recorded = run_config.read(path)
    assert recorded
    assert read_trial.id == trial.id
    assert list(recorded.files) == ["given_pattern_1.csv", "given_pattern_2.npz"]
    assert all(map(run_config.is_file_of_run, recorded.files))
    (run_folder / "given_pattern_1.csv").write_text("source,target\n1,0\n")
    with pytest.raises(Invalid, match="another content than the one that ran"):
        run_config.read(path)


def test_a_config_names_only_files_beside_it_for_parts_of_a_pattern_too(tmp_path: Path) -> None:
    part = {"name": "file", "path": str(masks(tmp_path))}
    path = written(tmp_path, make(pattern={"name": "union", "of": [part]}))
    path.write_text(path.read_text().replace("given_pattern_1.npz", part["path"]))
    with pytest.raises(Invalid, match="must be a file beside the config"):
        run_config.read(path)


@pytest.mark.parametrize("kind", ["npz", "csv"])
def test_a_small_file_of_data_travels_with_the_config(kind: str, tmp_path: Path) -> None:
    path, settings = data_of(kind, tmp_path)
    run_folder = tmp_path / "far"
    run_folder.mkdir()
    trial = make(data=settings, objective="test/loss")
    assert f"sha256:{trial.data.digest}" in run_config.config_text(trial)  # at its start
    written_config = written(run_folder, trial)
    path.unlink()
    read_trial, recorded = run_config.read(written_config)
    assert recorded
    assert read_trial.id == trial.id
    assert recorded.files == {f"given_data.{kind}": trial.data.digest}
    assert str(tmp_path) not in written_config.read_text()
    (run_folder / f"given_data.{kind}").write_bytes(b"other")
    with pytest.raises(Invalid, match="another content than the one that ran"):
        run_config.read(written_config)


@pytest.mark.parametrize("kind", ["npz", "csv", "keras", "image_folder"])
def test_data_that_are_not_copied_are_recorded_by_their_digest(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_config, "MAX_COPIED_DATA_BYTES", 10)
    path, settings = data_of(kind, tmp_path)
    run_folder = tmp_path / "far"
    run_folder.mkdir()
    masks_too = {"pattern": {"name": "file", "path": str(masks(tmp_path))}}
    trial = make(data=settings, objective="test/loss", **masks_too)
    config = written(run_folder, trial)
    assert str(tmp_path) not in config.read_text()
    described = trial.data.load().described()
    away = path.rename(tmp_path / "away")
    read_trial, recorded = run_config.read(config)
    assert recorded
    assert list(recorded.files) == ["given_pattern.npz"]  # the masks are copied all the same
    assert read_trial.id == trial.id
    assert read_trial.data.is_elsewhere
    with pytest.raises(Invalid, match=r"^data\.path=sha256:.*: must be the path of these data"):
        read_trial.data.load()
    beside = run_folder / ("given_data" if away.is_dir() else f"given_data.{kind}")
    beside.symlink_to(away)
    assert run_config.read(config)[0].data.is_elsewhere  # a link may lead out of the folder
    assert run_config.read(config, str(away))[0].data.load().described() == described
    said = "must be a folder with" if away.is_dir() else "another content than the one that ran"
    with pytest.raises(Invalid, match=f"^--data=.*: {said}"):
        run_config.read(config, str(masks(tmp_path)))
    beside.unlink()
    away.rename(beside)
    read_trial, _ = run_config.read(config)
    assert read_trial.id == trial.id
    assert read_trial.data.load().described() == described
    inner = {"keras": "train-labels-idx1-ubyte", "image_folder": "train/a/000.png"}
    file = beside / inner.get(kind, "")
    file.write_bytes(file.read_bytes() + b"0")
    assert run_config.read(config)[0].data.is_elsewhere


def data_of(kind: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Writes data, and returns its path and the settings of the data set."""
    if kind == "keras":
        path = data_files.write_idx(folder / "images")
    elif kind == "image_folder":
        path = data_files.write_images(folder / "pictures", {"train": 2, "test": 1})
    elif kind == "csv":
        path = data_files.write_csv(folder / "data.csv")
    else:
        path = data_files.write_npz(folder / "data.npz")
    settings = {"name": kind, "path": path} | ({"target": "kind"} if kind == "csv" else {})
    return Path(path), settings


def test_a_model_travels_as_it_is_read(tmp_path: Path) -> None:
    net, run_folder = tmp_path / "mine.keras", tmp_path / "far"
    run_folder.mkdir()
    with zipfile.ZipFile(net, "w") as archive:
        archive.writestr("config.json", '{"class_name": "Sequential", "config": {}}')
    trial = make(model={"name": "keras_file", "path": str(net)})
    path = written(run_folder, trial)
    net.unlink()
    read_trial, recorded = run_config.read(path)
    assert recorded
    assert read_trial.id == trial.id
    assert list(recorded.files) == ["given_model.keras"]
    assert all(map(run_config.is_file_of_run, recorded.files))


def test_the_weights_that_a_trial_starts_from_travel_with_it(tmp_path: Path) -> None:
    file, run_folder = tmp_path / "net.keras", tmp_path / "far"
    run_folder.mkdir()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("config.json", '{"class_name": "Sequential", "config": {}}')
    trial = make(start={"path": str(file), "run": "a" * 32, "new": ["output/*"]})
    path = written(run_folder, trial)
    file.unlink()
    read_trial, recorded = run_config.read(path)
    assert recorded
    assert [*recorded.files] == ["given_start.keras"]
    assert read_trial.id == trial.id
    assert read_trial.start.path == str(run_folder / "given_start.keras")
    assert read_trial.start.run == "a" * 32


@pytest.mark.parametrize(
    "pattern",
    [
        {"name": "smallest"},
        {"name": "edges", "pairs": [[0, "a"]], "units": ["a"]},
        {"name": "by_weight", "of": {"hidden_1/*": {"name": "block"}, "*": "random"}},
    ],
    ids=lambda pattern: pattern["name"],
)
def test_a_pattern_that_names_no_file_needs_none(pattern: dict[str, Any], tmp_path: Path) -> None:
    trial = make(pattern=pattern, targets="inner")
    assert run_config.copy_named_files(trial) == {}
    read_trial, _ = run_config.read(written(tmp_path, trial))
    assert (read_trial.id, read_trial.targets) == (trial.id, "inner")


def test_a_file_that_is_gone_when_a_trial_ends_costs_nothing_else(tmp_path: Path) -> None:
    mask_file = masks(tmp_path)
    trial = make(pattern={"name": "file", "path": str(mask_file)})
    assert trial.id
    mask_file.unlink()
    with pytest.raises(Invalid, match="must be a file beside the config"):
        run_config.read(written(tmp_path, trial))


def test_a_file_that_changed_since_the_trial_was_planned_does_not_travel(tmp_path: Path) -> None:
    path = masks(tmp_path)
    trial = make(pattern={"name": "file", "path": str(path)})
    assert list(run_config.copy_named_files(trial)) == ["given_pattern.npz"]
    np.savez(path, **{"hidden_1/kernel": np.ones((64, 12)), "hidden_2/kernel": np.ones((12, 8))})
    assert run_config.copy_named_files(trial) == {}


def test_the_masks_of_a_schedule_are_kept_with_the_run(tmp_path: Path) -> None:
    shapes = {"hidden_1/kernel": (64, 12), "hidden_2/kernel": (12, 8)}
    np.savez(
        tmp_path / "mine.npz", **{name: np.ones((1, *shape)) for name, shape in shapes.items()}
    )
    schedule = {"name": "given", "steps": [3], "path": str(tmp_path / "mine.npz")}
    trial = make(schedule=schedule)
    path = written(tmp_path, trial)
    (tmp_path / "mine.npz").unlink()
    read_trial, _ = run_config.read(path)
    assert read_trial.id == trial.id
    assert read_trial.schedule.path == str(tmp_path / "given_schedule.npz")  # type: ignore[attr-defined]


def test_a_changed_setting_is_another_trial_than_the_recorded_one(tmp_path: Path) -> None:
    path = written(tmp_path, make())
    path.write_text(path.read_text().replace("learning_rate: 0.01", "learning_rate: 0.0101"))
    read_trial, recorded = run_config.read(path)
    assert recorded
    assert read_trial.id != recorded.trial


BOMB = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
"""YAML of 60 short lines whose aliases stand for 2**59 values."""
RECORDED = "recorded: {trial: a, run: b, code: c, status: ok}\n"
SETTINGS: dict[str, dict[str, Any]] = {
    "a target": {"_target_": "os.system", "_args_": ["touch ran"]},
    "a target in a group": {"model": {"name": "mlp", "_target_": "os.system"}},
    "a class for a name": {"model": {"name": "os.system"}},
    "a module for a strategy": {"strategy": {"name": "masksweep.strategies.dense"}},
    "a path for a name": {"data": {"name": "../../etc/passwd"}},
    "hydra's keys": {"hydra": {"callbacks": {"x": {"_target_": "os.system"}}}},
    "hydra's searchpath": {"hydra": {"searchpath": ["file:///"]}},
    "hydra's job": {"hydra/job_logging": "custom"},
    "defaults": {"defaults": ["/etc/passwd"]},
    "a package": {"package": "os"},
    "a resolver for a number": {"seed": "${oc.env:HOME}"},
    "a resolver for a name": {"strategy": {"name": "${oc.env:HOME}"}},
    "a resolver for a list": {"targets": "${oc.decode:x}"},
    "an absolute path": {"pattern": {"name": "file", "path": "/etc/passwd"}},
    "a parent path": {"pattern": {"name": "file", "path": "../mine.npz"}},
    "a folder's path": {"pattern": {"name": "file", "path": "sub/mine.npz"}},
    "a path that is not recorded": {"pattern": {"name": "file", "path": "mine.npz"}},
    "a held file elsewhere": {"held": {"name": "file", "path": "/etc/passwd"}},
    "a start elsewhere": {"start": {"path": "/etc/net.keras"}},
    "a start from a run": {"start": {"run": "a" * 32}},
    "no text for a path": {"pattern": {"name": "file", "path": ["mine.npz"]}},
    "a path for a pattern without": {"pattern": {"name": "random", "path": "/etc/passwd"}},
    "a path over http": {"held": {"name": "file", "path": "http://127.0.0.1/a.npz"}},
    "a checkpoint's path": {"checkpoint": {"path": "/", "plugin": "x"}},
    "an unknown section": {"plugins": ["os"]},
    "code for a number": {"optimizer": {"name": "adam", "learning_rate": "__import__('os')"}},
    "an object for a number": {"seed": {"__reduce__": "os.system"}},
    "a number out of range": {"seed": -1},
    "an activation by module": {"model": {"name": "mlp", "activation": "os.system"}},
    "a constraint by module": {"model": {"name": "mlp", "constraint": "os.system"}},
    "a list for the whole model": {"model": [1, 2]},
    "found_with a target": {
        "pattern": {"name": "magnitude", "found_with": {"_target_": "os.system"}}
    },
}
"""Settings that a config from someone else may have, and that must be refused."""
TEXTS = {
    "python/object": "!!python/object/apply:os.system ['touch ran']\n",
    "python/name": "model: !!python/name:os.system ''\n",
    "python/module": "model: !!python/module:os ''\n",
    "python/object/new": "seed: !!python/object/new:os.system ['touch ran']\n",
    "a tag without a value": 'seed: !!int ""\n',
    "no truth value": "seed: !!bool x\n",
    "no time": "seed: !!timestamp x\n",
    "recorded metrics without names": RECORDED.replace("}", ", metrics: {1: 2.0}}"),
    "recorded epochs as text": RECORDED.replace("}", ", curves: {a: {x: 1.0}}}"),
    "a recorded number beyond reason": RECORDED.replace("}", f", metrics: {{a: {400 * '9'}}}}}"),
    "another tag": "seed: !run 'touch ran'\n",
    "aliases": BOMB,
    "aliases that hold themselves": "a: &a [*a]\n",
    "merged keys": "a: &a {seed: 1}\nb: {<<: *a}\n",
    "nested beyond reason": "a: " + 3000 * "[" + 3000 * "]",
    "a number beyond reason": "seed: " + 10_000 * "9",
    "a number in base 60 beyond reason": "seed: 1" + 500_000 * ":1",
    "two documents": "seed: 1\n---\nseed: 2\n",
    "no mapping": "- seed\n",
    "no YAML": "seed: [1\n",
    "no text": "\x00\x01",
    "recorded as a list": "recorded: [1]\n",
    "recorded with more": RECORDED.replace("}", ", run_this: x}"),
    "recorded metrics as text": RECORDED.replace("}", ", metrics: {a: b}}"),
    "recorded curves as text": RECORDED.replace("}", ", curves: {a: b}}"),
    "recorded files as numbers": RECORDED.replace("}", ", files: {a: 1}}"),
}
"""Contents of config files that must be refused."""


def refused(path: Path) -> str:
    """Returns the message with which the file is refused: one line that is not too long."""
    with pytest.raises(Invalid) as caught:
        run_config.read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 2000
    return message


@pytest.mark.parametrize("what", SETTINGS)
def test_what_a_strangers_config_names_is_refused(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of each file is valid, so only the setting can be the reason."""
    monkeypatch.chdir(tmp_path)
    masks(tmp_path)
    path = written(tmp_path, make())
    run_config.read(path)
    config = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(config | SETTINGS[what]))
    refused(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("what", TEXTS)
def test_what_is_no_plain_data_is_refused(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text(TEXTS[what])
    message = refused(path)
    assert ("of which a few can stand for any number" in message) == what.startswith("aliases")
    assert not (tmp_path / "ran").exists()


# only one case uses the real limit, which takes eight times as long to reach
@pytest.mark.parametrize(
    ("what", "most"),
    [
        ("[1", run_config.MAX_FILE_VALUES),
        ("{a", 50_000),
        ("{? [x", 50_000),
        ("a: [&a x, *a", 50_000),
    ],
)
def test_a_file_of_very_many_values_is_refused_at_once(
    what: str, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file has 16 MB; to read all of it would take minutes and gigabytes."""
    assert run_config.MAX_FILE_VALUES == 500_000
    monkeypatch.setattr(run_config, "MAX_FILE_VALUES", most)
    path = tmp_path / "config.yaml"
    path.write_text(what + (run_config.MAX_FILE_BYTES - 30) // 2 * ",1")
    start = time.process_time()
    assert refused(path) == f"config={path}: has more than {most:,} values"
    assert time.process_time() - start < 20


def test_masks_and_curves_that_are_long_are_read(tmp_path: Path) -> None:
    trial = make(pattern={"name": "explicit", "mask": np.ones((400, 400), int).tolist()})
    curves = {f"train/{i}": {epoch: epoch / 3 for epoch in range(10_000)} for i in range(10)}
    recorded = run_config.recorded_results(trial, "r" * 32, RESULT, curves, {})
    path = tmp_path / "config.yaml"
    path.write_text(run_config.config_text(trial, recorded))
    read_trial, read_record = run_config.read(path)
    assert read_record
    assert (read_trial.id, read_record.curves) == (trial.id, curves)


def test_a_file_elsewhere_is_refused_though_its_digest_is_told(tmp_path: Path) -> None:
    mask_file = masks(tmp_path)
    run_folder = tmp_path / "far"
    run_folder.mkdir()
    path = written(run_folder, make(pattern={"name": "file", "path": str(mask_file)}))
    for name in ("../mine.npz", str(mask_file)):
        config = yaml.safe_load(path.read_text())
        config["pattern"]["path"] = name
        config["recorded"]["files"][name] = hashlib.sha256(mask_file.read_bytes()).hexdigest()
        path.write_text(yaml.safe_dump(config))
        assert "must be a file beside the config" in refused(path)


def test_a_link_beside_the_config_is_refused(tmp_path: Path) -> None:
    """A link could point to any file, and the digest would reveal something about its content."""
    mask_file = masks(tmp_path)
    run_folder = tmp_path / "far"
    run_folder.mkdir()
    path = written(run_folder, make(pattern={"name": "file", "path": str(mask_file)}))
    (run_folder / "given_pattern.npz").unlink()
    (run_folder / "given_pattern.npz").symlink_to(mask_file)
    assert "no such file beside" in refused(path)
