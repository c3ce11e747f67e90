"""The jobs of a sweep: grids in parts."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Override, RangeSweep
from omegaconf import DictConfig, OmegaConf

from masksweep.strategies.base import Invalid
from masksweep.sweeps.composing.composer import Composer

MOST = 100_000
"""Jobs of a sweep: a line of a config can ask for more than a machine can hold."""


def jobs(
    composer: Composer, config: DictConfig, arguments: Sequence[str]
) -> list[tuple[str, list[str]]]:
    """The overrides of each job, with the name of its part.

    The product of all comma lists, once for each part of `sweep.parts`. A part is a grid of its
    own, `override: value or list of values`; what the command line says goes before it. A list of
    mappings, under any name, is a choice among sets of overrides.

    Args:
        composer: Reads overrides.
        config: The sweep's own config.
        arguments: The overrides of the command line.

    Raises:
        Invalid: A value is given twice, or there are more than `MOST` jobs.
    """
    parts = OmegaConf.select(config, "sweep.parts") or {"": {}}
    named = OmegaConf.to_container(parts) if OmegaConf.is_config(parts) else parts
    if not isinstance(named, dict) or not all(isinstance(p, dict) for p in named.values()):
        raise Invalid("sweep.parts", named, "parts by name, each a mapping override -> values")
    given = composer.parse(arguments)
    keys = {o.get_key_element().lstrip("+~") for o in given}
    found: list[tuple[str, list[str]]] = []
    for name, part in named.items():
        for grid in _grids(part):
            lines = [_line(key, value) for key, value in grid.items() if key not in keys]
            choices = [_choices(o) for o in [*given, *composer.parse(lines)]]
            if len(found) + math.prod(map(len, choices)) > MOST:
                raise Invalid("sweep", str(name), f"must have {MOST} trials at most")
            found += [(str(name), list(job)) for job in itertools.product(*choices)]
    return found


def _grids(part: Mapping[Any, Any]) -> Iterator[dict[Any, Any]]:
    """The part with each choice of its sets of overrides, in their order."""
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
    sets = [isinstance(v, Mapping) for v in value] if isinstance(value, list) else []
    if any(sets) and not all(sets):
        raise Invalid("sweep.parts", value, "a list of values, or of sets of overrides")
    return any(sets)


def _line(key: Any, value: Any) -> str:
    """An override as on the command line, from a part's entry; a list is a sweep."""
    if isinstance(value, Mapping):
        raise Invalid(f"sweep.parts: {key}", dict(value), "a value or a list of values")
    values = value if isinstance(value, list) else [value]
    return f"{key}={','.join('null' if v is None else str(v) for v in values)}"


def _choices(override: Override) -> list[str]:
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{key}={override.get_value_element_as_str()}"]
    if not override.is_discrete_sweep():
        raise Invalid(key, override.get_value_element_as_str(), "a comma list, choice() or range()")
    over = override.value()
    # shuffled, Hydra would list it whole
    if isinstance(over, RangeSweep) and [*itertools.islice(over.range(), MOST, MOST + 1)]:
        given = str(override.input_line).partition("=")[2]
        raise Invalid(key, given, f"must be {MOST} values at most")
    values = list(override.sweep_string_iterator())
    repeated = [v for v, count in Counter(values).items() if count > 1]
    if repeated:
        raise Invalid(key, ",".join(values), f"each value once; {repeated[0]} is repeated")
    return [f"{key}={value}" for value in values]
