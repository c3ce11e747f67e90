"""Writes data frames as files: CSV for people, Parquet for programs."""

from __future__ import annotations

import pandas as pd
from pandas.api.types import infer_dtype, is_object_dtype

from masksweep.sweeps.common import escape


def files(name: str, frame: pd.DataFrame) -> dict[str, bytes]:
    """Writes a data frame as CSV and as Parquet.

    A Parquet column has a single type, so a column with numbers in some rows and text in others is
    written as text in all rows; missing values stay missing. In the CSV file, text is escaped so
    that a spreadsheet does not read it as a formula.

    Args:
        name: File name without extension.
        frame: The data frame. Its index is not written.

    Returns:
        Content of each file by file name.
    """
    object_columns = [c for c in frame if is_object_dtype(frame[c])]
    text_columns = [c for c in object_columns if infer_dtype(frame[c]) not in ("boolean", "empty")]
    return {
        f"{name}.csv": frame.map(escape.cell).to_csv(index=False).encode(),
        f"{name}.parquet": frame.astype(dict.fromkeys(text_columns, "string")).to_parquet(
            index=False
        ),
    }
