"""One TensorFlow for all tests, set up as in a worker: one thread, deterministic."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["HYDRA_FULL_ERROR"] = "1"

from masksweep.sweeps.training.setup import prepare_process

prepare_process(threads=1)

# other processes may hold the cores; what stands between a change and its landing looks at the
# same examples each time, every other run at new ones
settings.register_profile("house", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("house")


@pytest.fixture(scope="module", autouse=True)
def _frozen() -> None:
    """Keep the garbage collector to what the module's own tests make.

    TensorFlow, MLflow and Ray together make more than a million objects. Keras goes through all of
    them with each model that a test makes anew, which takes longer than the model.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with nothing in it; to make one takes longer than most tests."""
    from masksweep.sweeps.tracking.client import new_client

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    new_client(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="session")
def _rays() -> Iterator[ExitStack]:
    """What was started and is left at the end: starting Ray takes seconds."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def ray_cluster(_rays: ExitStack) -> None:
    """Ray on this machine with a slot for each core, shared by the tests that need no other."""
    import ray

    from masksweep.sweeps.launch.cluster import cluster

    if not ray.is_initialized():
        _rays.enter_context(cluster())


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Ray cluster of several nodes; the head, where the driver is, has no CPUs."""
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")  # hidden from this process, not from its nodes
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    ray.init(made.address, log_to_driver=False, logging_level="ERROR")
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()
