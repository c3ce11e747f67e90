"""The drawn initial values equal those of Keras' own layers, bit for bit."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from masksweep.strategies.core.audit import bits
from masksweep.sweeps.components import initializers
from masksweep.sweeps.components.initializers import Network
from masksweep.sweeps.components.models import Model
from masksweep.sweeps.components.models.cnn1d import CNN1D
from masksweep.sweeps.components.models.explicit import Explicit
from masksweep.sweeps.components.models.gru import GRU
from masksweep.sweeps.components.models.logistic import Logistic
from masksweep.sweeps.components.models.lstm import LSTM
from masksweep.sweeps.components.models.mlp import MLP
from masksweep.sweeps.components.models.mobilenet_tiny import MobileNetTiny
from masksweep.sweeps.components.models.resnet import ResNet
from masksweep.sweeps.components.models.set_mlp import SETMLP
from masksweep.sweeps.components.models.transformer import Transformer
from masksweep.sweeps.components.models.vit_tiny import ViTTiny
from masksweep.sweeps.components.models.wide_resnet import WideResNet

DRAWN: dict[str, tuple[Model, tuple[int, ...]]] = {
    "mlp": (MLP(hidden=(8, 8)), (6,)),
    "norm, dropout, residual": (
        MLP(hidden=(8, 8), batch_norm=True, dropout=0.3, residual=True),
        (6,),
    ),
    "cnn1d": (CNN1D(channels=4), (40,)),
    "gru": (GRU(units=3), (20,)),
    "logistic": (Logistic(), (6,)),
    "mobilenet_tiny": (MobileNetTiny(1 / 16), (8, 8, 3)),
    "resnet": (ResNet(8, 2), (8, 8, 3)),
    "set_mlp": (SETMLP((8, 8)), (6,)),
    "vit_tiny": (ViTTiny(depth=2, heads=2, dim=8), (8, 8, 1)),
    "wide_resnet": (WideResNet(10, 2), (8, 8, 3)),
}
BUILT: dict[str, tuple[Model, tuple[int, ...]]] = {
    "torch": (MLP(hidden=(8,), init="torch"), (6,)),
    "lstm": (LSTM((3, 2)), (6, 2)),  # a function draws the bias of a cell
    # an attention layer tells its initializers how many inputs and outputs they draw for
    "transformer": (Transformer(dim=8), (6,)),
    "tokens": (Transformer(vocabulary=9, dim=8), (6,)),
    "explicit": (Explicit(kernels=(((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)),)), (2,)),
}


@pytest.mark.parametrize("kind", DRAWN | BUILT)
def test_initial_values_are_those_of_a_built_model(kind: str) -> None:
    net = Network(*(DRAWN | BUILT)[kind], 3)
    for seed in (0, 7, 2**31 - 1):
        weights, state = net.initial(seed)
        model = net.build(seed)
        assert list(weights) == [w.name for w in net.weights]
        for arrays, variables in (
            (list(weights.values()), model.trainable_variables),
            (state, model.non_trainable_variables),
        ):
            for array, variable in zip(arrays, variables, strict=True):
                expected = variable.numpy()
                assert array.dtype == expected.dtype
                assert np.array_equal(bits(array), bits(expected)), f"{variable.path}, seed {seed}"


@pytest.mark.parametrize("kind", DRAWN)
def test_they_are_drawn_without_building(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Network(*DRAWN[kind], 3)
    monkeypatch.setattr(net, "build", None)
    first, other = net.initial(1)[0], net.initial(2)[0]
    kernels = [n for n in first if n.endswith("kernel")]
    assert all(not np.array_equal(first[n], other[n]) for n in kernels)


def test_a_network_that_draws_otherwise_is_built_for_each_seed() -> None:
    class Own(MLP):
        def network(self, inputs: tuple[int, ...], outputs: int) -> keras.Model:
            model = super().network(inputs, outputs)
            kernel = model.layers[-1].kernel
            kernel.assign(keras.random.normal(kernel.shape))
            return model

    net = Network(Own(hidden=(4,)), (6,), 3)
    drawn = net.initial(5)[0]["output/kernel"]
    assert np.array_equal(drawn, net.build(5).layers[-1].kernel.numpy())
    assert not np.array_equal(drawn, net.initial(6)[0]["output/kernel"])


def test_a_process_has_one_network_of_a_kind() -> None:
    kinds = [MLP(hidden=(4,)), MLP(hidden=(4,)), MLP(hidden=(5,))]
    first, same, other = (initializers.network(k, (6,), 3) for k in kinds)
    assert first is same
    assert first is not other
