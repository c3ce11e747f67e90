"""The peak memory of models whose kernels are sparse, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from statistics import median

import pytest

pytestmark = pytest.mark.slow
MIB = 2**20

MEASURED = """
import json, sys, time
from pathlib import Path
import keras, numpy as np, tensorflow as tf

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

base = status("VmHWM")  # TensorFlow and Keras are imported
from masksweep import strategies
from masksweep.strategies.sparse_tensor import SparseTensor
keras.utils.set_random_seed(0)
generator = np.random.default_rng(0)
"""

MLP = """
way, width, sparsity = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
def build():
    hidden = [keras.layers.Dense(width, "relu", name=f"hidden_{i}") for i in range(2)]
    return keras.Sequential([keras.Input((width,)), *hidden, keras.layers.Dense(10, name="output")])

if way == "deferred":
    with strategies.deferred_weights():
        model = build()
else:
    model = build()
if way != "dense":
    pattern, strategy = strategies.Random(sparsity), SparseTensor("compiled")
    model = strategies.apply(model, pattern, strategy)
x = generator.standard_normal((256, width), np.float32)
y = generator.integers(0, 10, 256)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(), loss, jit_compile=False)
model.fit(x, y, batch_size=128, epochs=2, verbose=0)
if way != "dense":
    assert strategies.audit(model).ok
print(json.dumps(status("VmHWM") - base))
"""

GENES = """
inputs, units, count = 131_503, 17_825, 133_751
places = np.unique(generator.integers(0, inputs * units, 2 * count))
places = np.sort(generator.permutation(places)[:count])
edges = np.stack(np.divmod(places, units), axis=1)
genes = strategies.SparseDense(units, edges, "relu", name="genes")
model = keras.Sequential([keras.Input((inputs,)), genes, keras.layers.Dense(1, name="output")])
x = generator.standard_normal((64, inputs), np.float32)
y = generator.standard_normal(64).astype("float32")
model.compile("adam", "mse")
model.fit(x, y, batch_size=32, verbose=0)
start = time.perf_counter()
model.fit(x, y, batch_size=32, epochs=5, verbose=0)
step_ms = (time.perf_counter() - start) / 10 * 1000
audit = strategies.audit(model)
assert audit.ok, audit
assert audit.weights[0].size == inputs * units
assert strategies.summary(model).weights[0].masked == inputs * units - count
model.save(sys.argv[1] + "/genes.keras")
loaded = keras.models.load_model(sys.argv[1] + "/genes.keras")
assert np.array_equal(loaded(x[:2]), model(x[:2]))
assert strategies.audit(loaded).ok
print(json.dumps([status("VmHWM") - base, step_ms]))
"""


def measured(code: str, *arguments: object, **settings: str) -> object:
    """Runs code in a process of its own, and returns what it prints last.

    Args:
        code: Python code that follows `MEASURED`.
        *arguments: Its arguments.
        **settings: Variables of its environment.
    """
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **settings}
    command = [sys.executable, "-W", "ignore", "-c", MEASURED + code, *map(str, arguments)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    return json.loads(result.stdout.splitlines()[-1])


def peak(way: str, width: int, sparsity: float, **settings: str) -> int:
    """Returns the peak memory of an MLP in bytes, beside TensorFlow and Keras."""
    value = measured(MLP, way, width, sparsity, **settings)
    assert isinstance(value, int)
    return value


def test_a_sparse_model_takes_less_than_half_of_the_dense_one() -> None:
    """The network is the size L of the bench; what Numba takes itself, 100 MiB, is counted too.

    How many arrays are in memory at once depends on the order in which threads run, and what glibc
    keeps of freed ones, too: one process differs by a tenth from another. So these are medians.
    """
    peaks: dict[str, list[int]] = {way: [] for way in ("dense", "deferred", "built")}
    for _ in range(3):
        for way, of_way in peaks.items():
            of_way.append(peak(way, 4096, 0.9))
    dense, deferred, built = (median(of_way) for of_way in peaks.values())
    assert dense > 500 * MIB
    assert deferred < 0.5 * dense, peaks
    # here Keras has drawn the dense kernels before they are masked
    assert built < 0.6 * dense, peaks


def test_a_sparse_model_needs_less_than_half_of_what_a_dense_one_needs() -> None:
    """As above, without the freed arrays of up to 32 MiB that glibc keeps: here some 100 MiB."""
    returned = {"MALLOC_MMAP_THRESHOLD_": str(MIB)}
    dense = peak("dense", 4096, 0.9, **returned)
    assert dense > 500 * MIB
    assert peak("deferred", 4096, 0.9, **returned) < 0.5 * dense
    assert peak("built", 4096, 0.9, **returned) < 0.6 * dense


def test_a_large_sparse_model_takes_a_small_part_of_the_dense_one() -> None:
    width = 8192
    # a dense model has its kernels, two moments and gradients of the same size
    dense = 4 * 2 * width**2 * 4
    assert peak("deferred", width, 0.99) < 0.3 * dense


def test_a_gene_network_trains_in_less_than_1_gib(tmp_path: object) -> None:
    """The dense kernel would have 9.4 GB, and its mask 2.3 GB."""
    memory, step_ms = measured(GENES, tmp_path)  # type: ignore[misc]
    assert memory < 512 * MIB, f"{memory / MIB:.0f} MiB"
    assert step_ms < 2000
