"""Every kind of layer that has weights, with every strategy: it holds, leaks, or is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from masksweep.strategies import Plan, Strategy
from masksweep.strategies.core.audit import moved_fraction, violations
from masksweep.strategies.core.training import Training
from masksweep.strategies.core.weights import describe, make_plan, values
from masksweep.strategies.held.zero import Zero
from masksweep.strategies.testing.documented import CASES
from masksweep.strategies.testing.trial import loss
from tests.support.selection import by_default

WORDS = 5
"""Number of words of the embedding."""


@dataclass(frozen=True)
class Kind:
    """A kind of layer."""

    make: Callable[[], Any]
    shape: tuple[int, ...]
    """Shape of its inputs, without the batch; empty for the integer input."""
    weights: tuple[str, ...] = ("kernel",)
    """Its weights to mask, without the name of the layer."""


def attention(name: str) -> tuple[str, ...]:
    return tuple(f"{part}/kernel" for part in ("query", "key", "value", name))


class SelfAttention(layers.Layer):  # type: ignore[misc]
    """Attention of a sequence to itself, with one input."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def build(self, shape: Any) -> None:
        self.inner.build(shape, shape)

    def call(self, x: Any) -> Any:
        return self.inner(x, x)


def low_rank() -> Any:
    layer = layers.Dense(4)
    layer.build((None, 12))
    layer.enable_lora(2)
    return layer


def cell(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}/{w}" for name in names for w in ("kernel", "recurrent_kernel"))


KINDS: dict[str, Kind] = {
    "dense": Kind(lambda: layers.Dense(4), (12,), ("kernel", "bias")),
    "einsum": Kind(lambda: layers.EinsumDense("abc,cd->abd", (4, 4)), (4, 3)),
    "embedding": Kind(lambda: layers.Embedding(WORDS, 4), (), ("embeddings",)),
    "conv1d": Kind(lambda: layers.Conv1D(4, 3), (6, 2)),
    "conv2d": Kind(lambda: layers.Conv2D(4, 2), (3, 4, 2)),
    "conv3d": Kind(lambda: layers.Conv3D(4, 2), (2, 3, 2, 2)),
    "conv1d transpose": Kind(lambda: layers.Conv1DTranspose(4, 3), (6, 2)),
    "conv2d transpose": Kind(lambda: layers.Conv2DTranspose(4, 2), (3, 4, 2)),
    "conv3d transpose": Kind(lambda: layers.Conv3DTranspose(4, 2), (2, 3, 2, 2)),
    "depthwise1d": Kind(lambda: layers.DepthwiseConv1D(3, depth_multiplier=2), (6, 2)),
    "depthwise2d": Kind(lambda: layers.DepthwiseConv2D(2, depth_multiplier=2), (3, 4, 2)),
    "separable1d": Kind(
        lambda: layers.SeparableConv1D(4, 3), (6, 2), ("depthwise_kernel", "pointwise_kernel")
    ),
    "separable2d": Kind(
        lambda: layers.SeparableConv2D(4, 2), (3, 4, 2), ("depthwise_kernel", "pointwise_kernel")
    ),
    "multi-head attention": Kind(
        lambda: SelfAttention(layers.MultiHeadAttention(2, 4, name="inner")),
        (6, 4),
        tuple(f"inner/{w}" for w in attention("attention_output")),
    ),
    "group query attention": Kind(
        lambda: SelfAttention(layers.GroupQueryAttention(4, 4, 2, name="inner")),
        (6, 4),
        tuple(f"inner/{w}" for w in attention("attention_output")),
    ),
    "simple rnn": Kind(lambda: layers.SimpleRNN(4), (2, 2), cell("simple_rnn_cell")),
    "lstm": Kind(lambda: layers.LSTM(4), (2, 2), cell("lstm_cell")),
    "gru": Kind(lambda: layers.GRU(4), (2, 2), cell("gru_cell")),
    "bidirectional": Kind(
        lambda: layers.Bidirectional(layers.GRU(4, name="part")),
        (2, 2),
        cell("forward_part/gru_cell", "backward_part/gru_cell"),
    ),
    "time distributed": Kind(
        lambda: layers.TimeDistributed(layers.Dense(4, name="part")), (6, 2), ("part/kernel",)
    ),
    "layer norm": Kind(layers.LayerNormalization, (12,), ("gamma",)),
    "batch norm": Kind(layers.BatchNormalization, (12,), ("gamma",)),
    "lora": Kind(low_rank, (12,), ("lora_kernel_a", "lora_kernel_b")),
}
ALL = {f"{kind}/{weight}".replace(" ", "_") for kind, k in KINDS.items() for weight in k.weights}
MATRICES = {
    "dense/kernel", "embedding/embeddings", "time_distributed/part/kernel",
    "lora/lora_kernel_a", "lora/lora_kernel_b",
    *(name for name in ALL if "_cell/" in name),
}  # fmt: skip
"""Weights with two axes."""
EINSUM_MATRICES = {"einsum/kernel"}
HELD_BY: dict[str, set[str]] = {
    "sparse_tensor": {
        "dense/kernel", "time_distributed/part/kernel", "einsum/kernel",
        "conv1d/kernel", "conv2d/kernel", "conv3d/kernel",
        *(name for name in ALL if "_attention/inner/" in name),
    },
    "row_lookup": MATRICES | EINSUM_MATRICES,
    "loss_mask": set(),
}  # fmt: skip
"""The weights that a case or a strategy accepts, if these are not all."""


def model() -> Any:
    """Returns a model with one layer of each kind, side by side."""
    keras.utils.set_random_seed(3)
    start, words = keras.Input((12,), name="x"), keras.Input((6,), dtype="int32", name="words")
    outputs = []
    for name, kind in KINDS.items():
        layer = kind.make()
        layer.name = name.replace(" ", "_")
        y = words
        if kind.shape:
            y = layers.Dense(int(np.prod(kind.shape)), "tanh", name=f"before_{layer.name}")(start)
            y = layers.Reshape(kind.shape, name=f"shape_{layer.name}")(y)
        y = layers.Flatten(name=f"flat_{layer.name}")(layer(y))
        outputs.append(layers.Dense(3, name=f"after_{layer.name}")(y))
    return keras.Model([start, words], layers.Add(name="sum")(outputs))


@cache
def _built() -> tuple[Any, list[Any]]:
    built = model()
    return built, [v.numpy() for v in built.variables]


def restarted() -> Any:
    """Returns the model with its initial values. It is built once, because that takes long."""
    built, initial = _built()
    for variable, value in zip(built.variables, initial, strict=True):
        variable.assign(value)
    return built


@cache
def batch() -> tuple[Any, Any]:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(8, 12)).astype("float32")
    words = generator.integers(0, WORDS, (8, 6)).astype("int32")
    y = generator.normal(size=(8, 3)).astype("float32")
    return [tf.constant(x), tf.constant(words)], tf.constant(y)


def accepted(strategy: Strategy, plan: Plan) -> set[str]:
    return {w.weight.name for w in plan.weights if strategy.refuses(Plan((w,))) is None}


def test_the_kinds_have_the_weights_that_are_named() -> None:
    named = {w.name: w for w in describe(restarted())}
    assert named.keys() >= ALL
    kernels = {name for name, w in named.items() if w.is_kernel}
    assert {name for name in kernels if name.split("_")[0] not in ("before", "after")} <= ALL


SLOW = [
    *("dense", "weight_mask product", "sparse_tensor lookup", "sparse_tensor compiled"),
    *("sparse_tensor block", "sparse_tensor compact"),
]
"""Cases that differ from another one in how they compute, not in which weights they hold."""


@pytest.mark.parametrize("name", by_default(CASES.keys() - {*SLOW}, CASES))
def test_each_weight_holds_or_leaks_or_is_refused(name: str) -> None:
    case, network = CASES[name], restarted()
    initial, masks = values(network), case.pattern.from_weights
    plan = make_plan(
        describe(network), initial, masks=masks, held=Zero().values, targets=sorted(ALL)
    )
    expected = HELD_BY.get(name, HELD_BY.get(case.strategy.name, ALL))
    assert accepted(case.strategy, plan) == expected
    if not expected:
        return
    plan = Plan(tuple(w for w in plan.weights if w.weight.name in expected))
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.1)
    # the optimizer's updates of the layers around would take most of the time
    training = Training(
        network, case.strategy, plan, optimizer=optimizer, loss=loss, trainable=sorted(expected)
    )
    names = [w.name for w in training.weights]

    def weights() -> dict[str, Any]:
        return dict(zip(names, (w.numpy() for w in training.effective()), strict=True))

    start = weights()
    for step in range(2):
        training.step(*batch())
        now = weights()
        for w in plan.weights if case.holds else ():
            assert violations(now, Plan((w,))) == (0, 0.0), f"{w.weight.name}, step {step}"
    for w in plan.weights:
        alone = Plan((w,))
        # a product with the mask leaves -0.0 where the weight was negative
        in_bits = case.leaks.get(("adamw", "zero")) == "bits"
        leaks = not case.holds and (not in_bits or (initial[w.weight.name] < 0)[~w.mask].any())
        if leaks and not w.mask.all():
            assert violations(now, alone)[0] > 0, f"{w.weight.name} is documented to leak"
        if w.mask.any():
            # a masked column of one factor of LoRA leaves a row of the other without a gradient
            assert moved_fraction(start, now, alone) >= 0.5, w.weight.name
