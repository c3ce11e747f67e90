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

from masksweep.strategies.core.audit import (
    MAX_OUTPUT_DIFFERENCE,
    bits,
    moved_fraction,
    same_weights,
    save_and_reload,
    violations,
)
from masksweep.strategies.core.weights import values
from masksweep.strategies.errors import Invalid
from masksweep.strategies.plan import Array
from masksweep.strategies.testing.case import HELD, OPTIMIZERS, Case
from masksweep.strategies.testing.networks import NETWORK, SITUATIONS, network
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
    """Returns the checks of a strategy by name, for example for `pytest.mark.parametrize`.

    Args:
        case: The strategy with its documented behaviour.

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
    """Checks a strategy on small models, with several optimizers, held values and layers.

    The strategy must

    - hold each masked entry bit for bit at each step, except where a leak is documented;
    - change each kept entry;
    - compute with the weights that it reports;
    - train the model's own variables;
    - work with another mask without compiling again;
    - hold each situation of `masksweep.strategies.testing.networks`, or refuse it with a reason.

    Args:
        case: The strategy with its documented behaviour.

    Raises:
        AssertionError: A check failed. The name of the check is a note of the exception.

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
    """Checks that each masked entry has its held value at each step, or leaks as documented."""
    if case.needs_program(held) and not jit:
        trial = _eager(case, OPTIMIZERS[optimizer], held)
    else:
        trial = case.begin(optimizer, held, jit=jit)
    counts = [violations(weights, trial.plan) for weights in trial.steps(STEPS)]
    leak = case.leaks.get((optimizer, held))
    if leak is None:
        require(counts == [(0, 0.0)] * STEPS, f"(violations, drift) by step: {counts}")
    else:
        last_count, drift = counts[-1]
        require(last_count > 0, "it is documented to leak, and holds")
        require((drift > 0) == (leak == "values"), f"documented leak {leak}, drift {drift}")


def refuses_held(case: Case, held: str) -> None:
    """Checks that the strategy refuses a held value, for a new training and for a compiled one."""
    model = network()
    plan = case.plan(model, held)
    reason, words = case.strategy.refuses(plan), case.refuses[held]
    require(reason is not None and words in reason, f"reason {reason!r}, expected {words!r}")
    _require_refusal(lambda: Trial(case.strategy, model, plan, OPTIMIZERS["sgd"]()), words)
    _require_refusal(lambda: case.begin("sgd", held), words)


def moves(case: Case, optimizer: str) -> None:
    """Checks that each kept entry of a masked weight changes."""
    trial = case.begin(optimizer)
    start = trial.weights()
    fraction = moved_fraction(start, trial.end(STEPS), trial.plan)
    require(fraction == 1, f"only {fraction:.3f} of the kept entries moved")


def holds_averages(case: Case, when: str) -> None:
    """Checks that masked entries hold if the optimizer averages the weights (`use_ema`)."""
    trial = _eager(case, AVERAGING[when], _any_held(case))
    counts = [violations(weights, trial.plan) for weights in trial.steps(5)]
    before = trial.weights()
    trial.training.finalize()
    after = trial.weights()
    counts.append(violations(after, trial.plan))
    require(counts == [(0, 0.0)] * 6, f"(violations, drift) by step and at the end: {counts}")
    require(not same_weights(before, after), "the averages are the weights")


def computes(case: Case, kind: str) -> None:
    """Checks that the model computes with the weights that the strategy reports."""
    model = PROBES[kind]()
    plan = case.plan(model, targets=["output/kernel"])
    trial = Trial(case.strategy, model, plan, OPTIMIZERS["sgd"](), eager=True)
    for _ in range(3):
        reported = trial.weights()["output/kernel"]
        require(np.array_equal(probe(trial), reported), "the outputs say other weights")
        trial.end(1)


def holds_in(case: Case, name: str) -> None:
    """Checks that masked entries hold, kept entries change, and the state is updated."""
    trial = _in_situation(case, name)
    start, state = trial.weights(), trial.state()
    counts = [violations(weights, trial.plan)[0] for weights in trial.steps(2)]
    if case.holds:
        require(counts == [0] * 2, f"violations by step: {counts}")
    else:
        require(counts[-1] > 0, "it is documented to leak, and holds")
    require(moved_fraction(start, trial.weights(), trial.plan) == 1, "a kept entry did not move")
    unchanged = [np.array_equal(a, b) for a, b in zip(state, trial.state(), strict=True)]
    require(not any(unchanged), "moving statistics or seeds did not change")


def refuses_situation(case: Case, name: str) -> None:
    """Checks that the strategy refuses a situation, and that the exception names the strategy."""
    error = _require_refusal(lambda: _in_situation(case, name), case.refuses[name])
    key_and_value = (error.key, error.value)
    require(key_and_value == ("strategy", case.strategy.name), f"the refusal names {key_and_value}")


def compiles_with_xla(case: Case) -> None:
    """Checks that the step compiles with XLA and holds, or that `xla` is False.

    A strategy whose `xla` is False may choose one for the mask that compiles: it must hold then.
    """
    import tensorflow as tf

    if case.strategy.xla:
        holds(case, "adam", "zero", jit=True)
        return
    trial = case.begin("adam", jit=True)
    if case.strategy.compiles_with_xla(trial.plan):
        holds(case, "adam", "zero", jit=True)
        return
    try:
        trial.end(1)
    except tf.errors.InvalidArgumentError as error:
        require("XLA" in str(error), str(error))
    else:
        raise AssertionError("its step compiles with XLA, although its `xla` is False")


def trains_own_variables(case: Case) -> None:
    """Checks that the optimizer gets the model's own variables.

    If the trained values have another shape, it must get variables of the same names.
    """
    trial = case.begin("adam")
    for value, variable in zip(trial.training.values, trial.model.trainable_variables, strict=True):
        allowed = value is variable or tuple(value.shape) != tuple(variable.shape)
        require(allowed, f"{variable.path} was replaced by a variable of the same shape")
        same_name = (value.name, value.path) == (variable.name, variable.path)
        require(same_name, f"{variable.path} is trained as {value.path}")


def saves_and_loads(case: Case) -> None:
    """Checks a plain Keras model with the trained weights after saving and loading it.

    It must hold and compute the same as the trained model.
    """
    trial = case.begin("adam", _any_held(case))
    weights = trial.end(5)
    with tempfile.TemporaryDirectory() as folder:
        loaded = save_and_reload(network(), weights, trial.state(), Path(folder) / "model.keras")
    require(same_weights(values(loaded), weights), "the loaded weights differ")
    same_violations = violations(values(loaded), trial.plan) == violations(weights, trial.plan)
    require(same_violations, "the loaded weights have other violations")
    _require_close(trial.outputs(), np.asarray(loaded(trial.x, training=False)))


def keeps_state(case: Case) -> None:
    """Checks that the training starts with the model's non-trainable weights, such as averages."""
    model = network()
    norm = model.get_layer("norm")
    norm.trainable = False
    for number, variable in enumerate(norm.variables, 1):
        variable.assign(np.full(variable.shape, number))
    trial = Trial(case.strategy, model, case.plan(model), OPTIMIZERS["sgd"]())
    for value, original in zip(trial.state(), model.non_trainable_variables, strict=True):
        require(np.array_equal(value, original.numpy()), f"{original.path} differs at the start")
    for variable, weight in zip(model.trainable_variables, trial.weights().values(), strict=True):
        variable.assign(weight)
    _require_close(trial.outputs(), np.asarray(model(trial.x, training=False)))


def starts_again(case: Case) -> None:
    """Checks that a trial that starts again with another mask equals a new trial, bit for bit."""
    first = _everything(case.begin("adam"))
    second = _everything(case.begin("adam", seed=1))
    model = network()
    new = Trial(case.strategy, model, case.plan(model, seed=1), OPTIMIZERS["adam"]())
    require(second == _everything(new), "something of the first mask is left")
    is_masked = case.strategy.role != "dense"
    require((second != first) == is_masked, "the mask makes no difference")


def compiles_once(case: Case) -> None:
    """Checks that masks of one shape use one compiled program."""
    for seed in range(3):
        trial = case.begin("adam", seed=seed)
        trial.end(1)
    traces = trial.step.experimental_get_tracing_count()
    require(traces == 1, f"traced {traces} times")


def trains_only_trainable(case: Case) -> None:
    """Checks that weights that `trainable` does not match do not change."""
    trial = _eager(case, OPTIMIZERS["adamw"], trainable=("output/*", "*/gamma"))
    start = trial.weights()
    end = trial.end(2)
    changed = {n for n in start if not np.array_equal(bits(start[n]), bits(end[n]))}
    require(changed == {"output/kernel", "output/bias", "norm/gamma"}, f"{changed} changed")


def _in_situation(case: Case, name: str) -> Trial:
    situation = SITUATIONS[name]
    model = situation.start()
    plan = case.plan(model, targets=situation.targets, pattern=situation.pattern)
    return Trial(case.strategy, model, plan, OPTIMIZERS["sgd"](), eager=True)


def _eager(case: Case, optimizer: Callable[[], Any], held: str = "zero", **knobs: Any) -> Trial:
    """Returns a trial of `network` without a program, which would take longer than a few steps."""
    model = NETWORK.start()
    return Trial(case.strategy, model, case.plan(model, held), optimizer(), eager=True, **knobs)


def _any_held(case: Case) -> str:
    return "zero" if "constant" in case.refuses else "constant"


def _everything(trial: Trial) -> list[bytes]:
    """Returns the bytes of all that a step can change, after each of five steps."""
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
    allowed = MAX_OUTPUT_DIFFERENCE * max(1.0, float(np.abs(live).max()))
    require(distance <= allowed, f"outputs differ by {distance}, {allowed} is allowed")
