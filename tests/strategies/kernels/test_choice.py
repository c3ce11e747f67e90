"""The format that `format: auto` takes."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from masksweep.strategies.core.audit import digest
from masksweep.strategies.errors import Invalid
from masksweep.strategies.kernels import choice
from masksweep.strategies.patterns import Pattern
from masksweep.strategies.patterns.block import Block
from masksweep.strategies.patterns.columns import Columns
from masksweep.strategies.patterns.random import Random
from masksweep.strategies.patterns.rows import Rows
from masksweep.strategies.plan import Array, Mask, MaskedWeight, Plan, Weight
from masksweep.strategies.sparse_tensor import SparseTensor
from masksweep.strategies.testing.case import Case
from masksweep.strategies.testing.trial import Trial

PATTERNS: dict[str, Pattern] = {
    "compiled": Random(0.75),
    "block": Block(0.75, (16, 16)),
    "compact": Columns(0.5),
}
"""A pattern for which each format is chosen, for kernels that are not small."""
WIDTH = 288
"""Number of inputs and outputs of such a kernel."""


def masked(mask: Mask, name: str = "hidden/kernel", layer: str = "Dense") -> MaskedWeight:
    weight = Weight(name, mask.shape, "float32", layer)
    return MaskedWeight(weight, mask, np.zeros(mask.shape, "float32"))


def mask_of(pattern: Pattern, *shape: int) -> Mask:
    return pattern.masks({"hidden/kernel": shape}, seed=0)["hidden/kernel"]


@pytest.mark.parametrize(
    ("pattern", "on_cpu", "on_gpu"),
    [
        *((pattern, format, "coo") for format, pattern in PATTERNS.items() if format != "compact"),
        (Columns(0.5), "compact", "compact"),
        (Rows(0.5), "compact", "compact"),
        (Block(0.75, (4, 4)), "compiled", "coo"),
        (Block(0.75, (32, 1)), "compiled", "coo"),
        (Random(0.5), "dense", "dense"),  # many entries, and the kernel is not large
        (Random(0.99), "coo", "coo"),  # few entries
        (Random(0.0), "compact", "compact"),  # all entries
    ],
)
def test_the_choice_depends_on_structure_size_and_device(
    pattern: Pattern, on_cpu: str, on_gpu: str
) -> None:
    weight = masked(mask_of(pattern, WIDTH, WIDTH))
    assert choice.choose(weight, on_gpu=False).format == on_cpu
    assert choice.choose(weight, on_gpu=True).format == on_gpu
    assert choice.choose(weight).format == on_cpu  # there is no GPU here
    for gpu, format in ((False, on_cpu), (True, on_gpu)):
        assert SparseTensor().for_weight(weight, gpu) == SparseTensor(format)
        assert SparseTensor("lookup").for_weight(weight, gpu) == SparseTensor("lookup")


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize(("pattern", "format"), [(Random(0.9), "dense"), (Rows(0.5), "compact")])
def test_a_small_kernel_is_written_out(pattern: Pattern, format: str, on_gpu: bool) -> None:
    small = masked(mask_of(pattern, 256, 256))
    assert choice.choose(small, on_gpu) == choice.Choice(format)
    attention = masked(
        mask_of(Random(0.9), 64, 64).reshape(64, 8, 8), "query/kernel", "EinsumDense"
    )
    assert choice.choose(attention, on_gpu) == choice.Choice("dense")


def test_the_reason_for_a_slower_format_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = mask_of(Random(0.75), WIDTH, WIDTH)
    plan = Plan((masked(mask), masked(mask_of(Rows(0.5), WIDTH, WIDTH), "last/kernel")))
    text = "compiled for hidden/kernel; compact for last/kernel"
    assert SparseTensor().choices(plan, False) == {"format": text}
    plan = Plan((masked(mask),))
    gpu = {"format": "coo (compiled code runs on a CPU only)"}
    assert SparseTensor().choices(plan, True) == gpu
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    missing = {"format": "coo (numba is not installed)"}
    assert SparseTensor().choices(plan, False) == missing
    assert SparseTensor().for_weight(plan.weights[0]) == SparseTensor("coo")
    assert not SparseTensor("coo").choices(plan)
    assert not SparseTensor().choices(Plan())


@pytest.mark.parametrize("format", [*PATTERNS, "dense"])
def test_auto_trains_as_the_format_that_it_chooses(format: str) -> None:
    width = 96 if format == "dense" else WIDTH

    def end(strategy: SparseTensor) -> dict[str, Array]:
        keras.utils.set_random_seed(7)
        hidden = layers.Dense(width, "tanh", name="masked")
        model = keras.Sequential([keras.Input((width,)), hidden, layers.Dense(4, name="output")])
        plan = Case(strategy, PATTERNS.get(format, Random(0.5))).plan(model)
        return Trial(strategy, model, plan, keras.optimizers.Adam(0.01)).end(3)

    digests = [digest(end(SparseTensor(f))) for f in ("auto", format, "coo")]
    assert digests[0] == digests[1] != digests[2]


def test_a_training_keeps_its_format_if_the_masks_change() -> None:
    keras.utils.set_random_seed(7)
    hidden = layers.Dense(WIDTH, "tanh", name="masked")
    model = keras.Sequential([keras.Input((WIDTH,)), hidden, layers.Dense(4, name="output")])
    case = Case(SparseTensor(), PATTERNS["block"])
    # before the training, which frees the memory of the kernel
    other, scattered = case.plan(model, seed=1), case.plan(model, pattern=Random(0.5))
    trial = Trial(case.strategy, model, case.plan(model), keras.optimizers.Adam(0.01))
    trial.training.switch(other)
    before = digest(trial.weights())
    with pytest.raises(Invalid, match=r"^format=block: must be another one"):
        trial.training.switch(scattered)
    assert digest(trial.weights()) == before
