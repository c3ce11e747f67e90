"""Sets up TensorFlow in a process that trains: threads, GPU memory, deterministic operations."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def prepare_process(threads: int, num_gpus: float = 0) -> None:
    """Sets up TensorFlow: threads, GPU memory and deterministic operations.

    TensorFlow fixes these settings at its first use, so call this once, before any other use of it.

    Args:
        threads: TensorFlow's threads within one operation.
        num_gpus: GPUs of the process; a fraction for a share of one GPU, 0 to hide all GPUs.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if not num_gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    with _block_imports("matplotlib", "pandas", "sklearn"):
        import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    for number, gpu in enumerate(tf.config.list_physical_devices("GPU")):
        if limit := gpu_limit(num_gpus, number):
            device = tf.config.LogicalDeviceConfiguration(memory_limit=limit)
            tf.config.set_logical_device_configuration(gpu, [device])
        else:
            tf.config.experimental.set_memory_growth(gpu, True)
    tf.config.experimental.enable_op_determinism()


@contextmanager
def _block_imports(*packages: str) -> Iterator[None]:
    """Context in which packages that are not loaded yet cannot be imported.

    Keras imports these packages if it can, for wrappers and pictures that no trial uses. Without
    them TensorFlow and Keras load in two thirds of the time. After the context they can be imported
    as usual.
    """
    hidden = {name: None for name in packages if name not in sys.modules}
    sys.modules.update(hidden)  # type: ignore[arg-type]  # None: an import raises ImportError
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def gpu_limit(num_gpus: float, number: int) -> int | None:
    """GPU memory that a process with a share of a GPU may use, in MiB; None for whole GPUs.

    The limit is 90 % of the share: CUDA itself also needs memory, which TensorFlow's limit does not
    count. Ray assigns shares of GPUs to processes, but does not limit their memory. This function
    has not been run on a GPU yet.

    Args:
        num_gpus: GPUs of the process; a fraction for a share of one GPU.
        number: Index of the GPU among the visible ones, from 0.
    """
    if num_gpus >= 1:
        return None
    import pynvml

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    device = visible[number].strip() if number < len(visible) and visible[number] else str(number)
    pynvml.nvmlInit()
    try:
        handle = (
            pynvml.nvmlDeviceGetHandleByIndex(int(device))
            if device.isdigit()
            else pynvml.nvmlDeviceGetHandleByUUID(device)
        )
        total = pynvml.nvmlDeviceGetMemoryInfo(handle).total
    finally:
        pynvml.nvmlShutdown()
    return int(0.9 * num_gpus * total / 2**20)
