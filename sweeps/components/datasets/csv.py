"""Rows of a `.csv` file."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from masksweep.strategies.errors import Invalid, require
from masksweep.strategies.registry import register
from masksweep.sweeps.components.datasets.base import DataSet, hold_out
from masksweep.sweeps.components.datasets.content import (
    TaskOrAuto,
    as_inputs,
    as_targets,
    require_first_class,
    require_known_classes,
)
from masksweep.sweeps.components.datasets.named import Split

MAX_BYTES = 2**28
"""Largest size of the file in bytes."""
MIN_ROWS = 5
"""Fewest rows; a fifth of them is the test part."""
UNNAMED = re.compile(r"Unnamed: \d+")
"""Name that pandas gives a column without a name, such as the index that it writes itself."""


@register
@dataclass(frozen=True)
class Csv(DataSet):
    """Rows of a `.csv` file in UTF-8 with a header: one column has the targets, the others inputs.

    All columns must have numbers. A fifth of the rows is the test part, the same for every seed.

    Raises:
        Invalid: There is no such file or column, or the file has anything but finite numbers.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "data.csv"
        >>> rows = "".join(f"{i},{i / 2},{i % 2}\\n" for i in range(20))
        >>> size = path.write_text("height,width,kind\\n" + rows)
        >>> data = Csv(path=str(path), target="kind").load()
        >>> data.task, data.outputs, data.shape, len(data.test[0])
        ('classification', 2, (2,), 4)
    """

    name: ClassVar[str] = "csv"
    path: str = ""
    """Path of the file."""
    target: str = ""
    """Name of the column with the targets."""
    task: TaskOrAuto = "auto"  # type: ignore[assignment,misc]  # a setting here, resolved below
    """`classification`, `binary` or `regression`; `auto` is a classification if the target has
    integers, and a regression if it has floating-point numbers. `binary` is for targets of 0 and 1
    and a model with one output, whose sigmoid is the probability of a 1; the loss is the binary
    crossentropy. It is the same as `multi_label`, which has one label here."""
    scale: Literal["none", "standard"] = "none"
    """`none` takes the inputs as they are. `standard` scales each input, and the targets of a
    regression, to mean 0 and deviation 1 in the training part."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.path), "path", self.path, "a .csv file")
        require(bool(self.target), "target", self.target, "the name of a column")
        if self.task == "binary":  # one trial, however its task is written
            object.__setattr__(self, "task", "multi_label")
        if self.is_elsewhere:
            require(self.task != "auto", "task", self.task, "given if the file is not here")
            return
        targets = self._columns()[1]
        if self.task == "auto":
            # the task itself, not `auto`, belongs to the identity and the record of a trial
            task = "regression" if targets.dtype.kind == "f" else "classification"
            object.__setattr__(self, "task", task)
        self.samples()  # checks all of the file

    @property
    def is_standardised(self) -> bool:
        return self.scale == "standard"

    def samples(self) -> tuple[Split, Split]:
        inputs, targets = self._columns()
        y = as_targets(self.path, self.target, targets, self.task)
        train, test = hold_out(inputs, y, self.name)
        if self.task == "classification":
            names = f"the test part of {self.target}", f"its training part of {self.target}"
            require_known_classes(self.path, names[0], test[1], names[1], train[1])
            require_first_class(self.path, self.target, y)
        return train, test

    def _columns(self) -> tuple[NDArray[np.float32], NDArray[Any]]:
        if not Path(self.path).is_file():
            raise Invalid("path", self.path, "no such file")
        return _columns(self.path, self.target, self.digest)


@lru_cache(maxsize=4)
def _columns(
    path: str, target: str, content: str | None
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Returns inputs and targets. With `content`, the digest, a changed file is read again."""
    frame = _read(path)
    names = [str(name) for name in frame.columns]
    for number, name in enumerate(names, start=1):
        if UNNAMED.fullmatch(name):
            allowed = "write the file with index=False, or name the column"
            raise Invalid("path", path, f"column {number} has no name ({name}); {allowed}")
    if target not in names:
        known = ", ".join(names[:10]) + ", ..." * (len(names) > 10)
        raise Invalid("target", target, f"must be a column of {path}, which has {known}")
    if len(frame) < MIN_ROWS:
        raise Invalid("path", path, f"has {len(frame)} rows; it must have {MIN_ROWS} or more")
    if len(names) < 2:
        raise Invalid("path", path, f"has no column but the target {target}")
    for name in names:
        _check_column(path, name, frame[name])
    inputs = frame.drop(columns=target).to_numpy(np.float64)
    return as_inputs(path, "inputs", inputs), frame[target].to_numpy()


def _read(path: str) -> Any:
    """Reads the file as a pandas DataFrame."""
    import pandas

    if Path(path).stat().st_size > MAX_BYTES:
        raise Invalid("path", path, f"more than {MAX_BYTES} bytes; data=npz takes more")
    try:
        with warnings.catch_warnings(), Path(path).open("rb") as file:
            # pandas drops the cells of a row that is too long, with a warning
            warnings.simplefilter("error", pandas.errors.ParserWarning)
            return pandas.read_csv(file, index_col=False, low_memory=False)
    except (ValueError, pandas.errors.ParserWarning) as error:  # decoding and parsing
        reason = " ".join(str(error).split())[:200]
        raise Invalid("path", path, f"not a readable .csv file: {reason}") from error


def _check_column(path: str, name: str, column: Any) -> None:
    """Checks that a column has finite numbers only. Rows are counted from 1, after the header."""
    import pandas

    if column.dtype.kind not in "buif":
        numbers = pandas.to_numeric(column, errors="coerce")
        texts = (numbers.isna() & column.notna()).to_numpy()
        if texts.any():
            row = int(np.argmax(texts))
            value = repr(str(column.iloc[row]))[:50]
            allowed = "columns must have numbers; encode it, or leave it out"
            raise Invalid("path", path, f"column {name} has {value} in row {row + 1}; {allowed}")
    wrong = ~np.isfinite(column.to_numpy(np.float64, na_value=np.nan))
    if wrong.any():
        row = int(np.argmax(wrong))
        value = "no value" if pandas.isna(column.iloc[row]) else column.iloc[row]
        raise Invalid("path", path, f"column {name} has {value} in row {row + 1}; fill or drop it")
    if column.dtype.kind not in "buif":
        raise Invalid("path", path, f"column {name} must have numbers that float64 can hold")
