"""One TensorFlow for all tests, set up as in a worker: one thread, deterministic."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["HYDRA_FULL_ERROR"] = "1"

from sweeps.prepare import prepare_process

prepare_process(threads=1)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Ray on this machine with two slots, shared by the tests that need no cluster of their own."""
    from sweeps import engine

    with engine.cluster():
        yield
