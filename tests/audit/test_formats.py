"""Tests that `masksweep audit` reads common formats of models and masks, but no ambiguous ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import ml_dtypes
import numpy as np
import pytest
import scipy.sparse
from keras import layers

from tests.support.audits import MASK, NAME, SHAPE, as_json, audited, build, kernel, refused, save
from tests.support.saved_files import SAVED


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


FORMATS = ("model.keras", "model.h5", "model.weights.h5", "exported")


def save_as(path: str, model: Any) -> str:
    """Saves a model in the format of the path, one of `FORMATS`. Returns the path."""
    if path == "exported":
        model.export(path, verbose=False)
    elif path.endswith(".weights.h5"):
        model.save_weights(path)
    else:
        model.save(path)
    return path


def built(value: float = 0) -> Any:
    """Returns a model whose masked entries have this value, and whose moving means are 7."""
    model = build()
    model.get_layer("hidden").kernel.assign(kernel(value))
    model.get_layer("norm").moving_mean.assign([7, 7, 7, 7])
    return model


# -- models ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FORMATS)
def test_each_format_by_the_same_names(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The masks include a statistic, which no gradient trains. A single wrong bit is reported."""
    masks = {NAME: MASK, "norm/moving_mean": [0, 1, 0, 1]}
    np.savez("masks.npz", **masks)
    model = built()
    arguments = (save_as(path, model), "masks.npz")
    np.savez("held.npz", **{NAME: np.zeros(SHAPE), "norm/moving_mean": np.full(4, 7)})
    assert audited(capsys, *arguments, "--held", "held.npz")[0] == 0
    result = as_json(capsys, *arguments)
    assert [(w["weight"].split("/")[-2:], w["violations"]) for w in result["weights"]] == [
        (["hidden", "kernel"], 0),
        (["norm", "moving_mean"], 2),
    ]
    assert result["weights"][1]["first"][1] == {"index": [2], "found": 7.0, "held": 0.0}
    model.get_layer("hidden").kernel.assign(kernel([0, 0, 0, 0, -0.0]))
    code, output = audited(capsys, save_as(path, model), "masks.npz", "--held", "held.npz")
    verdict = "DOES NOT HOLD: 1 of 7 masked entries differs, in the sign of a zero only"
    assert (code, output.splitlines()[-1]) == (1, verdict)


@pytest.mark.parametrize("path", FORMATS)
def test_held_at_another_model_in_each_format(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez("masks.npz", **{NAME: MASK})
    save_as("after.keras", built(0.3))
    assert audited(capsys, "after.keras", "masks.npz", "--held", save_as(path, built(0.3)))[0] == 0
    code, output = audited(capsys, "after.keras", "masks.npz", "--held", save_as(path, built(0.4)))
    assert (code, "5 of 5 masked entries differ, by up to 0.1" in output) == (1, True)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("keras2.h5", "hidden/kernel:0"),
        ("keras2_weights.h5", NAME),
        ("keras2.keras", "sequential/hidden/kernel"),
        ("keras2.weights.h5", "dense/kernel"),
        ("keras2_saved_model", NAME),
        ("keras2_checkpoint/weights.index", NAME),
        ("keras2_tfmot_stripped.h5", NAME),
        ("keras2_tfmot_wrapped.h5", NAME),
        ("keras3_0.keras", NAME),
        ("keras3_0.weights.h5", "dense/kernel"),
    ],
)
def test_files_of_older_versions(file: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("masks.npz", **{name: MASK})
    code, output = audited(capsys, str(SAVED / file), "masks.npz")
    assert (code, output.splitlines()[-1]) == (0, "holds: 5 masked entries, bit for bit")
    np.savez("masks.npz", **{name: np.zeros(SHAPE)})
    code, output = audited(capsys, str(SAVED / file), "masks.npz")
    verdict = "DOES NOT HOLD: 7 of 12 masked entries differ, by up to 9"
    assert (code, output.splitlines()[-1]) == (1, verdict)


def test_a_statistic_can_be_held_and_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    save_as("model.keras", built())
    np.savez("masks.npz", nope=MASK)
    message = refused(capsys, "model.keras", "masks.npz")
    assert "norm/moving_mean, norm/moving_variance" in message
    np.savez("masks.npz", **{"norm/moving_mean": np.zeros(4)})
    assert audited(capsys, "model.keras", "masks.npz", "--held", "7")[0] == 0


def test_a_whole_number_is_held_at_whole_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    counts = layers.Normalization(name="norm")
    counts.adapt(np.ones((3, 2)))
    keras.Sequential([keras.Input((2,)), counts]).save("model.keras")
    dtype = np.asarray(counts.variables[2]).dtype
    np.savez("masks.npz", **{"norm/count": False})
    message = refused(capsys, "model.keras", "masks.npz", "--held", "0.5")
    assert message == f"--held=0.5: must be whole for norm/count, {dtype}"
    count = int(np.asarray(counts.variables[2]))
    assert audited(capsys, "model.keras", "masks.npz", f"--held={count}")[0] == 0
    assert audited(capsys, "model.keras", "masks.npz", f"--held={count + 1}")[0] == 1


# -- custom layers ---------------------------------------------------------------------------


@keras.saving.register_keras_serializable("Tests")
class Own(layers.Layer):
    """Variables that share a name, or have none."""

    def build(self, shape: Any) -> None:
        self.one = self.add_weight(shape=(3, 4), initializer="ones", name="w")
        self.other = self.add_weight(shape=(3, 4), initializer="zeros", name="w")

    def call(self, x: Any) -> Any:
        return x @ self.one + x @ self.other


class Mine(layers.Dense):
    """A layer that is not registered, so Keras cannot load it."""


class Bounded(keras.constraints.Constraint):
    """A constraint that is not registered, so Keras cannot load it."""

    def __call__(self, w: Any) -> Any:
        return w


def test_variables_of_own_layers_are_named_by_place(capsys: pytest.CaptureFixture[str]) -> None:
    layer = Own(name="own")
    keras.Sequential([keras.Input((3,)), layer]).save("model.keras")
    np.savez("masks.npz", **{"own/w": MASK})
    said = refused(capsys, "model.keras", "masks.npz")
    assert said.endswith("names own/w; the model's weights are own/0 [3, 4], own/1 [3, 4]")
    np.savez("masks.npz", **{"own/1": MASK})
    code, said = audited(capsys, "model.keras", "masks.npz")
    assert (code, said.splitlines()[-1]) == (0, "holds: 5 masked entries, bit for bit")
    assert "own/1: named by position, because the file does not have the names of variables" in said
    assert as_json(capsys, "model.keras", "masks.npz")["weights"][0]["by_place"] is True
    np.savez("masks.npz", **{"own/0": MASK})
    assert audited(capsys, "model.keras", "masks.npz")[0] == 1


@pytest.mark.parametrize("path", ["model.keras", "model.weights.h5"])
def test_a_layer_like_dense_is_found_as_kernel_and_bias(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = keras.Sequential([keras.Input((3,)), Mine(4, name="hidden")])
    model.get_layer("hidden").kernel.assign(kernel(0))
    save_as(path, model)
    np.savez("masks.npz", **{NAME: MASK, "hidden/bias": np.zeros(4)})
    code, output = audited(capsys, path, "masks.npz")
    assert (code, "hidden/0, hidden/1: named by position" in output) == (0, True)


def test_a_constraint_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    layer = layers.Dense(4, name="hidden", kernel_constraint=Bounded())
    save(keras.Sequential([keras.Input((3,)), layer]), {NAME: kernel(0)})
    np.savez("masks.npz", **{NAME: MASK})
    code, output = audited(capsys, "model.keras", "masks.npz")
    assert (code, "by place" in output) == (0, False)


# -- masks -----------------------------------------------------------------------------------


def sparse(kind: str) -> Any:
    """Returns the mask as a SciPy matrix that also stores two zeros."""
    matrix = scipy.sparse.coo_matrix((np.append(np.ones(7), [0, 0]), _places()), shape=SHAPE)
    assert matrix.nnz == 9
    return matrix.asformat(kind)


def _places() -> tuple[Any, Any]:
    rows, columns = np.nonzero(MASK)
    return np.append(rows, [0, 2]), np.append(columns, [1, 2])


DTYPES = ("bool", "int8", "uint8", "int32", "int64", "uint64", "float16", "float32", "float64")


@pytest.mark.parametrize("dtype", [*DTYPES, "bfloat16", ">i4", ">f8", "fortran"])
@pytest.mark.parametrize("file", ["named.npz", "packed.npz", "one.npz", "one.npy"])
def test_a_mask_of_any_dtype(file: str, dtype: str, capsys: pytest.CaptureFixture[str]) -> None:
    mask = np.asfortranarray(MASK) if dtype == "fortran" else MASK.astype(dtype)
    if dtype == "bfloat16":
        assert mask.dtype == ml_dtypes.bfloat16
    match file:
        case "named.npz":
            np.savez(file, **{NAME: mask})
        case "packed.npz":
            np.savez_compressed(file, **{NAME: mask})
        case "one.npz":
            np.savez(file, mask)
        case "one.npy":
            np.save(file, mask)
    save_as("model.keras", built())
    result = as_json(capsys, "model.keras", file)
    assert (result["masked"], result["holds"], result["weights"][0]["weight"]) == (5, True, NAME)
    save_as("model.keras", built(1))
    assert as_json(capsys, "model.keras", file)["violations"] == 5


@pytest.mark.parametrize("dtype", ["bool", "float32", "int64"])
@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr", "dia"])
def test_a_sparse_mask(kind: str, dtype: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Entries that the matrix stores as zero are masked, like those that it does not store."""
    scipy.sparse.save_npz("mask.npz", sparse(kind).astype(dtype))
    save_as("model.keras", built(1))
    result = as_json(capsys, "model.keras", "mask.npz")
    assert (result["masked"], result["violations"]) == (5, 5)
    assert [e["index"] for e in result["weights"][0]["first"]] == [[0, 1], [0, 3], [1, 0]]


@pytest.mark.parametrize("mask", [MASK * 2, MASK * 0.5, -MASK, MASK * 1j, MASK.astype(str)])
def test_other_values_are_refused(mask: Any, capsys: pytest.CaptureFixture[str]) -> None:
    save_as("model.keras", built())
    np.save("mask.npy", mask)
    assert refused(capsys, "model.keras", "mask.npy").endswith(": must be 0 and 1 only")


def test_an_entry_that_a_sparse_mask_stores_twice(capsys: pytest.CaptureFixture[str]) -> None:
    """SciPy adds both values, so the entry is 2."""
    save_as("model.keras", built())
    mask = scipy.sparse.coo_matrix((np.ones(2), ([0, 0], [1, 1])), shape=SHAPE)
    scipy.sparse.save_npz("mask.npz", mask)
    assert refused(capsys, "model.keras", "mask.npz") == (
        "mask of hidden/kernel=[2.0]: must be 0 and 1 only"
    )


def test_a_mask_without_a_name_is_of_the_only_weight_of_its_shape(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def complaint(mask: Any, *more: str) -> str:
        np.save("mask.npy", mask)
        return refused(capsys, "model.keras", "mask.npy", *more)

    save_as("model.keras", built())
    assert complaint(np.zeros(4)) == (
        "path=mask.npy: one mask of shape [4], without a name: of that shape are norm/gamma, "
        "norm/beta, norm/moving_mean, norm/moving_variance, hidden/bias; say which with --weight"
    )
    assert "no weight has that shape; they are " in complaint(np.zeros((4, 3)))
    assert complaint(np.zeros(4), "--weight", "x").startswith("--weight=x: the model's weights are")
    assert complaint(np.zeros(4), "--weight", "bias").startswith("path=model.keras: bias may be ")
    assert complaint(MASK.T, "--weight", NAME).startswith(
        "mask of hidden/kernel=shape [4, 3]: must"
    )
    np.save("mask.npy", np.zeros(4))
    arguments = ("model.keras", "mask.npy", "--weight", "norm/moving_mean", "--held", "7")
    assert audited(capsys, *arguments)[0] == 0
    np.savez("masks.npz", **{NAME: MASK})
    message = refused(capsys, "model.keras", "masks.npz", "--weight", NAME)
    assert message == f"--weight={NAME}: must be left out: the file has a name for each mask"


def test_a_name_that_fits_two_weights_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (
        keras.Sequential([keras.Input((3,)), layers.Dense(3, name="same")], name=name)
        for name in ("one", "two")
    )
    keras.Sequential([keras.Input((3,)), first, second]).save("model.keras")
    np.savez("masks.npz", **{"same/kernel": np.zeros((3, 3))})
    message = refused(capsys, "model.keras", "masks.npz")
    assert message.startswith("path=model.keras: same/kernel may be ")
    assert "one/same/kernel" in message
    assert message.endswith("give the whole name")


def test_a_weight_in_many_blocks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts, indices and drifts do not depend on the size of the blocks."""
    save_as("model.keras", built(2))
    np.savez("masks.npz", **{NAME: MASK})
    np.savez("held.npz", **{NAME: np.arange(12.0).reshape(SHAPE)})
    scipy.sparse.save_npz("sparse.npz", sparse("csr"))
    whole = as_json(capsys, "model.keras", "masks.npz", "--held", "held.npz")
    assert [e["index"] for e in whole["weights"][0]["first"]] == [[0, 1], [0, 3], [1, 0]]
    for size in (1, 8, 12, 16, 32):  # bytes: smaller and larger than a row, which has 16
        monkeypatch.setattr("masksweep.sweeps.audit.stored.BLOCK_BYTES", size)
        assert as_json(capsys, "model.keras", "masks.npz", "--held", "held.npz") == whole
    monkeypatch.setattr("masksweep.sweeps.audit.stored.BLOCK_BYTES", 8)
    np.savez("held.npz", arr_0=np.arange(12.0).reshape(SHAPE), **{NAME: np.full(SHAPE, 2)})
    assert audited(capsys, "model.keras", "sparse.npz", "--held", "held.npz")[0] == 0
