"""Compares Keras and the dense strategy for each layer, optimizer, option, form and policy.

Each test changes one of these alone. Both trainings must end with the same bits. The slow tests of
`test_pairs` compare all pairs.
"""

from __future__ import annotations

import pytest

from tests.support.selection import by_default

from .compare import Case, Mode, assert_same, by_keras
from .layer_kinds import KINDS, LEFT_OUT, PLAIN, of_one_shape, public_kinds
from .models import FORMS
from .optimizers import OPTIMIZERS, OPTIONS, WRAPPERS
from .policies import POLICIES

pytestmark = pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")


NAMES = list(KINDS)
STATEFUL = of_one_shape([n for n in NAMES[:PLAIN] if n not in ("ConvLSTM1D", "ConvLSTM3D")])
"""Kinds with weights, a state or randomness. ConvLSTM2D stands for the others of its family."""
OTHERS = of_one_shape(["ConvLSTM1D", "ConvLSTM3D", *NAMES[PLAIN:]])


@pytest.mark.parametrize(
    "kinds", by_default(STATEFUL, [*STATEFUL, *OTHERS]), ids=lambda kinds: kinds[:30]
)
def test_kinds_of_layers(kinds: str) -> None:
    """All kinds that take the same inputs are side by side in one model."""
    assert_same(Case(kind=kinds, mode="eager"))


def test_every_kind_of_layer_is_compared_or_left_out_for_a_reason() -> None:
    compared = {name.split(",")[0] for name in KINDS}
    left_out = [name for names in LEFT_OUT.values() for name in names]
    assert not compared & set(left_out)
    assert public_kinds() == compared | set(left_out)


SOME_OPTIMIZERS = [
    *("Adafactor", "Adam", "AdamW", "Ftrl", "Lamb", "Lion", "Muon", "Muon, excluding"),
    *("SGD", "SGD, momentum"),
]


@pytest.mark.parametrize("optimizer", by_default(SOME_OPTIMIZERS, OPTIMIZERS))
def test_an_optimizer(optimizer: str) -> None:
    assert_same(Case(optimizer=optimizer, mode="eager"))


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option(option: str) -> None:
    assert_same(Case(optimizer="SGD, momentum", option=option))


STATES = "BatchNormalization|SpectralNormalization"
IN_A_GRAPH = [("subclassed, training", STATES, "graph"), ("nested", STATES, "graph")]
EAGERLY = [(form, "Embedding", "eager") for form in FORMS]


@pytest.mark.parametrize(
    ("form", "kind", "mode"),
    by_default([*IN_A_GRAPH, *EAGERLY], [*((f, STATES, "graph") for f in FORMS), *EAGERLY]),
)
def test_a_form_of_model(form: str, kind: str, mode: Mode) -> None:
    case = Case(kind=kind, form=form, mode=mode)
    values = by_keras(case)
    assert_same(case, values)
    assert_same(case, values, masked=True)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy(policy: str) -> None:
    assert_same(Case(kind="BatchNormalization", optimizer="SGD", policy=policy))


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapper(wrapper: str) -> None:
    assert_same(Case(wrapper=wrapper, option="excluding variables", optimizer="AdamW"))
