"""The checks that every data set must pass."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np

from masksweep.strategies.errors import Invalid
from masksweep.strategies.plan import Array
from masksweep.strategies.testing.require import require
from masksweep.sweeps.components.datasets import DataSet, named
from masksweep.sweeps.components.datasets.arrays import Arrays, Head
from masksweep.sweeps.components.datasets.named import Split, Weighted
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
        _check_split(arrays, name, split)
        same = named.sample_shape(split[0]) == arrays.shape
        require(same, f"{name} has samples of another shape")
    if arrays.deterministic:
        pairs = zip(_all(train), _all(_arrays(arrays.train)), strict=True)
        same = all(np.array_equal(a, b) for a, b in pairs)
        require(same, "it has other samples in a second pass")
    if arrays.validation is not None:
        validation = _arrays(arrays.validation)
        _check_split(arrays, "validation", validation)
        seen = set(_samples(train))
        shared = sum(sample in seen for sample in _samples(validation))
        few = shared <= 0.01 * named.count(validation[0])  # a data set may contain equal samples
        require(few, f"{shared} validation samples are training samples too")
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        elsewhere = pool.submit(_digest, data).result()  # a process with only the needed imports
    same = elsewhere == _digest(data)
    require(same, "it is another data set in another process")


def _digest(data: DataSet) -> str:
    return str(data.load().described()["sha256"])


def _arrays(part: Split | Pipeline) -> Split:
    if isinstance(part, Pipeline):
        return part.first(FIRST_SAMPLES)
    return named.take(part[0], slice(None)), part[1]


def _all(split: Split) -> list[Array]:
    return [array for part in split for array in named.arrays_of(part)]


def _samples(split: Split) -> Iterator[bytes]:
    """Yields the inputs of each sample."""
    for parts in zip(*named.arrays_of(split[0]), strict=True):
        yield b"".join(part.tobytes() for part in parts)


def _check_split(arrays: Arrays, part: str, split: Split) -> None:
    inputs, targets = split
    counts = {len(array) for array in _all(split)}
    require(len(counts) == 1 and 0 not in counts, f"{part}: its arrays have {counts} samples")
    for array in named.arrays_of(inputs):
        require(array.dtype == np.float32, f"{part}: its inputs are {array.dtype}, not float32")
        require(bool(np.isfinite(array).all()), f"{part}: its inputs are not all finite")
    if isinstance(targets, Weighted):
        targets = targets.targets
    heads = arrays.heads or {"": Head(arrays.task, arrays.outputs)}
    for name, head in heads.items():
        _check_targets(head, f"{part} {name}".strip(), targets[name] if name else targets)


def _check_targets(head: Head, part: str, targets: Array) -> None:
    task, outputs = head
    if task == "classification":
        require(targets.dtype == np.int32, f"{part}: its targets are {targets.dtype}, not int32")
        require(targets.ndim == 1, f"{part}: its targets have the shape {targets.shape}")
        inside = targets.min() >= 0 and targets.max() < outputs
        require(bool(inside), f"{part}: its targets are not all in 0 .. {outputs - 1}")
    else:
        require(targets.dtype == np.float32, f"{part}: its targets are {targets.dtype}")
        fits = targets.shape[1:] == (outputs,)
        require(fits, f"{part}: its targets have the shape {targets.shape}")
        require(bool(np.isfinite(targets).all()), f"{part}: its targets are not all finite")
        is_binary = task == "regression" or {*np.unique(targets)} <= {0, 1}
        require(is_binary, f"{part}: its targets are not all 0 or 1")
