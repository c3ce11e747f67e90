"""Reads the arguments of `apply`: which weights are masked, how, and at which values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from masksweep.strategies.base import Strategy
from masksweep.strategies.core.selection import first_matches, target_names
from masksweep.strategies.core.weights import ReadWhenUsed
from masksweep.strategies.errors import Invalid, require
from masksweep.strategies.held import HELD, Held
from masksweep.strategies.held.base import as_finite
from masksweep.strategies.held.constant import Constant
from masksweep.strategies.patterns import Pattern, Scored
from masksweep.strategies.patterns.explicit import to_mask
from masksweep.strategies.patterns.problem import Problem
from masksweep.strategies.plan import Array, Mask, Weight, shapes_and_dtypes
from masksweep.strategies.registry import STRATEGIES

MaskFunction = Callable[[str, tuple[int, ...]], Any]
"""(name, shape) -> the mask of a weight, or None if it is not masked."""
PatternChoice = Pattern | MaskFunction | Mapping[str, Any]
StrategyChoice = str | Strategy | Mapping[str, str | Strategy]
LossChoice = str | Callable[[Any, Any], Any] | None
HeldChoice = str | float | Held | Mapping[str, Any]


def choose_masks(
    choice: PatternChoice,
    weights: Sequence[Weight],
    initial: ReadWhenUsed,
    targets: Sequence[str] | str | None,
    seed: int,
    problem: Problem,
) -> dict[str, Mask]:
    """Returns the masks by weight name, in the model's order.

    Args:
        choice: A pattern; a function `(name, shape) -> mask or None`; or, by glob on weight names,
            patterns or arrays. The first glob that matches a weight decides.
        weights: The model's weights.
        initial: Their values, by name. A pattern that masks by scores takes them as scores.
        targets: As for `target_names`. None means: for a pattern, its `default_targets`, as a rule
            every kernel except the last one; else every weight for which there is a mask.
        seed: Seed of the patterns.
        problem: The model with the data and the loss that `apply` got.

    Raises:
        Invalid: The choice is none of these, a glob matches no weight, or a mask does not fit its
            weight.
    """
    if targets is None and isinstance(choice, Pattern):
        targets = choice.default_targets
    every = targets is None and not isinstance(choice, Pattern)
    names = [w.name for w in weights] if every else target_names(weights, targets)
    masks: dict[str, Any] = {}
    if isinstance(choice, Pattern):
        masks = _masks(choice, names, initial, seed, problem)
    elif isinstance(choice, Mapping):
        for glob, matching in first_matches("pattern", names, choice).items():
            part = choice[glob]
            _require_pattern_or_mask(glob, part)
            if isinstance(part, Pattern) and matching:
                masks |= _masks(part, matching, initial, seed, problem)
            else:
                masks |= dict.fromkeys(matching, part)
    elif callable(choice) and not isinstance(choice, type):
        shapes = {w.name: w.shape for w in weights}
        masks = {n: mask for n in names if (mask := choice(n, shapes[n])) is not None}
    else:
        allowed = "must be a pattern, masks by weight name, or a function (name, shape) -> mask"
        raise Invalid("pattern", _shown(choice), allowed)
    require(bool(masks), "pattern", repr(choice), "a pattern that masks at least one weight")
    return {
        w.name: to_mask(masks[w.name], w.shape, f"mask of {w.name}")
        for w in weights
        if w.name in masks
    }


def _require_pattern_or_mask(glob: str, part: Any) -> None:
    """Raises `Invalid` for a part that is neither a pattern nor an array."""
    if not isinstance(part, Pattern) and (part is None or isinstance(part, str) or callable(part)):
        raise Invalid("pattern", glob, f"must have a pattern or a mask, not {_shown(part)}")


def _shown(choice: Any) -> str:
    """Returns a choice as a message shows it: a class or a function without its address."""
    if isinstance(choice, type):
        return f"the class {choice.__name__} without ()"
    return "a function" if callable(choice) else repr(choice)


def choose_strategies(choice: StrategyChoice, names: Sequence[str]) -> dict[str, Strategy]:
    """Returns the strategy of each masked weight.

    Args:
        choice: A strategy or its name; or strategies by glob on weight names. The first glob that
            matches a weight decides.
        names: Names of the masked weights.

    Raises:
        Invalid: There is no such strategy, a glob matches no masked weight, or no glob matches a
            masked weight.
    """
    return {name: _strategy(part) for name, part in _by_name("strategy", choice, names).items()}


def choose_held(choice: HeldChoice, initial: ReadWhenUsed) -> dict[str, Array]:
    """Returns the held values by weight name.

    Args:
        choice: A number, `"zero"`, `"init"`, a held value, or one of these or an array by glob on
            weight names. The first glob that matches a weight decides.
        initial: The masked weights before the training, by name.

    Raises:
        Invalid: There is no such held value, or an array does not fit its weight.
    """
    parts = _by_name("held", choice, list(initial))
    return {name: _held(name, part, initial.of([name])) for name, part in parts.items()}


def _by_name(key: str, choice: Any, names: Sequence[str]) -> dict[str, Any]:
    """Returns the choice for each name, from one for all or from a mapping by glob."""
    if not isinstance(choice, Mapping):
        return dict.fromkeys(names, choice)
    decided = first_matches(key, names, choice)
    parts = {name: choice[glob] for glob, matching in decided.items() for name in matching}
    for name in names:
        if name not in parts:
            raise Invalid(key, list(choice), f"must have a glob that matches {name}")
    return parts


def _strategy(choice: Any) -> Strategy:
    if isinstance(choice, Strategy):
        return choice
    if not isinstance(choice, str) or choice not in STRATEGIES:
        raise Invalid("strategy", choice, f"must be one of {', '.join(STRATEGIES)}")
    return STRATEGIES[choice]()


def _held(name: str, choice: Any, weight: ReadWhenUsed) -> Array:
    if isinstance(choice, int | float | np.number) and not isinstance(choice, bool):
        choice = Constant(float(choice))
    if isinstance(choice, str):
        named = [n for n in HELD if n in ("zero", "init")]
        if choice not in named:
            raise Invalid("held", choice, f"must be a number, an array, {' or '.join(named)}")
        choice = HELD[choice]()
    if isinstance(choice, Held):
        return choice.values(weight)[name]
    array, initial = np.asarray(choice), shapes_and_dtypes(weight)[name]
    if array.shape != initial.shape or array.dtype.kind not in "buifV":
        found = f"{array.dtype} of shape {array.shape}"
        raise Invalid(name, found, f"held values must be numbers of shape {initial.shape}")
    return as_finite(name, array, initial.dtype)


def choose_loss(loss: LossChoice) -> Callable[[Any, Any], Any] | None:
    """Returns the function `(targets, outputs) -> loss`.

    Args:
        loss: The name of a loss of Keras, a `keras.losses.Loss`, a function, or None.

    Raises:
        Invalid: There is no such loss.
    """
    import keras

    try:
        function: Callable[[Any, Any], Any] | None = keras.losses.get(loss)
    except ValueError as error:
        raise Invalid("loss", repr(loss), "must be a loss of Keras or a function") from error
    return function


def _masks(
    pattern: Pattern,
    names: Sequence[str],
    initial: ReadWhenUsed,
    seed: int,
    problem: Problem,
) -> dict[str, Any]:
    weights = initial.of(names)
    if isinstance(pattern, Scored):
        return dict(pattern.by_scores(weights))
    return dict(pattern.from_problem(problem, weights, seed))
