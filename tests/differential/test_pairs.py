"""Compares Keras and the dense strategy for all pairs of layer, optimizer, option, form, ..."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
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
    # a layer without weights and state does not depend on the optimizer
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
    """Returns cases in which each pair of values of two factors occurs at least once."""
    return [Case(**dict(zip(FACTORS, row, strict=True))) for row in AllPairs(FACTORS.values())]


def test_each_pair_of_values_is_in_a_row() -> None:
    for first, second in combinations(FACTORS, 2):
        pairs = {(getattr(case, first), getattr(case, second)) for case in rows()}
        assert pairs == set(product(FACTORS[first], FACTORS[second]))


def assert_same_unless_keras_fails(case: Case) -> str:
    """Asserts that all trainings end with the same bits, unless Keras itself fails.

    If Keras fails, `Training` and `apply` must fail with the same exception.

    Returns:
        The reason why Keras fails, or an empty string.
    """
    case.model()  # raises if the model cannot be built, because then nothing would be compared
    try:
        values = by_keras(case)
    except Exception as error:
        for train in (by_training, partial(by_keras, masked=True)):
            with pytest.raises(type(error)) as caught:
                train(case)
            assert not isinstance(caught.value, Invalid), "Keras fails, and we blame the model"
        return f"Keras: {type(error).__name__}: {' '.join(str(error).split())[:80]}"
    assert_same(case, values)
    assert_same(case, values, masked=True)
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(rows())))
def test_a_row(number: int) -> None:
    if reason := assert_same_unless_keras_fails(rows()[number]):
        pytest.skip(reason)


FITTING = [
    (kind, form)
    for kind, form in product(KINDS, FORMS)
    # a sequential model passes one tensor to each layer
    if form != "sequential" or KINDS[kind].call is of_one_input
]
CASES = st.builds(
    lambda fitting, **values: Case(*fitting[:1], form=fitting[1], **values),
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
    """Compares one kind of layer, in a graph, on random data."""
    assert_same_unless_keras_fails(case)
