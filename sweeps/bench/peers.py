"""The same training in PyTorch, SparseLab or JAX, in a child process that trains on request.

Between requests the child process sleeps, so that it does not slow down the TensorFlow programs
with which it takes turns.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

from masksweep.sweeps.bench.cases import BATCH_SIZE, Size
from masksweep.sweeps.bench.peer_networks import BUILDERS
from masksweep.sweeps.common.child import Child, ChildDied

FORMATS = {
    "torch": ("dense", "masked", "csr"),
    "sparselab": ("csr",),  # on PyTorch, so its dense step is PyTorch's
    "jax": ("dense", "masked", "bcoo"),
}


@dataclass(frozen=True)
class PeerCase:
    """One way to train the network in another library."""

    size: Size
    library: str
    format: str
    sparsity: float
    threads: int

    @property
    def bytes(self) -> int:
        """Least memory of a step, in bytes; 0 where it is small.

        A BCOO product holds a value of the batch for each stored entry, so its memory grows with
        both.
        """
        largest = max(a * b for a, b in pairwise(self.size.layer_widths))
        return int(24 * BATCH_SIZE * largest * (1 - self.sparsity)) if self.format == "bcoo" else 0

    @property
    def label(self) -> dict[str, Any]:
        """The fields of a result row that identify the case."""
        return {
            "size": self.size.name,
            "strategy": self.library,
            "format": self.format,
            "pattern": "random" if self.sparsity else "-",
            "sparsity": self.sparsity,
        }


def cases(size: Size, sparsities: Sequence[float], threads: int) -> list[PeerCase]:
    """Returns the cases of the libraries that are installed; dense cases have sparsity 0."""
    return [
        PeerCase(size, library, form, sparsity, threads)
        for library, formats in FORMATS.items()
        if find_spec(library)
        for form in formats
        for sparsity in ((0.0,) if form == "dense" else sparsities)
    ]


def missing_libraries() -> list[str]:
    """Returns the names of the libraries that are not installed."""
    return [library for library in FORMATS if not find_spec(library)]


@contextmanager
def train_in_child(case: PeerCase) -> Iterator[Callable[[int], None]]:
    """Starts a child process that trains a case, and ends it with the context.

    Yields:
        A function that trains a number of steps in the child process.

    Raises:
        RuntimeError: The case cannot be trained, or the process has died. The yielded function
            raises it too.
    """
    network = {"widths": case.size.layer_widths, "format": case.format, "sparsity": case.sparsity}
    with Child(_set_up, case.threads) as child:

        def call(function: Callable[..., None], *args: Any) -> None:
            try:
                failure = child.submit(_call_safely, function, args).result()
            except ChildDied:
                failure = "the process has died; it may have run out of memory"
            if failure:
                raise RuntimeError(failure)

        call(_build, case.library, {**network, "threads": case.threads})
        call(_train, 1)
        yield partial(call, _train)


# -- in the child process --------------------------------------------------------------------

_steps: list[Callable[[int], None]] = []
"""The function that trains a number of steps; empty before `_build`."""


def _set_up(threads: int) -> None:
    """Makes the process use `threads` cores, and none while it waits for a call."""
    variables = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    os.environ |= variables | {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
    os.environ["JAX_PLATFORMS"] = "cpu"
    if hasattr(os, "sched_setaffinity"):  # JAX has no setting for threads
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def _call_safely(function: Callable[..., None], args: tuple[Any, ...]) -> str:
    """Calls a function; returns its error as a line, or an empty string.

    An exception of PyTorch or JAX would load that library in the parent process.
    """
    try:
        function(*args)
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        return f"{type(error).__name__}: {lines[-1]}"
    return ""


def _build(library: str, request: dict[str, Any]) -> None:
    _steps.append(BUILDERS[library](request))


def _train(steps: int) -> None:
    _steps[0](steps)
