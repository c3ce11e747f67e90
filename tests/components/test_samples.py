"""The check of the samples of any data set, also of one that a plugin brings."""

from __future__ import annotations

import gc
import re
import weakref
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from masksweep.strategies import Invalid
from masksweep.sweeps.components.datasets import named
from masksweep.sweeps.components.datasets.arrays import Task
from masksweep.sweeps.components.datasets.base import DataSet
from masksweep.sweeps.components.datasets.named import Split
from masksweep.sweeps.components.datasets.samples import check_samples
from masksweep.sweeps.components.datasets.sums import Sums

X, LABELS, NUMBERS = np.zeros((4, 2), np.float32), np.array([0, 1, 2, 0]), np.ones((4, 1))


def with_value(array: Any, value: float) -> Any:
    """Returns a copy with this value at index 1 of the first axis, and 0 of the others."""
    changed = array.copy()
    changed[(1, 0)[: array.ndim]] = value
    return changed


@pytest.mark.parametrize(
    ("task", "changed", "said"),
    [
        ("classification", {"training": (with_value(X, np.nan), LABELS)},
         "has nan in its training inputs at [1, 0]; all must be finite numbers"),
        ("classification", {"test": (with_value(X, -np.inf), LABELS)}, "has -inf in its test inp"),
        ("regression", {"test": (X, with_value(NUMBERS, np.inf))}, "has inf in its test targets"),
        ("classification", {"test": (X, with_value(LABELS, 3))},
         "has the test label 3 at [1]; labels must be 0 to 2"),
        ("classification", {"training": (X, with_value(LABELS, -1))}, "has the training label -1"),
        ("classification", {"validation": (X, with_value(LABELS, 9))}, "has the validation label"),
        ("classification", {"test": (X, with_value(LABELS * 1.0, 0.5))},
         "has the test label 0.5 at [1]; labels must be whole numbers"),
        ("classification", {"training": (X, with_value(LABELS * 1.0, np.nan))},
         "has the training label nan at [1]; labels must be whole numbers"),
        ("classification", {"training": (X, with_value(LABELS * 1.0, 1e30))},
         "has the training label 1e+30 at [1]; labels must be whole numbers"),
        ("classification", {"training": (X, LABELS.astype(str))},
         "has training targets of the type <U21; labels must be whole numbers"),
        ("multi_label", {"test": (X, with_value(NUMBERS, 2))},
         "has the test label 2.0 at [1, 0]; labels must be 0 or 1"),
        ("classification", {"test": (X[:, :1], LABELS)},
         "has test inputs of the shape [1], and training inputs of [2]"),
        ("regression", {"test": (X, np.ones((4, 2)))},
         "has test targets of the shape [2], and training targets of [1]"),
        ("classification", {"test": (X, LABELS[:3])}, "has 4 inputs and 3 targets in its test p"),
        ("classification", {"test": (X[:0], LABELS[:0])},
         "has 0 inputs and 0 targets in its test part; all must have the same number of samples"),
        ("classification", {"test": (X, NUMBERS)},
         "has test targets of the shape [4, 1]; they must be [samples] for a classification"),
        ("regression", {"training": (X, LABELS)},
         "has training targets of the shape [4]; they must be [samples, outputs] for a regression"),
    ],
)  # fmt: skip
def test_what_no_model_can_be_trained_on_is_named(
    task: Task, changed: dict[str, Any], said: str
) -> None:
    split = X, LABELS if task == "classification" else NUMBERS
    parts = {"training": split, "validation": None, "test": split}
    check_samples(task, parts)
    with pytest.raises(Invalid) as caught:
        check_samples(task, parts | changed)
    assert caught.value.allowed.startswith(said)


def test_only_training_samples_of_one_output_have_weights() -> None:
    weights = np.ones(4)

    @dataclass(frozen=True)
    class Mine(DataSet):
        name: ClassVar[str] = "mine"
        of_test: tuple[Any, ...] = ()

        def samples(self) -> Any:
            return (X, LABELS, weights), (X, LABELS, *self.of_test)

    @dataclass(frozen=True)
    class Several(DataSet):
        name: ClassVar[str] = "several"
        tasks: ClassVar[Any] = {"a": "classification"}

        def samples(self) -> Any:
            return (X, {"a": LABELS}, weights), (X, {"a": LABELS})

    assert Mine(validation=0.5).load().train[1].weights.tolist() == [1, 1]  # type: ignore[index]
    with pytest.raises(Invalid, match="=mine: has sample weights in its test part; only training"):
        Mine(of_test=(1,)).load()
    with pytest.raises(Invalid, match="=several: has sample weights, which need a model with one"):
        Several().load()


def test_the_samples_of_any_data_set_are_checked() -> None:
    @dataclass(frozen=True)
    class Mine(DataSet):
        name: ClassVar[str] = "mine"

        def samples(self) -> tuple[Split, Split]:
            return (X, LABELS), (with_value(X, np.nan), LABELS)

    with pytest.raises(
        Invalid, match=r"^data=mine: has nan in its test inputs at \[1, 0\]; all must"
    ):
        Mine().load()


@pytest.mark.parametrize(
    ("labels", "dtype"),
    [("float64", "int32"), ("bool", "int32"), ("uint8", "int32"), ("int32", "int32"),
     ("int64", "int64")],
)  # fmt: skip
@pytest.mark.parametrize("several", [False, True])
def test_bytes_and_labels_get_the_types_that_are_trained_on(
    several: bool, labels: str, dtype: str
) -> None:
    """Bytes keep their values: only images that Masksweep reads itself are divided by 255."""
    x, y = np.array([[7], [255], [0], [9]], np.uint8), np.array([0, 1, 1, 0]).astype(labels)
    split: Split = ({"image": x}, {"kind": y}) if several else (x, y)

    @dataclass(frozen=True)
    class Mine(DataSet):
        name: ClassVar[str] = "mine"
        validation: float = 0.5

        def samples(self) -> tuple[Split, Split]:
            return split, split

    if several:
        Mine.tasks = {"kind": "classification"}
    data = Mine().load()
    for inputs, targets in (data.train, data.validation, data.test):  # type: ignore[misc]
        of_image, of_kind = named.arrays_of(inputs)[0], named.arrays_of(targets)[0]
        assert (of_image.dtype, of_kind.dtype) == (np.float32, dtype)
        assert {*of_image[:, 0].tolist()} <= {7, 255, 0, 9}
    assert data.outputs == 2
    np.testing.assert_array_equal(of_image, x)
    np.testing.assert_array_equal(of_kind, [0, 1, 1, 0])


def test_the_memory_of_data_sets_that_are_no_longer_used_is_released() -> None:
    first = weakref.ref(Sums(count=1).load())
    assert first() is Sums(count=1).load()
    for count in range(2, 12):
        Sums(count=count).load()
    gc.collect()
    assert first() is None


@pytest.mark.parametrize("name", ["size (cm)", "größe", "a/b", ""])
def test_the_name_of_an_output_must_do_as_a_part_of_a_metrics_name(name: str) -> None:
    with pytest.raises(
        Invalid, match=re.escape(f"tasks={name}: must be made of letters, digits, _")
    ):

        class Mine(DataSet):
            tasks: ClassVar[Any] = {"kind-1.a": "classification", name: "regression"}
