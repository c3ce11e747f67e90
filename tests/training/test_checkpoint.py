"""An interrupted trial ends with the same bits, even if its checkpoints are damaged or missing."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from shutil import copy, copytree
from typing import Any

import numpy as np
import pytest
from fsspec import filesystem

from masksweep.strategies import Invalid
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.results import Report, TrialResult
from masksweep.sweeps.training import checkpoint, loop, trial_run
from masksweep.sweeps.training.checkpoint import Checkpoints, State
from masksweep.sweeps.training.run_trial import run
from masksweep.sweeps.training.setup import program_for, start
from tests.support.selection import by_default
from tests.support.servers import s3_server
from tests.support.trials import BASE
from tests.support.trials import trial as make

STEPS: dict[str, Any] = {"epochs": 3, "batch_size": 100, "jit": False}  # epochs of 12 steps
DEEP = {"name": "mlp", "hidden": [12], "dropout": 0.2, "batch_norm": True}
EMA = {"name": "adam", "use_ema": True, "ema_overwrite_frequency": 5}
COLUMNS = {
    "pattern": {"name": "columns", "sparsity": 0.3},
    "held": "init",
    "targets": ["output/*"],
}
CASES: dict[str, dict[str, Any]] = {
    "weight_mask, adam, xla, timed": {"train": {**STEPS, "jit": True}, "speed": {"rounds": 9}},
    "weight_mask": {},
    "hard_mask, momentum": {
        "strategy": "hard_mask",
        "optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": True},
    },
    "sparse_values, adamw": {"strategy": "sparse_values", "optimizer": "adamw"},
    "sparse_tensor": {"strategy": "sparse_tensor"},
    "var_list": {"strategy": "var_list", **COLUMNS},
    "projection, average": {"strategy": "projection", "optimizer": EMA},
    "init_only": {"strategy": "init_only"},
    "dropout, batch norm, xla": {
        "model": DEEP,
        "optimizer": "rmsprop",
        "train": {**STEPS, "jit": True},
    },
    "dropout, batch norm": {"model": DEEP},
}
BY_DEFAULT = ["hard_mask, momentum", "sparse_tensor", "projection, average", "dropout, batch norm"]
"""Cases that are resumed by default: masked and kept slots, averages, and a model with a state."""


class BrokenOff(Exception):
    pass


@pytest.fixture(autouse=True)
def _one_step_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)


def given(**sections: Any) -> Trial:
    return make(**{"train": STEPS, "speed": {"rounds": 0}, **sections})


def kept(folder: Any, trial: Trial, every_s: float = 1e-9) -> Checkpoints:
    return Checkpoints(str(folder), trial.id, every_s)


def break_off(trial: Trial, checkpoints: Checkpoints, after: int) -> None:
    """Runs the trial until it has saved a checkpoint of step `after`, and interrupts it."""

    def emit(report: Report) -> None:
        if report.steps > after:
            raise BrokenOff

    with pytest.raises(BrokenOff):
        run(trial, emit, checkpoints)


def follow(
    trial: Trial, checkpoints: Checkpoints | None = None
) -> tuple[TrialResult, list[Report]]:
    reports: list[Report] = []
    return run(trial, reports.append, checkpoints), reports


def notes(reports: list[Report]) -> list[str]:
    return [r.note for r in reports if r.note]


def curve(reports: list[Report]) -> list[tuple[int, dict[str, float]]]:
    return [(r.epoch, dict(r.metrics)) for r in reports if r.metrics]


def bits(result: TrialResult) -> dict[str, Any]:
    """All results of a trial that must not change: not its times and memory."""
    metrics = {k: v for k, v in result.metrics.items() if not k.startswith(("speed/", "memory/"))}
    return {**metrics, "sha256": result.tags["trial.weights_sha256"], "epochs": result.epochs}


def files(folder: Any, trial: Trial) -> list[Path]:
    """The files of the trial's checkpoints, the oldest first."""
    return sorted((Path(folder) / trial.id).iterdir())


@pytest.mark.parametrize("case", by_default(BY_DEFAULT, CASES))
def test_a_resumed_trial_has_the_bits_and_the_curve_of_one_that_was_not_broken_off(
    case: str, tmp_path: Path
) -> None:
    trial = given(**CASES[case])
    expected, reports = follow(trial)
    for after in (12, 17):  # at the end of an epoch, and within the next one
        folder = tmp_path / str(after)
        break_off(trial, kept(folder, trial), after)
        resumed, resumed_reports = follow(trial, kept(folder, trial))
        assert notes(resumed_reports) == [f"resumed from step {after}"]
        assert resumed_reports[0] == Report(after, 36, 2, {}, f"resumed from step {after}")
        assert bits(resumed) == bits(expected)
        assert curve(resumed_reports) == curve(reports)
        assert [r.steps for r in resumed_reports if r.steps > after] == list(range(after + 1, 37))


def test_a_trial_can_be_broken_off_again_and_again(tmp_path: Path) -> None:
    trial = given(model=DEEP)
    for after in (3, 5, 11, 13, 24, 34):
        break_off(trial, kept(tmp_path, trial), after)
    resumed, reports = follow(trial, kept(tmp_path, trial))
    assert notes(reports) == ["resumed from step 34"]
    assert bits(resumed) == bits(run(trial))


SCRIPT = """
import json, sys
from masksweep.sweeps.training import loop, run_trial
from masksweep.sweeps.training.checkpoint import Checkpoints
from masksweep.sweeps.config.trial import parse
from masksweep.sweeps.training.process import prepare_process
prepare_process(1)
loop.CHUNK_SECONDS = 0.0
given = parse(json.loads(sys.argv[1]))
kept = Checkpoints(sys.argv[2], given.id, 1e-9)
tell = lambda r: print(json.dumps([r.steps, r.note]), flush=True)
result = run_trial.run(given, tell, kept)
print(json.dumps([result.tags["trial.weights_sha256"], result.metrics]), flush=True)
"""


KILLED: dict[str, dict[str, Any]] = {
    "static masks": {"model": DEEP},
    # the process is killed at step 20, after which the masks change
    "rigl": {"schedule": {"name": "rigl", "frequency": 4}, "model": DEEP},
    "gradual": {"schedule": {"name": "gradual", "frequency": 4}},
    "rewinding": {"schedule": {"name": "iterative", "rounds": 8, "rewind_to": 2}},
}


@pytest.mark.slow
@pytest.mark.parametrize("case", KILLED)
def test_a_killed_process_is_gone_on_with_in_a_new_one(case: str, tmp_path: Path) -> None:
    config = {**BASE, "train": STEPS, **KILLED[case]}
    trial = given(**KILLED[case])
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, json.dumps(config), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if json.loads(line)[0] >= 20:
                os.kill(process.pid, signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    second_run = subprocess.run(command, capture_output=True, text=True, check=True)
    first, *_, last = map(json.loads, second_run.stdout.splitlines())
    assert first[0] >= 19
    assert first[1] == f"resumed from step {first[0]}"
    expected = run(trial)
    sha256, metrics = last
    assert bits(TrialResult("ok", "", metrics, {"trial.weights_sha256": sha256}, epochs=3)) == bits(
        expected
    )


def test_another_code_base_could_have_written_it(tmp_path: Path) -> None:
    """NumPy and JSON alone can read the whole content of a checkpoint."""
    trial = given(strategy="sparse_values")
    break_off(trial, kept(tmp_path, trial), 17)
    header, _, payload = files(tmp_path, trial)[-1].read_bytes().partition(b"\n")
    fields = json.loads(header)
    assert (fields["format"], fields["trial"], fields["step"]) == (1, trial.id, 17)
    with np.load(io.BytesIO(payload), allow_pickle=False) as file:
        position = json.loads(file["position"].tobytes())
        assert all(file[name].dtype.kind in "biuf" for name in file.files)
    assert position["epochs"] == len(position["curve"]) == 1
    assert position["part"]["steps"] == 5


# -- damage ------------------------------------------------------------------------------------


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (lambda p: os.truncate(p, p.stat().st_size // 2), "damaged"),
    "its last byte gone": (lambda p: os.truncate(p, p.stat().st_size - 1), "damaged"),
    "a bit of the payload": (lambda p: flip(p, p.stat().st_size // 2), "damaged"),
    "a bit of the header": (lambda p: flip(p, p.read_bytes().index(b"code") + 8), "damaged"),
    "empty": (lambda p: p.write_bytes(b""), "damaged"),
    "its header alone": (lambda p: p.write_bytes(p.read_bytes().partition(b"\n")[0]), "damaged"),
    "something else": (lambda p: p.write_bytes(b"[1]\n[2]"), "damaged"),
    "the one before": (lambda p: copy(min(p.parent.iterdir()), p), "of another step"),
    "no file": (folder_instead, "[Errno 21] Is a directory"),
}


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return bits(run(given()))


@pytest.fixture(scope="module")
def broken_off(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoints of steps 16 and 17 of two trials."""
    folder = tmp_path_factory.mktemp("checkpoints")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "CHUNK_SECONDS", 0.0)
        for trial in (given(), given(seed=1)):
            break_off(trial, kept(folder, trial), 17)
    return folder


@pytest.fixture
def folder(broken_off: Path, tmp_path: Path) -> Path:
    return copytree(broken_off, tmp_path / "checkpoints")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_told_and_the_one_before_used(
    damage: str, folder: Path, whole: dict[str, Any]
) -> None:
    trial = given()
    damage_file, message = DAMAGES[damage]
    damage_file(files(folder, trial)[-1])
    resumed, reports = follow(trial, kept(folder, trial))
    (note,) = notes(reports)
    assert note.startswith(f"checkpoint of step 17: {message}")
    assert note.endswith("; resumed from step 16")
    assert bits(resumed) == whole


def test_the_checkpoint_of_another_trial_is_told_and_not_used(
    folder: Path, whole: dict[str, Any]
) -> None:
    trial = given()
    copy(files(folder, given(seed=1))[-1], files(folder, trial)[-1])
    resumed, reports = follow(trial, kept(folder, trial))
    assert notes(reports) == ["checkpoint of step 17: of another trial; resumed from step 16"]
    assert bits(resumed) == whole


def test_without_a_usable_checkpoint_a_trial_starts_anew(
    folder: Path, whole: dict[str, Any]
) -> None:
    trial = given()
    for path in files(folder, trial):
        os.truncate(path, 1000)
    resumed, reports = follow(trial, kept(folder, trial))
    assert notes(reports) == [
        "checkpoint of step 17: damaged; checkpoint of step 16: damaged; "
        "started from the first step"
    ]
    assert bits(resumed) == whole


def test_nothing_is_said_where_there_is_nothing_to_resume(tmp_path: Path) -> None:
    trial = given()
    _, reports = follow(trial, kept(tmp_path, trial))
    assert notes(reports) == []


STATE = State(7, {"curve": [{"train/loss": float("nan")}], "loss": 0.1}, [np.arange(3.0)])


def saved(folder: Any, *states: State, trial: str = "trial", start: str = "start") -> Checkpoints:
    checkpoints = Checkpoints(str(folder), trial, 1.0)
    checkpoints.resume(start)
    for state in states or (STATE,):
        assert checkpoints.save(state) == ""
    return checkpoints


def found_again(folder: Any, trial: str = "trial", start: str = "start") -> tuple[Any, str]:
    return Checkpoints(str(folder), trial, 1.0).resume(start)


def test_no_bit_of_a_checkpoint_can_change_unseen(tmp_path: Path) -> None:
    saved(tmp_path)
    (path,) = (tmp_path / "trial").iterdir()
    for at in range(path.stat().st_size):
        flip(path, at)
        assert found_again(tmp_path)[0] is None, at
        flip(path, at)
    state, note = found_again(tmp_path)
    assert note == "resumed from step 7"
    assert str(state.position) == str(STATE.position)
    assert (state.arrays[0] == STATE.arrays[0]).all()


def test_a_checkpoint_of_another_start_or_version_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path)
    assert found_again(tmp_path, start="other") == (
        None,
        "checkpoint of step 7: of another start; started from the first step",
    )
    for name, value, key in (
        ("FORMAT_VERSION", 2, "format"),
        ("code_version", lambda: "2.0", "code"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, name, value)
            state, note = found_again(tmp_path)
        assert state is None
        assert note == f"checkpoint of step 7: of another {key}; started from the first step"
    assert found_again(tmp_path)[0]


@pytest.mark.parametrize(
    "sections", [{"seed": 1}, {"held": {"name": "constant", "value": 0.5}}, {"model": DEEP}]
)
def test_a_start_is_known_by_masks_held_values_and_shapes(sections: dict[str, Any]) -> None:
    one, same, other = (
        trial_run.fingerprint(program_for(start(given(**s))).training) for s in ({}, {}, sections)
    )
    assert one == same != other


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    unpickled: list[int] = []

    class Bomb:
        def __reduce__(self) -> Any:
            return unpickled.append, (1,)

    checkpoints = saved(tmp_path)
    buffer = io.BytesIO()
    np.savez(buffer, np.array([Bomb()], dtype=object), position=np.frombuffer(b"{}", np.uint8))
    (path,) = (tmp_path / "trial").iterdir()
    fields = checkpoints._header_fields(7)
    header = {**fields, "sha256": checkpoint._digest(fields, buffer.getvalue())}
    path.write_bytes(json.dumps(header).encode() + b"\n" + buffer.getvalue())
    state, note = found_again(tmp_path)
    assert state is None
    assert "pickle" in note
    assert not unpickled


# -- folders and times ---------------------------------------------------------------------------


def test_the_last_two_are_kept_and_what_a_killed_writer_left_goes(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path)
    folder = tmp_path / "trial"
    (folder / "000000000009.checkpoint.new").write_bytes(b"half")
    assert found_again(tmp_path)[1] == "resumed from step 7"
    for steps in (8, 9, 10):
        checkpoints.save(State(steps, {}, []))
    names = {f"{steps:012d}.checkpoint" for steps in (9, 10)}
    assert {p.name for p in folder.iterdir()} == names


def test_a_damaged_one_does_not_push_out_a_good_one(tmp_path: Path) -> None:
    saved(tmp_path, STATE, State(20, {}, []))
    newest = max((tmp_path / "trial").iterdir())
    newest.write_bytes(b"")
    saved(tmp_path, State(8, {}, []))
    names = [f"{steps:012d}.checkpoint" for steps in (7, 8)]
    assert sorted(p.name for p in (tmp_path / "trial").iterdir()) == names


def test_no_checkpoint_follows_the_last_step(tmp_path: Path) -> None:
    trial = given()
    run(trial, checkpoints=kept(tmp_path, trial))
    assert [p.name[:12] for p in files(tmp_path, trial)] == [f"{n:012d}" for n in (34, 35)]


def test_a_checkpoint_is_due_by_time_and_at_an_epochs_end_if_that_is_cheap(tmp_path: Path) -> None:
    slow, quick = (Checkpoints(str(tmp_path), "trial", s) for s in (1000.0, 0.5))
    for checkpoints in (slow, quick):
        checkpoints.resume("")
        assert not checkpoints.is_due(epoch_ended=False)
        assert checkpoints.is_due(epoch_ended=True)
    large = State(1, {}, [np.zeros(2_000_000)])
    tic = time.monotonic()
    for checkpoints in (slow, quick):
        checkpoints.save(large)
        assert not checkpoints.is_due(epoch_ended=False)
        assert not checkpoints.is_due(epoch_ended=True)
    spent = time.monotonic() - tic
    time.sleep(max(0.5, 21 * spent))
    assert quick.is_due(epoch_ended=False)
    assert slow.is_due(epoch_ended=True)
    assert not slow.is_due(epoch_ended=False)


@pytest.fixture
def memory() -> Iterator[str]:
    yield "memory://"
    filesystem("memory").store.clear()


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of a bucket on a local S3 server."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as env:
        for name, value in server.client.items():
            env.setenv(name, value)
        filesystem("s3").mkdir("bucket")
        yield "s3://bucket/"


@pytest.mark.parametrize(("store", "inner"), [("memory", ""), ("memory", "a/b"), ("s3", "a/b")])
def test_any_fsspec_uri_will_do(
    store: str, inner: str, whole: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(store) + inner
    checkpoint.check(folder)
    trial = given()
    break_off(trial, kept(folder, trial), 17)
    resumed, reports = follow(trial, kept(folder, trial))
    assert notes(reports) == ["resumed from step 17"]
    assert bits(resumed) == whole
    checkpoint.clear(folder, trial.id)
    assert kept(folder, trial).resume("") == (None, "")


def test_a_damaged_checkpoint_in_an_object_store_is_told_too(s3: str) -> None:
    saved(f"{s3}damaged", STATE, State(9, {}, []))
    newest = max(filesystem("s3").ls(f"{s3}damaged/trial"))
    filesystem("s3").pipe_file(newest, filesystem("s3").cat_file(newest)[:-1])
    note = found_again(f"{s3}damaged")[1]
    assert note.startswith("checkpoint of step 9: ")
    assert note.endswith("; resumed from step 7")


def test_a_bucket_is_never_made(s3: str) -> None:
    with pytest.raises(Invalid, match=r"cannot be written: .*bucket"):
        checkpoint.check("s3://other/folder")
    assert filesystem("s3").ls("") == ["bucket"]


def test_a_slash_at_the_end_of_a_uri_does_not_count(memory: str) -> None:
    saved(f"{memory}bucket/")
    assert found_again(f"{memory}bucket")[1] == "resumed from step 7"


def test_clearing_removes_one_trials_checkpoints_alone(tmp_path: Path) -> None:
    for trial in ("one", "other"):
        saved(tmp_path, trial=trial)
    for _ in range(2):  # the second time, there is nothing to remove
        checkpoint.clear(str(tmp_path), "one")
    assert [p.name for p in tmp_path.iterdir()] == ["other"]
    checkpoint.clear("nowhere://folder", "one")


def test_what_cannot_be_written_is_told_once_and_the_trial_goes_on(
    tmp_path: Path, whole: dict[str, Any]
) -> None:
    trial, reports = given(), []
    folder = tmp_path / trial.id

    def emit(report: Report) -> None:
        reports.append(report)
        if report.steps == 5:
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
            folder.write_text("in the way")

    result = run(trial, emit, kept(tmp_path, trial))
    (note,) = notes(reports)
    assert note.startswith("no checkpoint at step 5: ")
    assert bits(result) == whole


def test_where_no_store_is_known_the_trial_starts_anew(whole: dict[str, Any]) -> None:
    trial = given()
    result, reports = follow(trial, kept("nowhere://folder", trial))
    assert notes(reports) == [
        "checkpoints: Protocol not known: nowhere; started from the first step",
        "no checkpoint at step 1: Protocol not known: nowhere",
    ]
    assert bits(result) == whole


def test_a_full_disk_leaves_no_half_of_a_checkpoint(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        note = checkpoints.save(State(8, {}, [np.zeros(10_000)]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "no checkpoint at step 8: " in note
    assert "File too large" in note
    assert [p.name for p in (tmp_path / "trial").iterdir()] == ["000000000007.checkpoint"]


def test_a_folder_is_tried_before_the_sweep(tmp_path: Path) -> None:
    checkpoint.check(str(tmp_path / "new" / "folder"))
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("in the way")
    packages = {"s3": "s3fs", "gs": "gcsfs", "abfs": "adlfs", "oss": "ossfs", "hdfs3": "hdfs3"}
    missing_protocol = next(
        protocol for protocol, package in packages.items() if not find_spec(package)
    )
    for folder, reason in {
        str(tmp_path / "file" / "inner"): "cannot be written: ",
        "nowhere://folder": "cannot be written: Protocol not known: nowhere",
        f"{missing_protocol}://bucket": "needs a package: ",
    }.items():
        with pytest.raises(Invalid) as caught:
            checkpoint.check(folder)
        assert (caught.value.key, caught.value.value) == ("checkpoint.path", folder)
        assert caught.value.allowed.startswith(reason)
        assert "\n" not in str(caught.value)
