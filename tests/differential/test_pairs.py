"""Every pair of a layer, optimizer, option, form, policy and mode: dense is what Keras does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations, product
from typing import Any

import pytest
from allpairspy import AllPairs
from hypothesis import given, settings
from hypothesis import strategies as st

from masksweep.strategies import Invalid

from .compare import Case, assert_same, by_keras, by_training
from .layer_kinds import KINDS, PLAIN, of_one_input, of_one_shape
from .models import FORMS
from .optimizers import OPTIMIZERS, OPTIONS, WRAPPERS
from .policies import TRAINING

pytestmark = [
    pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask"),
    pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning"),
]

FACTORS: Mapping[str, Sequence[Any]] = {
    # what has no weights and no state cannot meet an optimizer
    "kind": of_one_shape(list(KINDS)[:PLAIN]),
    "optimizer": list(OPTIMIZERS),
    "option": list(OPTIONS),
    "form": list(FORMS),
    "policy": TRAINING,
    "wrapper": ["", *WRAPPERS],
    "mode": ["eager", "graph"],
}


@cache
def rows() -> list[Case]:
    """Cases in which each two values of two factors meet at least once."""
    return [Case(**dict(zip(FACTORS, row, strict=True))) for row in AllPairs(FACTORS.values())]


def test_each_pair_of_values_is_in_a_row() -> None:
    for one, other in combinations(FACTORS, 2):
        met = {(getattr(case, one), getattr(case, other)) for case in rows()}
        assert met == set(product(FACTORS[one], FACTORS[other]))


def assert_same_unless_keras_fails(case: Case) -> str:
    """Assert that both ways end with the same bits; why Keras itself cannot train so, if not."""
    case.model()  # one that cannot be built would compare nothing
    try:
        values = by_keras(case)
    except Exception as error:
        with pytest.raises(type(error)) as caught:
            by_training(case)
        assert not isinstance(caught.value, Invalid), "Keras fails, and we blame the model"
        return f"Keras: {type(error).__name__}: {' '.join(str(error).split())[:80]}"
    assert_same(case, values)
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(rows())))
def test_a_row(number: int) -> None:
    if reason := assert_same_unless_keras_fails(rows()[number]):
        pytest.skip(reason)


FITTING = [
    (kind, form)
    for kind, form in product(KINDS, FORMS)
    # a sequence hands each layer one tensor
    if form != "sequential" or KINDS[kind].call is of_one_input
]
CASES = st.builds(
    lambda fitting, **given: Case(*fitting[:1], form=fitting[1], **given),
    fitting=st.sampled_from(FITTING),
    optimizer=st.sampled_from(list(OPTIMIZERS)),
    option=st.sampled_from(list(OPTIONS)),
    policy=st.sampled_from(["float32", "mixed_bfloat16"]),
    wrapper=st.sampled_from(["", *WRAPPERS]),
    seed=st.integers(0, 2**16),
)


@pytest.mark.slow
@given(CASES)
@settings(max_examples=40)
def test_any_case(case: Case) -> None:
    """A kind of layer by itself, in a graph, on any data."""
    assert_same_unless_keras_fails(case)
