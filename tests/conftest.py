"""Fixtures of all tests. TensorFlow is set up as in a worker: one thread, deterministic."""

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
# Ray gives its workers the lowest priority but four: beside other tests they would hardly run
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112

from masksweep.sweeps.training.process import prepare_process

# A traced function makes a hundred thousand objects, most of which stay as long as the function.
gc.set_threshold(3000, 10, 20)


def pytest_configure(config: pytest.Config) -> None:
    """Loads TensorFlow in the processes that run tests, not in the one that hands them out."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        # the imports of all test modules make a million objects that stay; looking for garbage
        # among them takes a quarter of the time of the collection
        gc.disable()
        prepare_process(threads=1)


def pytest_collection_finish() -> None:
    gc.enable()


# Other processes may use the cores, so examples have no deadline. Where CI is set, each run has the
# same examples, so that a change is not refused by chance. Other runs have new ones.
settings.register_profile("tests", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("tests")


@pytest.fixture(scope="module", autouse=True)
def _frozen() -> None:
    """Hides the objects that exist before a module's tests from the garbage collector.

    TensorFlow, MLflow and Ray together make more than a million objects. Each Keras model that a
    test builds triggers a collection of them, which takes longer than the model itself.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _image_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps decoded images out of the user's own folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASKSWEEP_CACHE", str(tmp_path_factory.mktemp("images")))
        yield


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database, made once, because making it takes longer than most tests."""
    from masksweep.sweeps.tracking.client import new_client

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    new_client(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="session")
def _rays() -> Iterator[ExitStack]:
    """Contexts that stay open for all tests, because starting Ray takes seconds."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def ray_cluster(_rays: ExitStack) -> None:
    """A Ray on this machine, with one slot for each core, that most tests share."""
    import ray

    from masksweep.sweeps.launch.cluster import cluster

    if not ray.is_initialized():
        _rays.enter_context(cluster())


@pytest.fixture(scope="module")
def _several_nodes() -> Iterator[Any]:
    """A Ray cluster whose head, with the driver, has no CPUs."""
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CUDA_VISIBLE_DEVICES")  # hides GPUs from this process, not from the nodes
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
        try:
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


@pytest.fixture
def nodes(_several_nodes: Any) -> Iterator[Any]:
    """A Ray cluster to which a test adds nodes. They are removed at the end of the test."""
    import ray

    from tests.support.sweep_process import wait_for

    yield _several_nodes
    for node in list(_several_nodes.worker_nodes):
        _several_nodes.remove_node(node)
    wait_for(lambda: sum(node["Alive"] for node in ray.nodes()) == 1, 60)
