"""The jobs of a sweep: one grid of overrides for each part."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Override, RangeSweep
from omegaconf import DictConfig, OmegaConf

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.composing.composer import Composer

MAX_JOBS = 100_000
"""Largest number of jobs in a sweep: a single line of a config can ask for far more."""


def jobs(
    composer: Composer, config: DictConfig, arguments: Sequence[str]
) -> list[tuple[str, list[str]]]:
    """Returns the name of the part and the overrides of each job.

    The jobs are the product of all lists of values, formed for each part of `sweep.parts`. A part
    is a mapping `override: value or list of values`. The command line takes precedence over a part.
    A list of mappings, under any name, is a choice among sets of overrides.

    Args:
        composer: Parses overrides.
        config: The config of the sweep itself.
        arguments: The overrides of the command line.

    Returns:
        A pair `(part, overrides)` for each job. The part is empty if the sweep has no parts.

    Raises:
        Invalid: A part has another form, a value is given twice, or there are more than `MAX_JOBS`
            jobs.
    """
    parts = OmegaConf.select(config, "sweep.parts") or {"": {}}
    by_name = OmegaConf.to_container(parts) if OmegaConf.is_config(parts) else parts
    if not isinstance(by_name, dict) or not all(isinstance(p, dict) for p in by_name.values()):
        raise Invalid("sweep.parts", by_name, "parts by name, each a mapping override -> values")
    overrides = composer.parse(arguments)
    keys = {o.get_key_element().lstrip("+~") for o in overrides}
    named_jobs: list[tuple[str, list[str]]] = []
    for name, part in by_name.items():
        for grid in _grids(part):
            lines = [_as_override(key, value) for key, value in grid.items() if key not in keys]
            choices = [_expand_override(o) for o in [*overrides, *composer.parse(lines)]]
            if len(named_jobs) + math.prod(map(len, choices)) > MAX_JOBS:
                raise Invalid("sweep", str(name), f"must have {MAX_JOBS} trials at most")
            named_jobs += [(str(name), list(job)) for job in itertools.product(*choices)]
    return named_jobs


def _grids(part: Mapping[Any, Any]) -> Iterator[dict[Any, Any]]:
    """Yields the part once for each choice among its sets of overrides, in order."""
    sets = [v for v in part.values() if _is_choice(v)]
    plain = {k: v for k, v in part.items() if not _is_choice(v)}
    for chosen in itertools.product(*sets):
        grid: dict[Any, Any] = {}
        for overrides in (*chosen, plain):
            if twice := grid.keys() & overrides.keys():
                raise Invalid(f"sweep.parts: {twice.pop()}", part, "given once in a part")
            grid |= overrides
        yield grid


def _is_choice(value: Any) -> bool:
    """Whether a value of a part is a list of sets of overrides."""
    sets = [isinstance(v, Mapping) for v in value] if isinstance(value, list) else []
    if any(sets) and not all(sets):
        raise Invalid("sweep.parts", value, "a list of values, or of sets of overrides")
    return any(sets)


def _as_override(key: Any, value: Any) -> str:
    """Returns an entry of a part as an override of the command line. A list becomes a sweep."""
    if isinstance(value, Mapping):
        raise Invalid(f"sweep.parts: {key}", dict(value), "a value or a list of values")
    values = value if isinstance(value, list) else [value]
    return f"{key}={','.join('null' if v is None else str(v) for v in values)}"


def _expand_override(override: Override) -> list[str]:
    """Returns an override as `key=value` for each value that it sweeps over."""
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{key}={override.get_value_element_as_str()}"]
    if not override.is_discrete_sweep():
        raise Invalid(key, override.get_value_element_as_str(), "a comma list, choice() or range()")
    sweep = override.value()
    # checked before `sweep_string_iterator`, which lists a shuffled range as a whole
    if isinstance(sweep, RangeSweep) and [*itertools.islice(sweep.range(), MAX_JOBS, MAX_JOBS + 1)]:
        text = str(override.input_line).partition("=")[2]
        raise Invalid(key, text, f"must be {MAX_JOBS} values at most")
    values = list(override.sweep_string_iterator())
    repeated = [v for v, count in Counter(values).items() if count > 1]
    if repeated:
        raise Invalid(key, ",".join(values), f"each value once; {repeated[0]} is repeated")
    return [f"{key}={value}" for value in values]
