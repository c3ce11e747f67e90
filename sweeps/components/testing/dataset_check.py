"""The checks that every data set must pass."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np

from masksweep.strategies.base import Invalid
from masksweep.strategies.testing.require import require
from masksweep.sweeps.components.datasets import DataSet
from masksweep.sweeps.components.datasets.base import Split
from masksweep.sweeps.components.datasets.pipeline import Pipeline

FIRST_SAMPLES = 1024
"""Number of samples of a `tf.data.Dataset` that are checked."""


def check_dataset(data: DataSet) -> None:
    """Checks that a data set has the arrays that training needs, equal in every process.

    Of a `tf.data.Dataset`, the first samples are checked.

    Args:
        data: The data set to check.

    Raises:
        AssertionError: A check failed.

    Example:
        >>> from masksweep.sweeps.components.datasets.sums import Sums
        >>> check_dataset(Sums(count=8))  # doctest: +SKIP
    """
    try:
        arrays = data.load()
    except Invalid as error:
        raise AssertionError(f"it does not load: {error}") from error
    require(arrays.task == data.task, f"it loads as {arrays.task}, and says {data.task}")
    train, test = (_arrays(part) for part in (arrays.train, arrays.test))
    for name, split in (("train", train), ("test", test)):
        _check_split(data, name, split, arrays.outputs)
        require(split[0].shape[1:] == arrays.shape, f"{name} has samples of another shape")
    if arrays.deterministic:
        again = _arrays(arrays.train)
        same = all(np.array_equal(a, b) for a, b in zip(train, again, strict=True))
        require(same, "it has other samples in a second pass")
    if arrays.validation is not None:
        validation = _arrays(arrays.validation)
        _check_split(data, "validation", validation, arrays.outputs)
        seen = {sample.tobytes() for sample in train[0]}
        shared = sum(sample.tobytes() in seen for sample in validation[0])
        few = shared <= 0.01 * len(validation[0])  # a data set may contain equal samples
        require(few, f"{shared} validation samples are training samples too")
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        elsewhere = pool.submit(data.load).result()  # a process with only the needed imports
    same = elsewhere.described()["sha256"] == data.load().described()["sha256"]
    require(same, "it is another data set in another process")


def _arrays(part: Split | Pipeline) -> Split:
    return part.first(FIRST_SAMPLES) if isinstance(part, Pipeline) else (part[0][:], part[1])


def _check_split(data: DataSet, part: str, split: Split, outputs: int) -> None:
    inputs, targets = split
    require(
        len(inputs) == len(targets) > 0, f"{part}: {len(inputs)} inputs, {len(targets)} targets"
    )
    require(inputs.dtype == np.float32, f"{part}: its inputs are {inputs.dtype}, not float32")
    require(bool(np.isfinite(inputs).all()), f"{part}: its inputs are not all finite")
    if data.task == "classification":
        require(targets.dtype == np.int32, f"{part}: its targets are {targets.dtype}, not int32")
        require(targets.ndim == 1, f"{part}: its targets have the shape {targets.shape}")
        inside = targets.min() >= 0 and targets.max() < outputs
        require(bool(inside), f"{part}: its targets are not all in 0 .. {outputs - 1}")
    else:
        require(targets.dtype == np.float32, f"{part}: its targets are {targets.dtype}")
        fits = targets.shape[1:] == (outputs,)
        require(fits, f"{part}: its targets have the shape {targets.shape}")
        require(bool(np.isfinite(targets).all()), f"{part}: its targets are not all finite")
        is_binary = data.task == "regression" or {*np.unique(targets)} <= {0, 1}
        require(is_binary, f"{part}: its targets are not all 0 or 1")
