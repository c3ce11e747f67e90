"""Tests of hostile files: they are refused with one line, in little memory and time.

No data outside of the file is read.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.sparse

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.audit import opening, saved_model
from masksweep.sweeps.cli.main import main
from tests.support import archive_bombs as bombs
from tests.support import mask_bombs as masks

SERVER = """
import json, os, pathlib, sys
import h5py, numpy, scipy.sparse  # each audit would take longer to import them than to run
from masksweep.sweeps.cli import audit
from masksweep.sweeps.cli.main import main

def audited(folder, outputs, arguments):
    os.chdir(folder)
    for descriptor, name in enumerate(outputs, 1):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak of memory starts from here
    code = main(["audit", *arguments])
    status = pathlib.Path("/proc/self/status").read_text()  # getrusage counts the parent's too
    print(status.partition("VmHWM:")[2].split()[0], file=sys.stderr, flush=True)
    sys.stdout.flush()
    return code

for line in sys.stdin:
    if not (child := os.fork()):
        code = 1
        try:
            code = audited(*json.loads(line))
        finally:
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Runs each audit in a process of its own, forked from one that has imported what an audit uses."""
EXTRA = 150 * 2**20
"""Largest additional memory in bytes, compared with the audit of a small model. The files of the
tests unpack to 1 GiB."""
SAVED = Path(__file__).parents[1] / "saved"


@dataclass(frozen=True)
class Measured:
    """The result of an audit in a separate process."""

    code: int
    stdout: str
    last: str
    """The last line of stderr."""
    memory: int
    """Largest resident memory of the process, in bytes."""
    seconds: float


Audit = Callable[..., Measured]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audit]:
    """Runs `masksweep audit` with arguments, in the current folder."""
    outputs = [tmp_path_factory.mktemp("audit") / name for name in ("stdout", "stderr")]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        # a limit of 8 GiB, so that a failing test does not use up the memory of the machine
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33)),
    )
    assert process.stdin
    assert process.stdout
    requests, codes = process.stdin, process.stdout

    def audit(*arguments: str) -> Measured:
        start = time.monotonic()
        request = [str(Path.cwd()), [str(path) for path in outputs], arguments]
        print(json.dumps(request), file=requests, flush=True)
        code = int(codes.readline())
        seconds = time.monotonic() - start
        stdout, stderr = (path.read_text() for path in outputs)
        *messages, memory = stderr.splitlines()
        assert memory.isdecimal(), stderr
        assert "Traceback" not in stderr
        last = messages[-1] if messages else ""
        return Measured(code, stdout, last, int(memory) * 1024, seconds)

    with process:
        yield audit
        process.kill()


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("masks.npz", **{bombs.NAME: np.zeros((3, 4))})


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory, measured: Audit) -> int:
    """Memory in bytes that the audit of a small model takes."""
    folder = tmp_path_factory.mktemp("usual")
    model = str(bombs.saved(folder / "model.keras"))
    np.savez(folder / "masks.npz", **{bombs.NAME: np.zeros((3, 4))})
    audit = measured(model, str(folder / "masks.npz"))
    assert audit.code == 0
    return audit.memory


MODEL = "path=model.keras: "
HDF5 = "path=model.h5: "
MASKS = "path=masks.npz: "
KERNEL = "/layers/dense/vars/0"
REFUSED: dict[Callable[[], None], str] = {
    bombs.config_of_gigabytes: f"{MODEL}its config.json unpacks to more than 16,777,216 bytes",
    bombs.config_of_nested_layers: f"{MODEL}its config describes more than 100,000 layers",
    bombs.config_of_deep_layers: f"{MODEL}its config describes more than 100,000 layers",
    bombs.weights_of_gigabytes: f"{MODEL}its model.weights.h5 unpacks to too many bytes",
    bombs.lying_packed_size: f"{MODEL}its model.weights.h5 unpacks to too many bytes",
    bombs.lying_directory: f"{MODEL}not a readable .keras file",
    bombs.never_written: f"{HDF5}{KERNEL} declares 13,194,139,533,312 bytes and holds 0",
    bombs.never_written_contiguous: f"{HDF5}{KERNEL} declares 13,194,139,533,312 bytes and holds",
    bombs.deflated: f"{HDF5}{KERNEL} is packed (deflate); unpack it with h5repack -f NONE",
    bombs.deflated_chunk: f"{HDF5}{KERNEL} is packed (deflate); unpack it with h5repack -f NONE",
    bombs.elsewhere: f"{HDF5}{KERNEL} is stored in another file, which Keras does not do",
    bombs.virtual: f"{HDF5}{KERNEL} is stored in another file, which Keras does not do",
    bombs.external_link: f"{HDF5}{KERNEL} is a link, which Keras does not write",
    bombs.soft_link: f"{HDF5}{KERNEL} is a link, which Keras does not write",
    bombs.groups_without_end: f"{HDF5}/layers/dense/a: groups are nested too deep",
    bombs.deep_groups: f"{HDF5}/layers/a/a/a/a",
    bombs.many_groups: f"{HDF5}has more than 100,000 groups and arrays",
    masks.mask_of_declared_size: f"{MASKS}not a readable .npz file",
    masks.mask_of_gigabytes: f"mask of {bombs.NAME}=shape [64, 16777216]: must be of shape [3, 4]",
    masks.held_of_gigabytes: f"{bombs.NAME}=uint8 of shape (64, 16777216): must be numbers of ",
    masks.sparse_mask_of_gigabytes: f"{MASKS}one mask of shape [134217728, 4], without a name: no",
    masks.sparse_mask_with_many_entries: f"{MASKS}has more entries than a matrix of its shape",
    masks.sparse_mask_of_declared_size: f"{MASKS}one mask of shape [1152921504606846976, 4], wit",
    masks.sparse_mask_outside: f"{MASKS}is no valid sparse matrix",
    masks.mask_of_wide_entries: "mask=dtype |S400000000: must be 0 and 1 only",
    masks.named_mask_of_wide_entries: f"mask of {bombs.NAME}=dtype |S400000000: must be 0 and 1 on",
    masks.sparse_mask_of_wide_entries: "data of the sparse mask=dtype |S400000000: must be 0 and 1",
    masks.sparse_mask_without_format: f"{MASKS}must be a sparse matrix, of two dimensions",
    masks.sparse_mask_of_no_numbers_for_shape: f"{MASKS}must be a sparse matrix, of two dimensions",
    masks.empty_of_any_length: f"mask of {bombs.NAME}=shape [4611686018427387904, 0]: must be of a",
}


@pytest.mark.parametrize("bomb", REFUSED, ids=lambda bomb: bomb.__name__)
def test_what_is_refused_takes_little(
    bomb: Callable[[], None], usual: int, measured: Audit
) -> None:
    bomb()
    model = next(name for name in ("model.h5", "model.keras") if Path(name).exists())
    held = ("--held", "held.npz") if Path("held.npz").exists() else ()
    audit = measured(model, "masks.npz", *held)
    assert (audit.code, audit.stdout) == (2, ""), audit
    assert audit.last.startswith(f"masksweep: {REFUSED[bomb]}")
    assert len(audit.last) < 500
    assert audit.memory < usual + EXTRA
    assert audit.seconds < 30


def test_what_the_config_declares_is_not_made(usual: int, measured: Audit) -> None:
    """The config declares a huge layer, but the stored arrays are small and hold."""
    bombs.config_of_many_units()
    audit = measured("model.keras", "masks.npz")
    assert (audit.code, audit.stdout.splitlines()[-1][:5]) == (0, "holds")
    assert audit.memory < usual + EXTRA


def test_a_long_name_is_not_read() -> None:
    bombs.long_name()
    with opening.open_model("model.h5") as model:
        assert model.listed() == "dense/kernel"


@pytest.mark.parametrize("extension", ["keras", "h5", "weights.h5"])
def test_a_damaged_file_is_refused_or_read(extension: str) -> None:
    """With any byte damaged, the file is read or `Invalid` is raised. Neither takes for ever."""
    path = Path(f"model.{extension}")
    if extension == "weights.h5":
        shutil.copy(SAVED / "keras3_0.weights.h5", path)
    elif extension == "h5":
        shutil.copy(SAVED / "keras2_tfmot_stripped.h5", path)
    else:
        bombs.saved(path)
    whole = path.read_bytes()
    indices = np.random.default_rng(0).choice(len(whole), 400, replace=False)
    refused = 0
    for index in map(int, indices):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 0xFF]) + whole[index + 1 :])
        try:
            read(str(path))
        except Invalid:
            refused += 1
    assert refused


def saved_copy() -> Path:
    shutil.copytree(SAVED / "keras2_saved_model", "saved")
    return Path("saved/variables")


def test_a_saved_model_that_leads_elsewhere() -> None:
    folder = saved_copy()
    data = folder / "variables.data-00000-of-00001"
    shutil.move(data, "data")
    data.symlink_to(Path("data").resolve())
    with pytest.raises(Invalid, match=r"variables\.data-00000-of-00001 is a link out of the fol"):
        opening.check("saved")
    data.unlink()
    os.mkfifo(data)  # reading a named pipe would wait for ever
    with pytest.raises(Invalid, match="is a link out of the folder"):
        opening.check("saved")
    data.unlink()
    shutil.move("data", folder / "inside")
    data.symlink_to("inside")
    opening.check("saved")
    Path("linked").symlink_to("saved")
    opening.check("linked")


def test_a_saved_model_that_declares_more_than_it_holds(measured: Audit) -> None:
    bombs.saved_model_of_declared_size()
    audit = measured("saved", "masks.npz")
    reason = f"{bombs.NAME} declares 4,398,046,511,104 bytes; its data has 4"
    assert (audit.code, audit.last) == (2, f"masksweep: path=saved: {reason}")
    assert audit.memory < 2 * 2**30, "of which TensorFlow takes most"


def read(path: str) -> None:
    with opening.open_model(path) as model:
        for weight in model.weights:
            list(weight.blocks(100))


def test_a_saved_model_that_is_cut_off() -> None:
    data = saved_copy() / "variables.data-00000-of-00001"
    read("saved")
    data.write_bytes(data.read_bytes()[:60])
    with pytest.raises(Invalid, match="not a readable SavedModel or checkpoint"):
        read("saved")


@pytest.mark.parametrize("place", range(0, 1000, 50))
def test_a_damaged_saved_model_is_refused(place: int) -> None:
    index = saved_copy() / "variables.index"
    data = bytearray(index.read_bytes())
    data[place] ^= 0xFF
    index.write_bytes(data)
    with pytest.raises(Invalid):
        read("saved")


def test_nothing_is_made_dense_as_a_whole(usual: int, measured: Audit) -> None:
    """Tests a kernel of 1.1 GB with few kept entries, such as a matrix of words by topics."""
    large_kernel((131_503, 2_048))
    audit = measured("model.weights.h5", "masks.npz", "--weight", "hidden/kernel")
    assert (audit.code, audit.stdout.splitlines()[-1]) == (
        0,
        "holds: 269,317,144 masked entries, bit for bit",
    )
    assert audit.memory < usual + EXTRA


@pytest.mark.parametrize("mask", ["sparse", "dense"])
def test_a_long_row_is_read_in_parts(mask: str, usual: int, measured: Audit) -> None:
    """Tests a kernel with one row of 1 GiB, which is larger than a block."""
    shape = (1, 2**28)
    large_kernel(shape)
    named = ("--weight", "hidden/kernel") if mask == "sparse" else ()
    if mask == "dense":
        Path("masks.npz").unlink()
        masks.packed_zeros("hidden/kernel", shape)
    audit = measured("model.weights.h5", "masks.npz", *named)
    entries = 2**28 - 1000 * (mask == "sparse")
    assert (audit.code, audit.stdout.splitlines()[-1]) == (
        0,
        f"holds: {entries:,} masked entries, bit for bit",
    )
    assert audit.memory < usual + EXTRA


def test_what_is_read_as_a_whole_has_a_limit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tests masks in Fortran order, arrays of sparse masks, and variables of a SavedModel."""

    def refused(model: str, masks: str) -> str:
        assert main(["audit", model, masks, "--weight", bombs.NAME]) == 2
        return capsys.readouterr().err.splitlines()[-1].removeprefix("masksweep: ")

    def limited(module: str, bytes_allowed: int) -> None:
        monkeypatch.setattr(f"{module}.MAX_ARRAY_BYTES", bytes_allowed)

    bombs.saved()
    np.save("mask.npy", np.asfortranarray(np.zeros((3, 4))))
    np.save("c_order.npy", np.zeros((3, 4)))
    scipy.sparse.save_npz("sparse.npz", scipy.sparse.csr_matrix(np.eye(3, 4)))
    limited("masksweep.strategies.core.npz", 95)
    allowed = "an array of 96 bytes must be read as a whole, and 95 are allowed"
    order = "; save it in C order, with numpy.ascontiguousarray"
    assert refused("model.keras", "mask.npy") == f"path=mask.npy: {allowed}{order}"
    assert main(["audit", "model.keras", "c_order.npy", "--weight", bombs.NAME]) == 0
    limited("masksweep.strategies.core.npz", 20)
    allowed = "an array of 24 bytes must be read as a whole, and 20 are allowed"
    assert refused("model.keras", "sparse.npz") == f"path=sparse.npz: {allowed}"
    limited("masksweep.sweeps.audit.mask_files", 20)
    assert refused("model.keras", "sparse.npz") == "path=sparse.npz: has more than 2 rows"
    limited("masksweep.sweeps.audit.saved_model", 47)
    saved_copy()
    message = "its 48 bytes must be read as a whole, and 47 are allowed; save the model as .keras"
    assert refused("saved", "c_order.npy") == f"path=saved: {bombs.NAME}: {message}"


@pytest.mark.slow
def test_a_kernel_of_nine_gigabytes(usual: int, measured: Audit) -> None:
    large_kernel((131_503, 17_825))
    audit = measured("model.weights.h5", "masks.npz")
    assert (audit.code, audit.stdout.splitlines()[-1]) == (
        0,
        "holds: 2,344,039,975 masked entries, bit for bit",
    )
    assert audit.memory < usual + EXTRA


def large_kernel(shape: tuple[int, int]) -> None:
    """Writes a model with a float32 kernel of zeros, and a sparse mask with 1,000 kept entries."""
    with h5py.File("model.weights.h5", "w") as file:
        group = file.create_group("layers/dense/vars")
        group.attrs["name"] = "hidden"
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        # the data are a hole in the file: no byte is written
        layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        space = h5py.h5s.create_simple(shape)
        h5py.h5d.create(group.id, b"0", h5py.h5t.IEEE_F32LE, space, layout)
        file.create_group("vars").attrs["name"] = "model"
    random = np.random.default_rng(0)
    places = random.choice(shape[0] * shape[1], 1000, replace=False)
    rows, columns = np.unravel_index(places, shape)
    mask = scipy.sparse.coo_matrix((np.ones(1000, bool), (rows, columns)), shape=shape)
    scipy.sparse.save_npz("masks.npz", mask)


def test_saved_model_is_looked_at_before_tensorflow_is_loaded() -> None:
    Path("saved").mkdir()
    with pytest.raises(Invalid, match=r"it has no variables\.index with its data"):
        saved_model.check("saved")
