"""Each guard of this suite can fail: strategies that are broken on purpose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from masksweep.strategies import STRATEGIES, Binding, Strategy
from masksweep.strategies.core.audit import AGREEMENT, bake, moved, violations

from .cases import OPTIMIZERS, Case
from .probes import dense, probe
from .situations import network
from .trial import Trial


@dataclass(frozen=True)
class Lying(Strategy):
    """Shows a masked weight, and computes with the raw one."""

    name: ClassVar[str] = "lying"

    def bind(self) -> Binding:
        return Binding(effective=lambda v, m, h: tf.where(m, v, h))


@dataclass(frozen=True)
class Still(Strategy):
    """Holds all there is."""

    name: ClassVar[str] = "still"

    def bind(self) -> Binding:
        return Binding(
            init=lambda w, m, h: tf.where(m, w, h), gradients=lambda g, m: tf.zeros_like(g)
        )


@dataclass(frozen=True)
class Stuck(Strategy):
    """Keeps the first mask that it sees."""

    name: ClassVar[str] = "stuck"

    def bind(self) -> Binding:
        masks: list[Any] = []

        def substitute(v: Any, m: Any, h: Any) -> Any:
            return tf.where(masks[0], v, h)

        def init(w: Any, m: Any, h: Any) -> Any:
            masks.append(tf.identity(m))
            return tf.where(m, w, h)

        return Binding(init=init, substitute=substitute)


def trial_of(strategy: Strategy, model: Any = None, targets: tuple[str, ...] = ()) -> Trial:
    model = model or network()
    plan = Case(strategy).plan(model, targets=targets)
    return Trial(strategy, model, plan, OPTIMIZERS["sgd"]())


def test_broken_strategies_stay_out_of_the_registry() -> None:
    assert not {"lying", "still", "stuck"} & set(STRATEGIES)


def test_probing_finds_a_lie() -> None:
    trial = trial_of(Lying(), dense(), ("output/kernel",))
    assert violations(trial.end(1), trial.plan) == (0, 0.0)
    assert not np.array_equal(probe(trial), trial.weights()["output/kernel"])


def test_baking_finds_a_lie(tmp_path: Path) -> None:
    trial = trial_of(Lying())
    weights = trial.end(1)
    loaded = bake(network(), weights, trial.state(), tmp_path / "model.keras")
    assert np.abs(trial.outputs() - np.asarray(loaded(trial.x))).max() > 100 * AGREEMENT


def test_moving_nothing_is_found() -> None:
    trial = trial_of(Still())
    start = trial.weights()
    end = trial.end(2)
    assert violations(end, trial.plan) == (0, 0.0)
    assert moved(start, end, trial.plan) == 0


def test_a_mask_inside_the_program_is_found() -> None:
    trial = trial_of(Stuck())
    assert violations(trial.end(1), trial.plan) == (0, 0.0)
    trial.begin(Case(Stuck()).plan(network(), seed=1))
    assert violations(trial.end(1), trial.plan)[0] > 0
