"""Tests of the command in child processes: bad input, plan, list, and the packages they load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from masksweep.strategies import PATTERNS, STRATEGIES
from masksweep.sweeps import __version__
from masksweep.sweeps.config.plan import sweep_name
from tests.support.command import complaint, masksweep
from tests.support.data_files import write_npz
from tests.support.light_process import Light, light
from tests.support.trials import trial


@pytest.fixture(scope="module")
def command() -> Iterator[Light]:
    with light() as process:
        yield process


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("foo=1", "foo=1: unknown key; one of targets, "),
        ("train.foo=1", "train.foo=1: unknown key; one of epochs, steps, "),
        ("+foo=1", "foo=1: unknown key"),
        ("a.b=1", "a.b=1: unknown key; there is no a"),
        ("strategy=nope", "strategy=nope: unknown; one of dense, gradient_mask, "),
        ("strategy=dense,nope", "strategy=nope: unknown; one of dense, "),
        ("pattern=nope", "pattern=nope: unknown; one of autoregressive, axis, "),
        ("+experiment=nope", "experiment=nope: unknown; one of constant_weight"),
        ("pattern.sparsity=1", "pattern.sparsity=1.0: must be a number in [0, 1)"),
        ("pattern.sparsity=0.5,1.5", "pattern.sparsity=1.5: must be a number in [0, 1)"),
        ("pattern.sparsity=abc", "pattern.sparsity=abc: must be a number"),
        ("pattern=n_m pattern.n=5", "pattern.n=5: must be a number in 0..m, m is 4"),
        ("pattern=file", "pattern.path=???: must be given"),
        ("pattern=file pattern.path=none.npz", "pattern.path=none.npz: no such file"),
        ("pattern=file pattern.path=bad.npz", "pattern.path=bad.npz: not a readable .npz file"),
        ("pattern=file pattern.path=cut.npz", "pattern.path=cut.npz: not a readable .npz file"),
        ("pattern=file pattern.path=obj.npz", "pattern.path=obj.npz: holds pickled objects"),
        ("held=file held.path=none.npz", "held.path=none.npz: no such file"),
        ("data=npz", "data.path=???: must be given"),
        ("data=npz data.path=none.npz", "data.path=none.npz: no such file"),
        ("data=npz data.path=obj.npz", "data.path=obj.npz: holds pickled objects"),
        ("data=npz data.path=whole.npz", "data.path=whole.npz: x_train, y_train, x_test, y_test m"),
        ("data=csv data.path=none.csv data.target=a", "data.path=none.csv: no such file"),
        (
            "data=keras data.dataset=emnist",
            "data.dataset=emnist: input should be 'mnist', 'fashion_m",
        ),
        (
            "data=keras data.path=bad",
            "data.path=bad: must be a folder with train-images-idx3-uby",
        ),
        ("seed=0,1,0", "seed=0,1,0: each value once; 0 is repeated"),
        ("seed=-1", "seed=-1: input should be greater than or equal to 0"),
        ("train.batch_size=0", "train.batch_size=0: input should be greater than or equal to 1"),
        ("optimizer.learning_rate=-1", "optimizer.learning_rate=-1.0: must be 0 or above"),
        ("strategy=sparse_tensor train.jit=true", "train.jit=True: sparse_tensor does not"),
        ("strategy=dense,weight_mask strategy.form=where", "strategy.form=where: not a key of"),
        ("pattern.sparsity=[0.5", "pattern.sparsity=[0.5: "),
        ("--experimental-rerun=x.pickle", "--experimental-rerun=x.pickle: not offered"),
        ("--experimental-rer=x", "--experimental-rer=x: not offered"),
        ("hydra.mode=RUN", "hydra.mode=RUN: Hydra's own config is fixed here"),
        ("hydra={mode:RUN}", "hydra={mode:RUN}: Hydra's own config is fixed here"),
        (
            "resources.num_gpus=1.5",
            "resources.num_gpus=1.5: must be a fraction of one GPU, or whole",
        ),
        ("hydra/launcher=basic", "hydra/launcher=basic: Hydra's own config is fixed here"),
        (
            "optimizer.learning_rate=1,1.0",
            "seed=0: each trial must be described once; described again by optimizer.",
        ),
        ("seed=true", "seed=True: must be a whole number"),
        ("seed=glob(*)", "overrides=: must describe at least one trial"),
        ("sweep.name=a,b", "sweep.name=a,b: must be one for the whole sweep"),
        ("tracking.uri=a,b", "tracking.uri=a,b: must be one for the whole sweep"),
        ("strategy=null", "strategy=null: "),
        ("+experiment=null", "+experiment=null: "),
        ("~optimizer", "optimizer=: missing"),
        ("strategy.name=dense", "strategy.form=where: unknown key; dense has no settings (choose"),
        ("sweep.parts={a:{seed:1}}", "sweep.parts="),
        ("--config-dir bad +experiment=broken", "--config-dir=bad/experiment/broken.yaml: not rea"),
        ("--config-path bad", "--config-path=bad: not offered: --config-dir adds configs"),
        ("--config-name nope", "--config-name=nope: not offered: --config-dir adds configs"),
        ("--config-dir nope", "--config-dir=nope: no such folder"),
        ("optimizer.learning_rate=inf", "optimizer.learning_rate=inf: must be 0 or above, and f"),
        ("optimizer.ema_overwrite_frequency=0", "optimizer.ema_overwrite_frequency=0: must be 1"),
        ("optimizer=rmsprop optimizer.rho=5", "optimizer.rho=5.0: must be in [0, 1]"),
        ("optimizer=sgd optimizer.nesterov=true", "optimizer.momentum=0.0: must be above 0 with"),
        (
            "pattern=columns pattern.indices=[1,1]",
            "pattern.indices=[1, 1]: must be units",
        ),
        ("pattern=columns pattern.indices=[]", "pattern.indices=[]: must be units, each once"),
        ("trainable=[]", "trainable=[]: list should have at least 1 item"),
        ("targets=[]", "targets=[]: must have at least one glob"),
    ],
)
def test_bad_input_is_one_line_before_anything_starts(
    arguments: str, said: str, command: Light, tmp_path: Path
) -> None:
    (tmp_path / "bad.npz").write_bytes(b"no archive")
    np.savez(tmp_path / "whole.npz", a=np.zeros(1000))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:500])
    np.savez(tmp_path / "obj.npz", a=np.array([{}]))
    (tmp_path / "bad" / "experiment").mkdir(parents=True)
    (tmp_path / "bad" / "experiment" / "broken.yaml").write_text("seed: [1\n")
    before = sorted(tmp_path.iterdir())
    (line,) = command(tmp_path, "run", *arguments.split(" ")).complaints
    assert line.startswith(said)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("targets=[nope/*]", "targets=nope/*: matches no weight; the weights are hidden_1/kernel"),
        (
            "model=keras_file model.path=theirs.keras",
            "model.path=theirs.keras: has pkg>Theirs, which is not registered with Keras; load",
        ),
        ("data=npz data.path=nan.npz", "data.path=nan.npz: x_test has nan at [0, 0]; it must have"),
        pytest.param(
            "model=logistic", "targets=null: no kernel other than the last", marks=pytest.mark.slow
        ),
        pytest.param(
            "pattern=file pattern.path=shape.npz targets=[output/kernel]",
            "mask of output/kernel=",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "pattern=file pattern.path=two.npz targets=[output/kernel]",
            "mask of output/kernel=",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "pattern=file pattern.path=two.npz",
            "pattern.path=two.npz: must be a file with masks",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "held=file held.path=shape.npz targets=[output/kernel]",
            "output/kernel=float64 of shape",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "train.batch_size=100000",
            "train.batch_size=100000: must be at most 3600",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "data.validation=0.9999",
            "data.validation=0.9999: leaves no training sample",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "model=cnn1d model.kernels=[100]",
            "model=cnn1d: cannot be built: ",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_the_preflight(
    arguments: str, said: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "shape.npz", **{"output/kernel": np.ones((3, 3))})  # type: ignore[arg-type]
    np.savez(tmp_path / "two.npz", **{"output/kernel": np.full((100, 10), 2)})  # type: ignore[arg-type]
    write_npz(tmp_path / "nan.npz", x_test=np.full((10, 4), np.nan))
    with zipfile.ZipFile(tmp_path / "theirs.keras", "w") as archive:
        theirs = {
            "module": None,
            "class_name": "Theirs",
            "config": {},
            "registered_name": "pkg>Theirs",
        }
        archive.writestr("config.json", json.dumps(theirs))
    before = sorted(tmp_path.iterdir())
    process = masksweep("run", *arguments.split(" "), cwd=tmp_path, light=True)
    assert complaint(process).startswith(said)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("launch.address=foo", "launch.address=foo: no Ray cluster there: "),
        ("tracking.uri=foo://me:secret@x", "tracking.uri=foo://x: cannot be opened: "),
    ],
)
def test_what_cannot_be_reached_is_one_line(arguments: str, said: str, tmp_path: Path) -> None:
    process = masksweep("run", arguments, cwd=tmp_path)
    assert complaint(process).startswith(said)
    assert "secret" not in process.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_more_than_there_is_is_refused_before_the_store_is_opened(tmp_path: Path) -> None:
    process = masksweep("run", "resources.num_gpus=64", cwd=tmp_path)
    assert complaint(process).startswith("resources.num_gpus=64.0: must be at most ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("seed=-1", "seed=-1: input should be greater than or equal to 0"),
        ("foo=1 --follow", "foo=1: unknown key; one of targets, "),
        ("--cfg job", "--cfg=: not for submit, only overrides, -m, --multirun, --rerun"),
        ("--experimental-rerun=x.pickle", "--experimental-rerun=x.pickle: not for submit"),
        ("launch.address=ray://head:10001", "launch.address=ray://head:10001: left to submit"),
        ("pattern=file pattern.path=masks.npz", "pattern.path=masks.npz: must be absolute"),
        ("held=file held.path=masks.npz", "held.path=masks.npz: must be absolute"),
        ("data=npz data.path=data.npz", "data.path=data.npz: must be absolute"),
        ("model=keras_file model.path=net.keras", "model.path=net.keras: must be absolute"),
        ("tracking.uri=sqlite:///mine.db", "tracking.uri=sqlite:///mine.db: must be absolute"),
        ("tracking.uri=./runs", "tracking.uri=./runs: must be absolute"),
        ("tracking.uri=https://me:secret@host/x", "tracking.uri=https://host/x: no password: "),
        ("tracking.uri=https://secret@host/x", "tracking.uri=https://host/x: no password: "),
        ("tracking.uri=postgresql://me:secret/1@host/x", "tracking.uri=postgresql://host/x: no "),
        ("checkpoint.path='s3://b/c?token=secret'", "checkpoint.path='s3://b/c?token=...: no pas"),
        ("MLFLOW_TRACKING_URI=sqlite:///mine.db", "MLFLOW_TRACKING_URI=sqlite:///mine.db: must"),
        ("MLFLOW_TRACKING_URI=http://me:secret@host", "MLFLOW_TRACKING_URI=http://host: no pass"),
    ],
)
def test_what_cannot_travel_is_refused_before_it_is_sent(
    arguments: str, said: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "masks.npz", **{"output/kernel": np.ones((100, 10))})  # type: ignore[arg-type]
    write_npz(tmp_path / "data.npz")
    with zipfile.ZipFile(tmp_path / "net.keras", "w") as archive:
        archive.writestr("config.json", '{"class_name": "Sequential", "config": {}}')
    words = arguments.split(" ")
    env = dict(word.split("=", 1) for word in words if word.startswith("MLFLOW_"))
    overrides = [word for word in words if not word.startswith("MLFLOW_")]
    process = masksweep("submit", *overrides, cwd=tmp_path, light=True, **env)
    assert complaint(process).startswith(said)
    assert not process.stdout
    assert "secret" not in process.stderr


def test_unknown_commands_are_refused(tmp_path: Path) -> None:
    assert complaint(masksweep("frobnicate", cwd=tmp_path, light=True)).startswith("command=frob")


def test_help_and_version_load_nothing_heavy(tmp_path: Path) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        process = masksweep(*arguments, cwd=tmp_path, light=True)
        assert process.returncode == 0
        assert "masksweep run" in process.stdout
    assert masksweep("--version", cwd=tmp_path, light=True).stdout == f"masksweep {__version__}\n"


def test_list_takes_nothing_and_has_a_help(tmp_path: Path) -> None:
    process = masksweep("list", "--help", cwd=tmp_path, light=True)
    assert process.returncode == 0
    assert process.stdout.startswith("usage: masksweep list")
    assert "unrecognized" in complaint(masksweep("list", "foo", cwd=tmp_path, light=True))


def test_a_sweeps_name_has_no_flags() -> None:
    for flags in ([], ["--config-dir", "configs"], ["--config-dir=configs"], ["-cd", "/configs"]):
        assert (
            sweep_name(trial(), [*flags, "+experiment=mine", "~seed"]) == "+experiment=mine ~seed"
        )


def test_list_names_everything_with_a_line(tmp_path: Path) -> None:
    process = masksweep("list", cwd=tmp_path, light=True)
    assert process.returncode == 0
    lines = {line.split()[0]: line.split()[1:] for line in process.stdout.splitlines()}
    for name in [*STRATEGIES, *PATTERNS, "quickstart", "mnist1d", "mlp"]:
        assert len(lines[name]) > 1, name


def test_hydras_own_flags_work_under_run(tmp_path: Path) -> None:
    process = masksweep("run", "seed=7", "--cfg", "job", "--resolve", cwd=tmp_path, light=True)
    assert process.returncode == 0
    assert "seed: 7" in process.stdout
    process = masksweep("run", "--help", cwd=tmp_path, light=True)
    assert process.returncode == 0
    assert "strategy: dense, gradient_mask" in process.stdout
    assert not list(tmp_path.iterdir())


def test_plan_lists_the_trials_and_starts_nothing(tmp_path: Path) -> None:
    for multirun in ([], ["-m"]):
        lists = ["strategy=dense,weight_mask", "pattern.sparsity=0.5,0.9", "seed=0,1"]
        process = masksweep("plan", *multirun, *lists, cwd=tmp_path, light=True)
        assert process.returncode == 0, process.stderr
        # the dense control has no sparsity: two trials instead of four
        assert process.stdout.splitlines()[-1] == "6 trials: 6 to run"
    assert not list(tmp_path.iterdir())


def test_plan_as_json(tmp_path: Path) -> None:
    process = masksweep("plan", "seed=3,4", "--json", cwd=tmp_path, light=True)
    trials = json.loads(process.stdout)["trials"]
    assert [t["overrides"] for t in trials] == [["seed=3"], ["seed=4"]]
    assert {t["state"] for t in trials} == {"to run"}
    assert trials[0]["name"] == "weight_mask, random 0.9, seed 3"
    assert len({t["id"] for t in trials}) == 2


def test_plan_with_check_shows_refusals(tmp_path: Path) -> None:
    arguments = ["plan", "strategy=var_list,weight_mask", "--check", "--json"]
    process = masksweep(*arguments, cwd=tmp_path, light=True)
    states = {t["name"].split(",")[0]: t for t in json.loads(process.stdout)["trials"]}
    assert states["weight_mask"]["state"] == "to run"
    assert states["var_list"]["state"] == "skipped"
    assert "whole outputs" in states["var_list"]["reason"]


@pytest.mark.parametrize("uri", ["tracking.uri=URI", "tracking={uri: 'URI'}", "+tracking.x=URI"])
def test_an_address_with_a_password_is_shown_nowhere(uri: str, tmp_path: Path) -> None:
    override = uri.replace("URI", "http://me:secret@127.0.0.1:1")
    process = masksweep("plan", "--json", "--rerun", override, cwd=tmp_path)
    assert "secret" not in process.stdout
    name = sweep_name(trial(), [override, "seed=1"])
    assert name == "seed=1"


def test_the_page_hides_the_password_of_its_server(tmp_path: Path) -> None:
    process = masksweep("ui", "--uri", "https://me:secret@host", cwd=tmp_path)
    assert process.stdout == "The results are on a server already: https://host\n"


@pytest.mark.parametrize("command", ["list", "--version"])
def test_a_reader_that_leaves_is_no_error(command: str) -> None:
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(
        [sys.executable, "-m", "masksweep.sweeps.cli", command],
        stdout=write,
        stderr=subprocess.PIPE,
        env={k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"},
    )
    os.close(write)
    assert (process.returncode, process.stderr) == (141, b"")
