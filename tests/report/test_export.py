"""Tests that data frames are read from files as they were written."""

from __future__ import annotations

import io
from typing import Any

import pandas as pd
import pytest

from masksweep.sweeps.report import export


def back(frame: pd.DataFrame) -> Any:
    return pd.read_parquet(io.BytesIO(export.files("trials", frame)["trials.parquet"]))


def test_both_files_hold_the_frame() -> None:
    frame = pd.DataFrame({"name": ["a", "b"], "seed": [0, 1], "score": [0.5, float("nan")]})
    written = export.files("trials", frame)
    assert set(written) == {"trials.csv", "trials.parquet"}
    pd.testing.assert_frame_equal(pd.read_csv(io.BytesIO(written["trials.csv"])), frame)
    pd.testing.assert_frame_equal(back(frame), frame)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ([1, "auto", None], ["1", "auto", None]),
        ([True, "auto", False], ["True", "auto", "False"]),
        ([0.9, "[1, 2]", None], ["0.9", "[1, 2]", None]),
        ([True, 1.5, None], ["True", "1.5", None]),
        ([2**70, 1, None], [str(2**70), "1", None]),
        ([True, None, False], [True, None, False]),
        ([None, None, None], [None, None, None]),
        (["a", None, "b"], ["a", None, "b"]),
        ([1, 2.5, None], [1.0, 2.5, None]),
    ],
)
def test_a_column_of_several_types_is_text(given: list[Any], read: list[Any]) -> None:
    column = back(pd.DataFrame([{"setting": value} for value in given]))["setting"]
    assert [None if pd.isna(value) else value for value in column] == read


def test_a_column_of_nothing_is_no_text() -> None:
    """The file can then be joined with one of a sweep that has numbers in this column."""
    assert back(pd.DataFrame({"setting": [None, None]}))["setting"].dtype == object


def test_nothing_can_be_written() -> None:
    empty = back(pd.DataFrame([], columns=["run_id", "metric"]))
    assert list(empty.columns) == ["run_id", "metric"]
    assert empty.empty
