"""Data frames as files: CSV for people, Parquet for programs."""

from __future__ import annotations

import pandas as pd
from pandas.api.types import infer_dtype, is_object_dtype

from masksweep.sweeps.common import escape


def files(name: str, frame: pd.DataFrame) -> dict[str, bytes]:
    """The frame as CSV and as Parquet, by file name.

    A column of Parquet has one type. What is a number in one trial and a word in another is text
    there, in all of them; what is nothing stays nothing. In CSV no text is a spreadsheet's formula.
    """
    objects = [c for c in frame if is_object_dtype(frame[c])]
    texts = [c for c in objects if infer_dtype(frame[c]) not in ("boolean", "empty")]
    return {
        f"{name}.csv": frame.map(escape.cell).to_csv(index=False).encode(),
        f"{name}.parquet": frame.astype(dict.fromkeys(texts, "string")).to_parquet(index=False),
    }
