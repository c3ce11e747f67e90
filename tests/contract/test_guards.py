"""The checks fail for strategies that are broken on purpose, and for cases that are wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import tensorflow as tf

from masksweep.strategies import STRATEGIES, Binding, Strategy
from masksweep.strategies.hard_mask import HardMask
from masksweep.strategies.testing import Case, check_strategy, strategy_checks


@dataclass(frozen=True)
class Lying(Strategy):
    """Reports a masked weight, but computes with the raw variable."""

    name: ClassVar[str] = "lying"

    def bind(self) -> Binding:
        return Binding(effective=lambda v, m, h: tf.where(m, v, h))


@dataclass(frozen=True)
class Still(Strategy):
    """Holds all entries of a masked weight, also the kept ones."""

    name: ClassVar[str] = "still"

    def bind(self) -> Binding:
        return Binding(
            init=lambda w, m, h: tf.where(m, w, h), gradients=lambda g, m: tf.zeros_like(g)
        )


@dataclass(frozen=True)
class Stuck(Strategy):
    """Uses the first mask for all later trials."""

    name: ClassVar[str] = "stuck"

    def bind(self) -> Binding:
        masks: list[Any] = []

        def substitute(v: Any, m: Any, h: Any) -> Any:
            return tf.where(masks[0], v, h)

        def init(w: Any, m: Any, h: Any) -> Any:
            masks.append(tf.identity(m))
            return tf.where(m, w, h)

        return Binding(init=init, substitute=substitute)


@dataclass(frozen=True)
class Leaking(Strategy):
    """Leaks, although its case does not document a leak."""

    name: ClassVar[str] = "leaking"

    def bind(self) -> Binding:
        return Binding(init=lambda w, m, h: tf.where(m, w, h))


@pytest.mark.parametrize(
    ("strategy", "check"),
    [
        (Leaking(), "holds zero under sgd"),
        (Lying(), "computes with its weights in dense"),
        (Lying(), "saves and loads"),
        (Still(), "moves kept weights under sgd"),
        (Still(), "holds in hidden"),
        (Stuck(), "starts again"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_broken_strategy_fails(strategy: Strategy, check: str) -> None:
    with pytest.raises(AssertionError):
        strategy_checks(Case(strategy))[check]()


def test_the_name_of_the_check_that_failed_is_a_note() -> None:
    with pytest.raises(AssertionError) as caught:
        check_strategy(Case(Leaking()))
    assert caught.value.__notes__ == ["check of leaking: holds zero under sgd"]


@pytest.mark.parametrize(
    ("case", "check"),
    [
        (Case(HardMask(), leaks={("sgd", "zero"): "values"}), "holds zero under sgd"),
        (Case(HardMask(), refuses={"constant": "zero only"}), "refuses constant"),
        (Case(HardMask(), refuses={"bias": "rows"}), "refuses bias"),
        (Case(HardMask(), leaks={("sgd", "zero"): "values"}), "holds in hidden"),
    ],
)
def test_what_is_documented_and_not_so_fails(case: Case, check: str) -> None:
    with pytest.raises(AssertionError):
        strategy_checks(case)[check]()


def test_broken_strategies_stay_out_of_the_registry() -> None:
    assert not {"lying", "still", "stuck", "leaking"} & set(STRATEGIES)
