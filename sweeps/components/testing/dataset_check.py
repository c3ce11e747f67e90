"""The checks that every data set must pass."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np

from masksweep.strategies.testing.require import require
from masksweep.sweeps.components.datasets import DataSet
from masksweep.sweeps.components.datasets.base import Split


def check_dataset(data: DataSet) -> None:
    """Checks that a data set has the arrays that training needs, equal in every process.

    Args:
        data: The data set to check.

    Raises:
        AssertionError: A check failed.

    Example:
        >>> from masksweep.sweeps.components.datasets.sums import Sums
        >>> check_dataset(Sums(count=8))  # doctest: +SKIP
    """
    arrays = data.load()
    require(arrays.task == data.task, f"it loads as {arrays.task}, and says {data.task}")
    for part, split in (("train", arrays.train), ("test", arrays.test)):
        _check_split(data, part, split, arrays.outputs)
        require(split[0].shape[1:] == arrays.shape, f"{part} has samples of another shape")
    if arrays.validation is not None:
        _check_split(data, "validation", arrays.validation, arrays.outputs)
        seen = {sample.tobytes() for sample in arrays.train[0]}
        shared = sum(sample.tobytes() in seen for sample in arrays.validation[0])
        few = shared <= 0.01 * len(arrays.validation[0])  # a data set may contain equal samples
        require(few, f"{shared} validation samples are training samples too")
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        elsewhere = pool.submit(data.load).result()  # a process with only the needed imports
    same = elsewhere.described()["sha256"] == data.load().described()["sha256"]
    require(same, "it is another data set in another process")


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
