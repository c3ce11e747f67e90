"""Every model, data set and optimizer passes the public checks, and broken ones fail them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from masksweep.sweeps.components.datasets import DATASETS, DataSet
from masksweep.sweeps.components.datasets.csv import Csv
from masksweep.sweeps.components.datasets.explicit import Explicit
from masksweep.sweeps.components.datasets.image_folder import ImageFolder
from masksweep.sweeps.components.datasets.keras_images import KerasImages
from masksweep.sweeps.components.datasets.named import Split
from masksweep.sweeps.components.datasets.npz import Npz
from masksweep.sweeps.components.models import MODELS, Model
from masksweep.sweeps.components.models.explicit import Explicit as Network
from masksweep.sweeps.components.models.lenet5 import LeNet5
from masksweep.sweeps.components.models.mlp import MLP
from masksweep.sweeps.components.models.mobilenet_tiny import MobileNetTiny
from masksweep.sweeps.components.models.resnet import ResNet
from masksweep.sweeps.components.models.set_mlp import SETMLP
from masksweep.sweeps.components.models.transformer import Transformer
from masksweep.sweeps.components.models.vit_tiny import ViTTiny
from masksweep.sweeps.components.models.wide_resnet import WideResNet
from masksweep.sweeps.components.optimizers import OPTIMIZERS
from masksweep.sweeps.components.testing import (
    check_dataset,
    check_model,
    check_optimizer,
    dataset_check,
)
from tests.support.data_files import write_csv, write_idx, write_images, write_npz

KERNELS = (((0.1, -0.2), (0.4, 0.5), (0.7, 0.8)), ((0.7,), (-0.8,)))
# entries for components that need settings or are large; the others are checked with their defaults
MODELS_OF: dict[str, list[Model]] = {
    "explicit": [Network(KERNELS, activation="tanh")],
    "lenet5": [LeNet5(), LeNet5("caffe")],
    "mlp": [MLP(), MLP((6, 6), residual=True, batch_norm=True, dropout=0.1, activation="tanh")],
    "mobilenet_tiny": [MobileNetTiny(1 / 8)],
    "resnet": [ResNet(8, 4)],
    "set_mlp": [SETMLP((12, 8))],
    "transformer": [Transformer(dim=16), Transformer(vocabulary=3, dim=16)],
    "vit_tiny": [ViTTiny(8, depth=2, heads=2, dim=16)],
    "wide_resnet": [WideResNet(10, 1)],
}
DATA_OF: dict[str, Callable[[Path], DataSet]] = {
    "csv": lambda folder: Csv(path=write_csv(folder / "a.csv"), target="kind", scale="standard"),
    "explicit": lambda _: Explicit(x=((1.0, 2.0), (3.0, 4.0)), y=((1.0,), (2.0,))),
    "image_folder": lambda folder: ImageFolder(path=write_images(folder)),
    "keras": lambda folder: KerasImages(path=write_idx(folder)),
    "npz": lambda folder: Npz(
        path=write_npz(folder / "a.npz", sample_weight_train=np.arange(40.0))
    ),
}
IMAGES = ("lenet5", "mobilenet_tiny", "resnet", "vit_tiny", "wide_resnet")
"""Models that take images only."""
MODELS_TRIED = [
    model
    for name in MODELS
    if name != "keras_file"  # it needs a file; test_keras_file.py has its checks
    for model in MODELS_OF.get(name) or [MODELS[name]()]
]


@pytest.mark.parametrize("model", MODELS_TRIED, ids=lambda m: m.name)
def test_model(model: Model) -> None:
    if isinstance(model, Network):
        check_model(model, (3,), 1, fixed=True)
    elif model.name in IMAGES:
        check_model(model, (16, 24, 3))
    else:
        check_model(model, (16,))


@pytest.fixture(scope="module")
def _one_process() -> Iterator[None]:
    """Lets all data sets load in one other process, because its start takes a second."""
    with (
        ProcessPoolExecutor(1, get_context("spawn")) as pool,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(dataset_check, "ProcessPoolExecutor", lambda *_: nullcontext(pool))
        yield


@pytest.mark.usefixtures("_one_process")
@pytest.mark.parametrize("name", DATASETS)
def test_dataset(name: str, tmp_path: Path) -> None:
    check_dataset(DATA_OF[name](tmp_path) if name in DATA_OF else DATASETS[name]())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer(name: str) -> None:
    check_optimizer(OPTIMIZERS[name]())


# -- broken components -----------------------------------------------------------------------


@dataclass(frozen=True)
class Narrow(MLP):
    """Has one output, regardless of the requested number."""

    name: ClassVar[str] = "narrow"

    def network(self, inputs: tuple[int, ...], outputs: int) -> Any:
        return super().network(inputs, 1)


@dataclass(frozen=True)
class Unseeded(MLP):
    """Has the same initial values for every seed."""

    name: ClassVar[str] = "unseeded"

    def build(self, inputs: tuple[int, ...], outputs: int) -> Any:
        import keras

        keras.utils.set_random_seed(0)
        return super().build(inputs, outputs)


@dataclass(frozen=True)
class Silent(MLP):
    """Has batch normalization, but `has_statistics` is False."""

    name: ClassVar[str] = "silent"
    batch_norm: bool = True

    @property
    def has_statistics(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Narrow(), "outputs"),
        (Unseeded(), "same initial values"),
        (Silent(), "has_statistics"),
        (MLP((8, 8), activation="linear", output_activation="sigmoid"), None),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_broken_model_fails(model: Model, said: str | None) -> None:
    if said is None:
        check_model(model)
        return
    with pytest.raises(AssertionError, match=said):
        check_model(model)


@dataclass(frozen=True)
class Wide(DataSet):
    """Has inputs of a settable dtype, float64 by default, one of which may be infinite."""

    name: ClassVar[str] = "wide"
    dtype: str = "float64"
    infinite: bool = False

    def samples(self) -> tuple[Split, Split]:
        inputs = np.arange(40, dtype=self.dtype).reshape(20, 2)
        if self.infinite:
            inputs[3, 1] = np.inf
        targets = np.arange(20, dtype=np.int32) % 2
        return (inputs, targets), (inputs, targets)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (Wide(), "float64, not float32"),
        (Wide(dtype="float32", infinite=True), "does not load: .*has inf in its training inputs"),
    ],
    ids=["float64", "infinite"],
)
def test_a_broken_data_set_fails(data: DataSet, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_dataset(data)


def test_an_optimizer_that_loses_a_setting_fails() -> None:
    @dataclass(frozen=True)
    class Forgetful(OPTIMIZERS["sgd"]):  # type: ignore[misc]
        name: ClassVar[str] = "forgetful"

        def build(self, pure: bool = False) -> Any:
            import keras

            return keras.optimizers.SGD(0.5)

    with pytest.raises(AssertionError, match="learning_rate is"):
        check_optimizer(Forgetful())
