"""Chooses weights by globs on their names."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence

from masksweep.strategies.errors import Invalid, require
from masksweep.strategies.plan import Weight


def match(names: Sequence[str], globs: Sequence[str]) -> list[str]:
    """Returns the names that match at least one glob, in the order of `names`.

    Example:
        >>> match(["conv/kernel", "conv/bias", "dense/kernel"], ["*/kernel"])  # `*` matches `/` too
        ['conv/kernel', 'dense/kernel']
    """
    return [name for name in names if any(fnmatch.fnmatchcase(name, g) for g in globs)]


EXCLUDE = "!"
"""Begins a glob of `targets` that excludes weights."""
INNER = "inner"
"""As `targets`: every kernel except the first and the last."""


def target_names(weights: Sequence[Weight], targets: Sequence[str] | str | None) -> list[str]:
    """Returns the names of the weights to mask.

    Args:
        weights: The model's weights, in the model's order.
        targets: Globs on weight names. A glob that begins with `!` excludes weights that the globs
            before it have chosen, and a glob after it can choose them again. None targets every
            kernel except the last one, and `"inner"` every kernel except the first and the last.
            For a model with several outputs, the kernels of all layers that make one are left out
            in place of the last one.

    Returns:
        The names, in the model's order.

    Raises:
        Invalid: A glob matches no weight, there is no glob, the globs exclude every weight, or the
            model has too few kernels for None or `"inner"`.

    Example:
        >>> weights = [Weight(f"{n}/kernel", (2, 2), "float32", "Dense") for n in ("a", "b", "c")]
        >>> target_names(weights, "inner"), target_names(weights, ["*kernel", "!b/*"])
        (['b/kernel'], ['a/kernel', 'c/kernel'])
    """
    names = [w.name for w in weights]
    if targets is None or targets == INNER:
        kernels = [w for w in weights if w.is_kernel]
        several = any(w.makes_output for w in weights)
        last = {w.name for w in (filter(_makes_output, kernels) if several else kernels[-1:])}
        left_out = {*last, *(w.name for w in kernels[:1] if targets == INNER)}
        chosen = [w.name for w in kernels if w.name not in left_out]
        if not chosen:
            others = "those of the output layers" if several else "the last"
            others = others if targets is None else f"the first and {others}"
            reason = f"no kernel other than {others}; the weights are {', '.join(names)}"
            raise Invalid("targets", targets or "null", reason)
        return chosen
    require(not isinstance(targets, str), "targets", targets, f"{INNER}, or a list of globs")
    require(bool(targets), "targets", list(targets), "at least one glob")
    selected: set[str] = set()
    for glob in targets:
        if glob.startswith(EXCLUDE):
            selected -= {*_excluded(glob, [n for n in names if n in selected])}
        else:
            selected |= {*match_each("targets", names, [glob])}
    require(bool(selected), "targets", list(targets), "globs that do not exclude every weight")
    return [name for name in names if name in selected]


def _makes_output(weight: Weight) -> bool:
    return weight.makes_output


def _excluded(glob: str, selected: Sequence[str]) -> list[str]:
    """Returns the selected names that a glob excludes. Raises `Invalid` if there are none."""
    excluded = match(selected, [glob.removeprefix(EXCLUDE)])
    if not excluded:
        chosen = f"those chosen before it are {', '.join(selected)}"
        reason = chosen if selected else "none is chosen before it"
        raise Invalid("targets", glob, f"excludes no weight; {reason}")
    return excluded


def first_matches(key: str, names: Sequence[str], globs: Iterable[str]) -> dict[str, list[str]]:
    """Returns the names that each glob decides on. Of several globs that match, the first decides.

    Args:
        key: The setting that has the globs, for the message.
        names: The names to choose from.
        globs: The globs.

    Returns:
        Names by glob, in the order of the globs. A glob may have none, because globs before it
        match the same names.

    Raises:
        Invalid: A glob matches no name.

    Example:
        >>> first_matches("of", ["conv/kernel", "conv/bias"], ["*/bias", "conv/*"])
        {'*/bias': ['conv/bias'], 'conv/*': ['conv/kernel']}
    """
    decided: set[str] = set()
    names_by_glob = {}
    for glob in globs:
        names_by_glob[glob] = [n for n in match_each(key, names, [glob]) if n not in decided]
        decided |= {*names_by_glob[glob]}
    return names_by_glob


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
