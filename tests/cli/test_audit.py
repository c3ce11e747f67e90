"""Tests of `masksweep audit`: it finds a single changed bit, and never runs code from a file."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from contextlib import chdir
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from mlflow import MlflowClient
from mlflow.entities import Run

from masksweep.sweeps.config.plan import PlannedTrial
from masksweep.sweeps.tracking import resume
from masksweep.sweeps.training.run_trial import run
from tests.support.audits import (
    MASK,
    NAME,
    SHAPE,
    as_json,
    audited,
    build,
    kernel,
    refused,
    save,
    save_masks,
)
from tests.support.command import complaint, masksweep
from tests.support.sweep_process import local_store, ran
from tests.support.trials import trial as make


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


# -- bits ------------------------------------------------------------------------------------


def test_what_holds(capsys: pytest.CaptureFixture[str]) -> None:
    save(build(), {NAME: kernel(0)})
    save_masks()
    code, output = audited(capsys, "model.keras", "masks.npz")
    assert code == 0
    assert output.splitlines()[0].split() == [
        *("weight", "shape", "masked", "violations", "drift", "first:", "found,", "held")
    ]
    assert output.splitlines()[1].split() == [NAME, "3", "x", "4", "5", "0", "-", "-"]
    assert output.splitlines()[2:] == ["", "holds: 5 masked entries, bit for bit"]


LAST_BIT = float(np.nextafter(np.float32(0.5), np.float32(1)))


@pytest.mark.parametrize(
    ("held", "masked", "verdict", "first"),
    [
        ("0.5", LAST_BIT, "1 of 5 masked entries differs, by up to 5.96e-08", 0.50000006),
        ("zero", -0.0, "1 of 5 masked entries differs, in the sign of a zero only", -0.0),
        ("-0.0", 0.0, "1 of 5 masked entries differs, in the sign of a zero only", 0.0),
        ("zero", np.nan, "1 of 5 masked entries differs, by up to inf", "nan"),
        ("zero", -np.inf, "1 of 5 masked entries differs, by up to inf", "-inf"),
        ("zero", 1e-45, "1 of 5 masked entries differs, by up to 1.4e-45", 1e-45),
        ("-1e-3", 0.019, "1 of 5 masked entries differs, by up to 0.02", 0.019),
    ],
    ids=str,
)
def test_one_entry_that_is_not_held(
    held: str, masked: float, verdict: str, first: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    value = 0.0 if held == "zero" else float(held)
    save(build(), {NAME: kernel([value, value, masked, value, value])})
    save_masks()
    arguments = ("model.keras", "masks.npz", f"--held={held}")
    code, output = audited(capsys, *arguments)
    assert code == 1
    assert output.splitlines()[-1] == f"DOES NOT HOLD: {verdict}"
    assert f"[1, 0]: {first}, {value}" in " ".join(output.split())
    (row,) = as_json(capsys, *arguments)["weights"]
    assert row["first"] == [{"index": [1, 0], "found": first, "held": value}]
    assert str(row["first"][0]["found"]) == str(first), "the sign of a zero"
    assert (row["violations"], row["zero_signs"]) == (1, "sign" in verdict)


def test_violations_add_up_and_the_first_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    bias = np.array([1, -0.0], "float32")
    save(build(), {NAME: kernel([1, 2, 3, 4, 0]), "output/bias": bias})
    save_masks(**{NAME: MASK.astype(bool), "output/bias": np.zeros(2, "int8")})
    code, output = audited(capsys, "model.keras", "masks.npz")
    assert code == 1
    assert output.splitlines()[-1] == (
        "DOES NOT HOLD: 6 of 7 masked entries differ, by up to 4; 1 in the sign of a zero only"
    )
    assert all(len(line) <= 80 for line in output.splitlines()[:-1])
    report = as_json(capsys, "model.keras", "masks.npz")
    rows = report.pop("weights")
    assert report == {
        **{"holds": False, "masked": 7, "violations": 6, "zero_signs": 1, "largest_drift": 4.0}
    }
    assert [e["index"] for e in rows[0]["first"]] == [[0, 1], [0, 3], [1, 0]]
    assert [(r["weight"], r["shape"], r["masked"], r["violations"]) for r in rows] == [
        (NAME, [3, 4], 5, 4),
        ("output/bias", [2], 2, 2),
    ]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_dtypes(dtype: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A held number is rounded to the weight's dtype."""
    model = build(dtype)
    save(model, {NAME: keras.ops.cast(kernel(0.1, "float64"), dtype)})
    save_masks()
    assert audited(capsys, "model.keras", "masks.npz", "--held=0.1")[0] == 0
    report = as_json(capsys, "model.keras", "masks.npz", "--held=0.2")
    assert report["violations"] == 5
    assert report["largest_drift"] == pytest.approx(0.1, rel=1e-2)


def test_a_scalar_weight(capsys: pytest.CaptureFixture[str]) -> None:
    query = keras.Input((2, 3))
    attended = layers.Attention(use_scale=True, name="attention")([query, query])
    save(keras.Model(query, attended), {"attention/scale": 0.0})
    save_masks(**{"attention/scale": False})
    code, output = audited(capsys, "model.keras", "masks.npz")
    assert (code, output.splitlines()[-1]) == (0, "holds: 1 masked entry, bit for bit")
    assert as_json(capsys, "model.keras", "masks.npz", "--held=1")["weights"][0]["first"] == [
        {"index": [], "found": 0.0, "held": 1.0}
    ]


# -- held values -----------------------------------------------------------------------------


def test_held_at_what_a_file_has(capsys: pytest.CaptureFixture[str]) -> None:
    start = np.random.default_rng(0).normal(size=SHAPE).astype("float32")
    save(build(), {NAME: np.where(MASK == 1, 7, start)})
    save_masks()
    np.savez("held.npz", **{NAME: start})
    assert audited(capsys, "model.keras", "masks.npz", "--held", "held.npz")[0] == 0
    start[1, 0] += 1
    np.savez("held.npz", **{NAME: start})
    report = as_json(capsys, "model.keras", "masks.npz", "--held", "held.npz")
    assert (report["violations"], report["largest_drift"]) == (1, 1.0)


def test_held_at_what_it_was_before_training(capsys: pytest.CaptureFixture[str]) -> None:
    """A frozen layer, in a model that was trained and saved with its optimizer."""
    keras.utils.set_random_seed(0)
    model = build(trainable=False)
    model.save("before.keras")
    model.compile("adam", "mse")
    data = np.random.default_rng(0)
    model.fit(data.normal(size=(64, 3)), data.normal(size=(64, 2)), verbose=0)
    model.save("after.keras")
    arguments = ("after.keras", "masks.npz", "--held", "before.keras")
    save_masks(**{NAME: np.zeros(SHAPE), "hidden/bias": np.zeros(4)})
    assert audited(capsys, *arguments)[0] == 0
    save_masks(**{NAME: np.zeros(SHAPE), "norm/gamma": np.zeros(4)})
    rows = as_json(capsys, *arguments)["weights"]
    assert [(r["weight"], r["violations"]) for r in rows] == [(NAME, 0), ("norm/gamma", 4)]


def test_a_model_in_a_frozen_model_has_weights(capsys: pytest.CaptureFixture[str]) -> None:
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(4, name="dense")], name="inner")
    inner.trainable = False
    save(keras.Sequential([keras.Input((3,)), inner, layers.Dense(1)]))
    save_masks(**{"inner/dense/kernel": np.zeros((3, 4))})
    arguments = ("model.keras", "masks.npz", "--held", "model.keras")
    assert audited(capsys, *arguments)[1].endswith("\nholds: 12 masked entries, bit for bit\n")


# -- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "audit=: the following arguments are required: MODEL; see masksweep audit --help"),
        ("model.keras masks.npz more", "audit=: unrecognized arguments: more; see"),
        ("model.keras masks.npz --held", "audit=: argument --held: expected one argument; see"),
        ("model.keras", "MASKS=: must be given: a .npz file of masks by weight name, or one mask"),
        ("model.keras masks.npz --uri x", "--uri=x: must be left out"),
        ("nothing", "audit=nothing: neither a file nor the id of a run (32 hex digits)"),
        (f"{'A' * 32}", f"audit={'A' * 32}: neither a file nor the id of a run"),
        (f"{'a' * 32} masks.npz", "audit=masks.npz: must be left out: a run has its own masks"),
        (f"{'a' * 32} --held zero", "audit=zero: must be left out: a run has its own masks"),
        (f"{'a' * 32}", "tracking.uri=sqlite:///{cwd}/mlflow.db: no store there"),
        ("model.keras none.npz", "path=none.npz: no such file"),
        ("model.keras empty.npz", "path=empty.npz: must be a file with masks by weight name"),
        ("model.keras pickled.npz", "path=pickled.npz: holds pickled objects"),
        ("model.keras model.keras", "path=model.keras: not a readable .npz file"),
        ("model.keras masks.npz --held none.npz", "path=none.npz: no such file"),
        ("model.keras masks.npz --held none.keras", "path=none.keras: no such file"),
        ("model.keras masks.npz --held none.h5", "path=none.h5: no such file"),
        ("model.keras masks.npz --held some", "--held=some: must be zero, a number, a .npz file, "),
        (f"{'a' * 32} --weight x", "audit=x: must be left out: a run has its own masks"),
        ("model.keras masks.npz --held nan", "value=nan: must be a finite number"),
        (
            "folder.keras masks.npz",
            "path=folder.keras: must be a .keras, .h5 or .weights.h5 file, ",
        ),
        ("text.h5 masks.npz", "path=text.h5: must be a .keras, .h5 or .weights.h5 file, or a Sav"),
        ("model.h5 masks.npz", "path=model.h5: not a readable HDF5 file"),
        ("h5.keras masks.npz", "path=h5.keras: not a readable HDF5 file"),
        ("cut.keras masks.npz", "path=cut.keras: not a readable .keras file"),
        ("model.keras masks.npz", "path=model.keras: not a readable .keras file"),
        ("model.keras text.npy", "path=text.npy: not a readable .npy file"),
        ("model.keras pickled.npy", "path=pickled.npy: holds pickled objects"),
        ("model.keras none.npy", "path=none.npy: no such file"),
    ],
)
def test_bad_input_is_one_line_without_tensorflow(
    arguments: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile("model.keras", "w") as file:
        file.writestr("config.json", '{"class_name": "Sequential", "config": {}}')
    with zipfile.ZipFile("cut.keras", "w") as file:
        file.writestr("config.json", '{"class_name": "Sequential')
    Path("folder.keras").mkdir()
    Path("folder.keras/config.json").write_text("{}")
    Path("model.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    shutil.copy("model.h5", "h5.keras")
    Path("text.h5").write_text("weights")
    Path("text.npy").write_text("weights")
    np.save("pickled.npy", np.array([{}]))
    save_masks()
    np.savez("empty.npz")
    np.savez("pickled.npz", a=np.array([{}]))
    before = sorted(Path().iterdir())

    def loaded(threads: int) -> None:
        raise AssertionError("TensorFlow would be loaded")

    monkeypatch.setattr("masksweep.sweeps.training.process.prepare_process", loaded)
    assert refused(capsys, *arguments.split()).startswith(said.replace("{cwd}", str(Path.cwd())))
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize(
    ("masks", "held", "said"),
    [
        ({"nope/kernel": MASK}, "zero", "path=masks.npz: names nope/kernel; the model's weights"),
        ({"model/nope": MASK, NAME: MASK}, "zero", "path=masks.npz: names model/nope; the model's"),
        (
            {NAME: MASK, f"{NAME}:0": MASK},
            "zero",
            "path=masks.npz: must be a file with one mask f",
        ),
        ({"norm/moving_mean": MASK}, "zero", "mask of norm/moving_mean=shape [3, 4]: must be of "),
        ({NAME: MASK.T}, "zero", f"mask of {NAME}=shape [4, 3]: must be of shape [3, 4]"),
        ({NAME: MASK * 2}, "zero", f"mask of {NAME}=[2, 2, 2]: must be 0 and 1 only"),
        ({NAME: MASK * np.nan}, "zero", f"mask of {NAME}=[nan, nan, nan]: must be 0 and 1 only"),
        ({NAME: np.full(SHAPE, "x")}, "zero", f"mask of {NAME}="),
        ({NAME: np.ones(SHAPE)}, "zero", f"masks={NAME}: nothing is masked"),
        ({NAME: MASK}, "1e39", "value=1e+39: must be a float32"),
        ({NAME: MASK}, "large.npz", f"{NAME}=NaN or infinite: must be held at finite numbers"),
        ({NAME: MASK}, "other.npz", "path=other.npz: must be a file with values for hidden/kernel"),
        ({NAME: MASK}, "shape.npz", f"{NAME}=float64 of shape (4, 3): must be numbers of shape"),
        ({NAME: MASK}, "other.keras", f"path=other.keras: is without {NAME}; the model's weights"),
        ({NAME: MASK}, "half.keras", f"{NAME}=float16 of shape [3, 4]: must be held values: flo"),
        ({NAME: MASK}, "nan.keras", f"{NAME}=NaN or infinite: must be held at finite numbers"),
    ],
    ids=str,
)
def test_what_does_not_fit_the_model(
    masks: dict[str, Any], held: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save(build())
    save_masks(**masks)
    np.savez("other.npz", a=np.zeros(3))
    np.savez("shape.npz", **{NAME: np.zeros((4, 3))})
    np.savez("large.npz", **{NAME: np.full(SHAPE, 1e39)})
    save(keras.Sequential([keras.Input((3,)), layers.Dense(4)]), path="other.keras")
    save(build("float16"), path="half.keras")
    save(build(), {NAME: kernel(np.nan)}, path="nan.keras")
    assert refused(capsys, "model.keras", "masks.npz", "--held", held).startswith(said)


def test_at_most_twenty_weights_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    dense = [layers.Dense(1, name=f"dense\x1b[31m_{i}") for i in range(15)]
    save(keras.Sequential([keras.Input((1,)), *dense]))
    save_masks(a=MASK)
    message = refused(capsys, "model.keras", "masks.npz")
    assert message.endswith(" and 10 more")
    assert message.count("dense [31m_") == 20, "nothing moves the cursor"


def test_help_and_bad_input_load_nothing_heavy(tmp_path: Path) -> None:
    process = masksweep("audit", "--help", cwd=tmp_path, light=True)
    assert process.returncode == 0
    assert "masksweep audit RUN_ID" in process.stdout
    save(build())
    for arguments in (("model.keras", "none.npz"), ("nothing",), ("a" * 32,)):
        assert complaint(masksweep("audit", *arguments, cwd=tmp_path, light=True))


def test_stdout_has_the_audit_alone(tmp_path: Path) -> None:
    save(build(), {NAME: kernel(0)})
    save_masks()
    process = masksweep("audit", "model.keras", "masks.npz", "--json", cwd=tmp_path)
    assert (process.returncode, json.loads(process.stdout)["holds"]) == (0, True)
    assert process.stderr == "Auditing model.keras ...\n"


# -- files that are not trusted --------------------------------------------------------------


def steals(x: Any) -> Any:
    Path("stolen").touch()
    return x


def hostile(kind: str) -> None:
    """Saves a model file that would run code if Keras loaded it without safe mode."""
    lambda_layer = layers.Lambda(lambda x: (__import__("pathlib").Path("stolen").touch(), x)[1])
    save(keras.Sequential([keras.Input((3,)), lambda_layer, layers.Dense(4, name="hidden")]))
    Path("stolen").unlink()
    call = {"class_name": "function", "module": "keras.utils", "config": "get_file"}
    match kind:
        case "lambda in a model":
            inner = keras.Sequential([keras.Input((3,)), lambda_layer])
            hidden = layers.Dense(4, name="hidden")
            save(keras.Sequential([keras.Input((3,)), inner, hidden]))
            Path("stolen").unlink()
        case "function":
            rewrite(lambda layer: layer["config"] | {"function": call | {"registered_name": "x"}})
        case "class of a module":
            rewrite(lambda _: None, class_name="Popen", module="subprocess")
        case "function as a class":
            rewrite(lambda _: {"path": "x"}, class_name="load_model", module="keras.models")
        case "saved model":
            rewrite(lambda _: {"filepath": "x"}, class_name="TFSMLayer", module="keras.layers")
        case "compiled inside":
            rewrite(lambda _: None, class_name="Dense", compile_config={"loss": call})


def rewrite(config: Any, **keys: Any) -> None:
    """Replaces the config of the second layer in `model.keras`; `keys` replace its other keys."""
    with zipfile.ZipFile("model.keras") as file:
        content = {name: file.read(name) for name in file.namelist()}
    model_config = json.loads(content["config.json"])
    layer = model_config["config"]["layers"][1]
    layer |= {"config": config(layer)} | keys
    content["config.json"] = json.dumps(model_config).encode()
    with zipfile.ZipFile("model.keras", "w") as file:
        for name, data in content.items():
            file.writestr(name, data)


@pytest.mark.parametrize(
    "kind",
    [
        *("lambda", "lambda in a model", "function", "class of a module", "function as a class"),
        *("saved model", "compiled inside"),
    ],
)
def test_what_a_hostile_file_names_is_not_run(kind: str, tmp_path: Path) -> None:
    """Its weights are audited like those of any file, and TensorFlow is not even loaded."""
    hostile(kind)
    save_masks()
    for held in ((), ("--held", "model.keras")):
        process = masksweep("audit", "model.keras", "masks.npz", *held, cwd=tmp_path, light=True)
        assert process.returncode == (not held), process.stderr
        assert NAME in process.stdout
    assert not Path("stolen").exists()
    if kind == "lambda":
        keras.models.load_model("model.keras", safe_mode=False)
        assert Path("stolen").exists(), "it would have run something"


def test_nothing_is_fetched_from_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    Path("hf:").mkdir()
    save(build(), {NAME: kernel(0)}, "hf:/model.keras")
    save_masks()
    assert audited(capsys, "hf://model.keras", "masks.npz")[0] == 0


# -- a run -----------------------------------------------------------------------------------

QUICK: dict[str, Any] = {"train": {"steps": 5, "jit": False}, "speed": {"rounds": 0}}
TRIALS = [
    make(strategy=strategy, held=held, **QUICK)
    for strategy in ("init_only", "weight_mask")
    for held in ("zero", "constant", "init")
]
TRIALS.append(make(strategy="dense", **QUICK))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> tuple[str, list[Run]]:
    """(The URI of a store, the runs of a sweep in it: those of the trials, then the parent run)."""
    folder = tmp_path_factory.mktemp("sweep")
    shutil.copy(empty_store, folder / "mlflow.db")
    planned = [PlannedTrial(trial, []) for trial in TRIALS]
    with chdir(folder), resume.open_sweep(planned, "small", rerun=False) as (_, recorder, _):
        recorder.start_sweep("note", [p.describe() for p in planned])
        recorder.sender.start()
        for trial in TRIALS:
            recorder.start_trial(trial, trial.name)
            recorder.end_trial(trial, run(trial))
        recorder.end_sweep("FINISHED", "note", {"table.txt": b"table"})
        assert recorder.sender.finish(120)
    store = local_store(folder, "small")
    return f"sqlite:///{folder / 'mlflow.db'}", [*store.children, store.parent]


def of(mlflow_run: Run, uri: str) -> list[str]:
    return [mlflow_run.info.run_id, "--uri", uri]


def files(mlflow_run: Run) -> Path:
    return Path(mlflow_run.info.artifact_uri.removeprefix("file://"))


def test_a_run_is_audited_from_its_artifacts(
    runs: tuple[str, list[Run]], capsys: pytest.CaptureFixture[str]
) -> None:
    """The audit agrees with the run's metrics. A run with held zeros has no file of held values."""
    uri, all_runs = runs
    masked = [r for r in all_runs if r.data.params.get("strategy") in ("init_only", "weight_mask")]
    assert len(masked) == 6
    for mlflow_run in masked:
        params, metrics = mlflow_run.data.params, mlflow_run.data.metrics
        assert (files(mlflow_run) / "held.npz").exists() == (params["held"] != "zero")
        audit = as_json(capsys, *of(mlflow_run, uri))
        assert audit["holds"] == (params["strategy"] == "weight_mask")
        assert audit["violations"] == metrics["integrity/violations"]
        assert audit["largest_drift"] == pytest.approx(metrics["integrity/max_drift"])


def test_a_bit_of_a_runs_model_is_told(
    runs: tuple[str, list[Run]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri, all_runs = runs
    mlflow_run = next(
        r
        for r in all_runs
        if (r.data.params.get("strategy"), r.data.params.get("held")) == ("weight_mask", "init")
    )
    path = files(mlflow_run) / "model.keras"
    Path(mlflow_run.info.run_id).mkdir()  # MLflow names its folders like this
    model = keras.models.load_model(path)
    with np.load(files(mlflow_run) / "masks.npz") as masks:
        name = next(iter(masks))
        place = tuple(np.argwhere(~masks[name])[0])
    shutil.copy(path, "kept.keras")
    weights = np.array(model.get_layer("hidden_1").kernel)
    weights[place] = np.nextafter(weights[place], np.float32(9))
    try:
        save(model, {name: weights}, str(path))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        code, output = audited(capsys, mlflow_run.info.run_id)
    finally:
        shutil.copy("kept.keras", path)
    assert code == 1
    assert "DOES NOT HOLD: 1 of " in output
    assert f"{[int(i) for i in place]}: " in output


def test_runs_that_cannot_be_audited(
    runs: tuple[str, list[Run]], capsys: pytest.CaptureFixture[str]
) -> None:
    uri, all_runs = runs
    dense = next(r for r in all_runs if r.data.params.get("strategy") == "dense")
    message = refused(capsys, *of(dense, uri))
    assert message == f"run={dense.info.run_id}: has no masks: the dense control holds nothing"
    message = refused(capsys, *of(all_runs[-1], uri))
    assert "has no model.keras: no trial's run, or of one that did not end well" in message
    assert refused(capsys, "0" * 32, "--uri", uri) == f"run={'0' * 32}: no such run in {uri}"


def test_artifacts_that_are_not_as_they_should_be(
    runs: tuple[str, list[Run]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    uri, all_runs = runs
    held = next(r for r in all_runs if "held.npz" in {p.name for p in files(r).iterdir()})
    client = MlflowClient(uri)

    def refused_with(**changed: bytes | None) -> str:
        """The message for a run with the same artifacts, except for those in `changed`.

        None leaves an artifact out.
        """
        new_run = client.create_run(held.info.experiment_id)
        content = {p.name: p.read_bytes() for p in files(held).iterdir() if p.is_file()}
        folder = tmp_path / f"of {new_run.info.run_id}"
        folder.mkdir()
        for name, data in (content | changed).items():
            if data is not None:
                (folder / name).write_bytes(data)
        client.log_artifacts(new_run.info.run_id, str(folder))
        message = refused(capsys, *of(new_run, uri))
        assert str(tmp_path) not in message.replace(uri, "")
        return message.removeprefix(f"run={new_run.info.run_id}: ")

    old = "has no held values: it was made before they were kept"
    assert refused_with(**{"held.npz": None}) == old
    for config in (None, b"\xff", b"date: 2020-99-99", b"[" * 3000, b"held: 1", b""):
        assert refused_with(**{"held.npz": None, "config.yaml": config}) == old
    assert refused_with(**{"held.npz": None, "config.yaml": b"held: [zero"}) == old
    assert refused_with(**{"held.npz": None, "config.yaml": b"zero"}) == old
    assert refused_with(**{"masks.npz": b"no"}).startswith("path=masks.npz: not a readable .npz")
    assert refused_with(**{"held.npz": b"no"}).startswith("path=held.npz: not a readable .npz")
    assert refused_with(**{"model.keras": b"no"}).startswith("path=model.keras: must be a .keras")
    message = refused_with(**{"model.keras": None, "model.keras.json": b"{}"})
    assert message == "too large for its store; model.keras.json says where the file is"
    dense_masks = io.BytesIO()
    with np.load(files(held) / "masks.npz") as masks:
        np.savez(dense_masks, **{name: np.ones_like(masks[name]) for name in masks})
    message = refused_with(**{"masks.npz": dense_masks.getvalue()})
    assert message.endswith("nothing is masked, so there is nothing to audit")


def test_a_store_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "0" * 32, "--uri", "http://me:secret@127.0.0.1:1")
    assert message.startswith("tracking.uri=http://127.0.0.1:1: cannot be reached: ")
    assert "secret" not in message
    message = refused(capsys, "0" * 32, "--uri", "foo://me:secret@x")
    assert message.startswith("tracking.uri=foo://x: cannot be opened: ")
    assert not list(Path().iterdir()), "looking makes no store"


@pytest.mark.slow
def test_a_sweep_and_then_the_audit_of_its_runs(tmp_path: Path) -> None:
    """As a user does it: in one folder, without a store's address."""
    arguments = ("strategy=init_only,weight_mask", "held=init", "data=digits", "train.steps=20")
    assert ran(tmp_path, *arguments, "model.hidden=[12]", "sweep.name=small").code == 0
    for mlflow_run in local_store(tmp_path, "small").children:
        process = masksweep("audit", mlflow_run.info.run_id, cwd=tmp_path)
        leaks = mlflow_run.data.params["strategy"] == "init_only"
        assert process.returncode == leaks, process.stderr
        last = process.stdout.splitlines()[-1]
        assert last.startswith("DOES NOT HOLD: " if leaks else "holds: ")
        fetching, auditing = process.stderr.splitlines()
        assert (fetching[:12], auditing) == ("Fetching run", "Auditing model.keras ...")
