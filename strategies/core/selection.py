"""Chooses weights by globs on their names."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from masksweep.strategies.base import Invalid, Weight, require


def match(names: Sequence[str], globs: Sequence[str]) -> list[str]:
    """Returns the names that match at least one glob, in the order of `names`.

    Example:
        >>> match(["conv/kernel", "conv/bias", "dense/kernel"], ["*/kernel"])  # `*` matches `/` too
        ['conv/kernel', 'dense/kernel']
    """
    return [name for name in names if any(fnmatch.fnmatchcase(name, g) for g in globs)]


def target_names(weights: Sequence[Weight], targets: Sequence[str] | None) -> list[str]:
    """Returns the names of the weights to mask.

    Args:
        weights: The model's weights, in the model's order.
        targets: Globs on weight names. None targets every kernel except the last one.

    Returns:
        The names, in the model's order.

    Raises:
        Invalid: A glob matches no weight, there is no glob, or `targets` is None and the model has
            fewer than two kernels.
    """
    if targets is None:
        kernels = [w.name for w in weights if w.is_kernel][:-1]
        names = ", ".join(w.name for w in weights)
        if not kernels:
            raise Invalid(
                "targets", "null", f"no kernel other than the last; the weights are {names}"
            )
        return kernels
    require(bool(targets), "targets", list(targets), "at least one glob")
    return match_each("targets", [w.name for w in weights], targets)


def match_each(key: str, names: Sequence[str], globs: Sequence[str]) -> list[str]:
    """Does the same as `match`, and checks that each glob matches at least one name.

    Args:
        key: The setting that has the globs, for the message.
        names: The names to choose from.
        globs: The globs.

    Returns:
        The names that match, in the order of `names`.

    Raises:
        Invalid: A glob matches no name.
    """
    for glob in globs:
        if not match(names, [glob]):
            raise Invalid(key, glob, f"matches no weight; the weights are {', '.join(names)}")
    return match(names, globs)
