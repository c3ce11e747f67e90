"""The checks that every strategy must pass."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import keras
import numpy as np

from masksweep.strategies.base import Array, Invalid
from masksweep.strategies.core.audit import AGREEMENT, bake, bits, moved, same, violations
from masksweep.strategies.core.weights import values
from masksweep.strategies.testing.case import HELD, OPTIMIZERS, Case
from masksweep.strategies.testing.networks import SITUATIONS, network
from masksweep.strategies.testing.probes import PROBES, probe
from masksweep.strategies.testing.require import require
from masksweep.strategies.testing.trial import Trial

STEPS = 10
AVERAGING: dict[str, Callable[[], Any]] = {
    "at the end": lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9),
    "during training": lambda: keras.optimizers.Adam(
        0.01, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=2
    ),
}


def strategy_checks(case: Case) -> dict[str, Callable[[], None]]:
    """The checks of a strategy by name, for instance for `pytest.mark.parametrize`.

    Args:
        case: The strategy, with what is documented of it.

    Returns:
        Functions without arguments, each of which raises `AssertionError` if its check fails.
    """
    checks: dict[str, Callable[[], None]] = {}
    for held, optimizer in product(HELD, OPTIMIZERS):
        if held not in case.refuses:
            checks[f"holds {held} under {optimizer}"] = partial(holds, case, optimizer, held)
    for held in HELD:
        if held in case.refuses:
            checks[f"refuses {held}"] = partial(refuses_held, case, held)
    if case.holds:
        for optimizer in OPTIMIZERS:
            checks[f"moves kept weights under {optimizer}"] = partial(moves, case, optimizer)
        if not case.averages_leak:
            for when in AVERAGING:
                checks[f"holds averages {when}"] = partial(holds_averages, case, when)
    for kind in PROBES:
        if kind not in case.refuses:
            checks[f"computes with its weights in {kind}"] = partial(computes, case, kind)
    for name in SITUATIONS:
        if name in case.refuses:
            checks[f"refuses {name}"] = partial(refuses_situation, case, name)
        else:
            checks[f"holds in {name}"] = partial(holds_in, case, name)
    for check in (
        compiles_with_xla, trains_own_variables, saves_and_loads, keeps_state, starts_again,
        compiles_once, trains_only_trainable,
    ):  # fmt: skip
        checks[check.__name__.replace("_", " ")] = partial(check, case)
    return checks


def check_strategy(case: Case) -> None:
    """Check a strategy on small models, with several optimizers, held values and layers.

    A strategy is checked as it is documented. It must hold every masked entry bit for bit at each
    step, move every kept entry, compute with the weights that it reports, train the model's own
    variables, serve another mask with the same compiled program, and either hold or refuse, with a
    reason, each of the situations in `masksweep.strategies.testing.networks`.

    Args:
        case: The strategy, with what is documented of it.

    Raises:
        AssertionError: A check failed. Its name is a note of the error.

    Example:
        >>> from masksweep.strategies.hard_mask import HardMask
        >>> check_strategy(Case(HardMask()))  # doctest: +SKIP
    """
    for name, check in strategy_checks(case).items():
        try:
            check()
        except Exception as error:
            error.add_note(f"check of {case.strategy.name}: {name}")
            raise


def holds(case: Case, optimizer: str, held: str, *, jit: bool = False) -> None:
    """Every masked entry has its held value at every step, unless a leak is documented."""
    trial = case.begin(optimizer, held, jit=jit)
    found = [violations(weights, trial.plan) for weights in trial.steps(STEPS)]
    leak = case.leaks.get((optimizer, held))
    if leak is None:
        require(found == [(0, 0.0)] * STEPS, f"(violations, drift) by step: {found}")
    else:
        count, drift = found[-1]
        require(count > 0, "it is documented to leak, and holds")
        require((drift > 0) == (leak == "values"), f"documented leak {leak}, drift {drift}")


def refuses_held(case: Case, held: str) -> None:
    """It refuses the held value: before it is compiled, and with another mask afterwards."""
    model = network()
    plan = case.plan(model, held)
    reason, words = case.strategy.refuses(plan), case.refuses[held]
    require(reason is not None and words in reason, f"reason {reason!r}, expected {words!r}")
    _require_refusal(lambda: Trial(case.strategy, model, plan, OPTIMIZERS["sgd"]()), words)
    _require_refusal(lambda: case.begin("sgd", held), words)


def moves(case: Case, optimizer: str) -> None:
    """Every kept entry of a masked weight changes."""
    trial = case.begin(optimizer)
    start = trial.weights()
    fraction = moved(start, trial.end(STEPS), trial.plan)
    require(fraction == 1, f"only {fraction:.3f} of the kept entries moved")


def holds_averages(case: Case, when: str) -> None:
    """The optimizer's averages of the weights hold too."""
    model = network()
    trial = Trial(case.strategy, model, case.plan(model, _any_held(case)), AVERAGING[when]())
    found = [violations(weights, trial.plan) for weights in trial.steps(5)]
    before = trial.weights()
    trial.training.finalize()
    after = trial.weights()
    found.append(violations(after, trial.plan))
    require(found == [(0, 0.0)] * 6, f"(violations, drift) by step and at the end: {found}")
    require(not same(before, after), "the averages are the weights")


def computes(case: Case, kind: str) -> None:
    """The weights that it reports are those that its model computes with."""
    model = PROBES[kind]()
    plan = case.plan(model, targets=["output/kernel"])
    trial = Trial(case.strategy, model, plan, OPTIMIZERS["adam"]())
    for _ in range(3):
        reported = trial.weights()["output/kernel"]
        require(np.array_equal(probe(trial), reported), "the outputs say other weights")
        trial.end(1)


def holds_in(case: Case, name: str) -> None:
    """In a situation it holds what is masked, moves what is kept, and updates the state."""
    trial = _in_situation(case, name)
    start, state = trial.weights(), trial.state()
    found = [violations(weights, trial.plan)[0] for weights in trial.steps(4)]
    if case.holds:
        require(found == [0] * 4, f"violations by step: {found}")
    else:
        require(found[-1] > 0, "it is documented to leak, and holds")
    require(moved(start, trial.weights(), trial.plan) == 1, "a kept entry did not move")
    still = [np.array_equal(a, b) for a, b in zip(state, trial.state(), strict=True)]
    require(not any(still), "moving statistics or seeds did not change")


def refuses_situation(case: Case, name: str) -> None:
    """It refuses a situation, as the value of `strategy`."""
    error = _require_refusal(lambda: _in_situation(case, name), case.refuses[name])
    named = (error.key, error.value)
    require(named == ("strategy", case.strategy.name), f"the refusal names {named}")


def compiles_with_xla(case: Case) -> None:
    """Its step compiles with XLA and holds, or `xla` says that it does not compile."""
    import tensorflow as tf

    if case.strategy.xla:
        holds(case, "adam", "zero", jit=True)
        return
    try:
        case.begin("adam", jit=True).end(1)
    except tf.errors.InvalidArgumentError as error:
        require("XLA" in str(error), str(error))
    else:
        raise AssertionError("its step compiles with XLA, although its `xla` is False")


def trains_own_variables(case: Case) -> None:
    """The optimizer gets the model's own variables, or others of the same names."""
    trial = case.begin("adam")
    for value, variable in zip(trial.training.values, trial.model.trainable_variables, strict=True):
        own = value is variable or tuple(value.shape) != tuple(variable.shape)
        require(own, f"{variable.path} was replaced by a variable of the same shape")
        named = (value.name, value.path) == (variable.name, variable.path)
        require(named, f"{variable.path} is trained as {value.path}")


def saves_and_loads(case: Case) -> None:
    """A plain Keras model with its weights, saved and loaded, holds and computes the same."""
    trial = case.begin("adam", _any_held(case))
    weights = trial.end(5)
    with tempfile.TemporaryDirectory() as folder:
        loaded = bake(network(), weights, trial.state(), Path(folder) / "model.keras")
    require(same(values(loaded), weights), "the loaded weights differ")
    agree = violations(values(loaded), trial.plan) == violations(weights, trial.plan)
    require(agree, "the loaded weights have other violations")
    _require_close(trial.outputs(), np.asarray(loaded(trial.x, training=False)))


def keeps_state(case: Case) -> None:
    """It starts with the model's own non-trainable weights, such as moving statistics."""
    model = network()
    norm = model.get_layer("norm")
    norm.trainable = False
    for number, variable in enumerate(norm.variables, 1):
        variable.assign(np.full(variable.shape, number))
    trial = Trial(case.strategy, model, case.plan(model), OPTIMIZERS["sgd"]())
    for mine, own in zip(trial.state(), model.non_trainable_variables, strict=True):
        require(np.array_equal(mine, own.numpy()), f"{own.path} differs at the start")
    for variable, weight in zip(model.trainable_variables, trial.weights().values(), strict=True):
        variable.assign(weight)
    _require_close(trial.outputs(), np.asarray(model(trial.x, training=False)))


def starts_again(case: Case) -> None:
    """With another mask it trains as a new trial with that mask does, to the last bit."""
    first = _everything(case.begin("adam"))
    second = _everything(case.begin("adam", seed=1))
    model = network()
    new = Trial(case.strategy, model, case.plan(model, seed=1), OPTIMIZERS["adam"]())
    require(second == _everything(new), "something of the first mask is left")
    masks = case.strategy.role != "dense"
    require((second != first) == masks, "the mask makes no difference")


def compiles_once(case: Case) -> None:
    """One compiled program serves every mask of its shape."""
    for seed in range(3):
        trial = case.begin("adam", seed=seed)
        trial.end(1)
    traces = trial.step.experimental_get_tracing_count()
    require(traces == 1, f"traced {traces} times")


def trains_only_trainable(case: Case) -> None:
    """Weights outside of `trainable` stay as they are."""
    model, optimizer = network(), OPTIMIZERS["adamw"]()
    trainable = ("output/*", "*/gamma")
    trial = Trial(case.strategy, model, case.plan(model), optimizer, trainable=trainable)
    start = trial.weights()
    end = trial.end(5)
    changed = {n for n in start if not np.array_equal(bits(start[n]), bits(end[n]))}
    require(changed == {"output/kernel", "output/bias", "norm/gamma"}, f"{changed} changed")


def _in_situation(case: Case, name: str) -> Trial:
    situation = SITUATIONS[name]
    model = situation.model()
    plan = case.plan(model, targets=situation.targets, pattern=situation.pattern)
    return Trial(case.strategy, model, plan, OPTIMIZERS["sgd"]())


def _any_held(case: Case) -> str:
    return "zero" if "constant" in case.refuses else "constant"


def _everything(trial: Trial) -> list[bytes]:
    """All that a step can change, bit for bit, after each of some steps."""
    return [
        array.tobytes()
        for weights in trial.steps(5)
        for array in [*weights.values(), *trial.state(), *trial.slots()]
    ]


def _require_refusal(action: Callable[[], object], words: str) -> Invalid:
    try:
        action()
    except Invalid as error:
        require(words in str(error), f"refused as {str(error)!r}, expected {words!r}")
        return error
    raise AssertionError(f"it must be refused: {words}")


def _require_close(live: Array, other: Array) -> None:
    distance = float(np.abs(live - other).max())
    allowed = AGREEMENT * max(1.0, float(np.abs(live).max()))
    require(distance <= allowed, f"outputs differ by {distance}, {allowed} is allowed")
