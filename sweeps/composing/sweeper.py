"""A Hydra sweeper: grids in parts, each choice of groups composed once."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.types import Override, RangeSweep
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from masksweep.strategies.base import Invalid
from masksweep.sweeps.composing.compose import Composer
from masksweep.sweeps.composing.launcher import RayLauncher, taken_over
from masksweep.sweeps.config.composed import Composed

MOST = 100_000
"""Jobs of a sweep: a line of a config can ask for more than a machine can hold."""


class MaskSweeper(Sweeper):
    """The product of all comma lists, once for each part of `sweep.parts`.

    A part is a grid of its own, `override: value or list of values`; what the command line says
    goes before it. A list of mappings, under any name, is a choice among sets of overrides.
    """

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        from hydra.core.plugins import Plugins

        self._config = config
        self._launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        assert isinstance(hydra_context.config_loader, ConfigLoaderImpl)
        self.composer = Composer(hydra_context.config_loader, config)

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Launch every job; the jobs' returns, in one batch."""
        named = self.named_jobs(arguments)
        jobs = [job for _, job in named]
        if take_over := taken_over():
            if not isinstance(self._launcher, RayLauncher):
                raise Invalid("hydra/launcher", type(self._launcher).__name__, "must be masksweep")
            resolved = zip(named, self.composer.resolve(jobs), strict=True)
            return [take_over([Composed(j, values, part=p) for (p, j), values in resolved])]
        folder = Path(self._config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self._config, folder / "multirun.yaml")
        if isinstance(self._launcher, RayLauncher):
            return [self._launcher.launch_composed([self.composer.compose(job) for job in jobs])]
        return [self._launcher.launch(jobs, initial_job_idx=0)]

    def jobs(self, arguments: Sequence[str]) -> list[list[str]]:
        """The overrides of each job.

        Raises `Invalid` where a value is given twice, or there are more than `MOST` jobs.
        """
        return [job for _, job in self.named_jobs(arguments)]

    def named_jobs(self, arguments: Sequence[str]) -> list[tuple[str, list[str]]]:
        """As `jobs`, each with the name of its part."""
        parts = OmegaConf.select(self._config, "sweep.parts") or {"": {}}
        named = OmegaConf.to_container(parts) if OmegaConf.is_config(parts) else parts
        if not isinstance(named, dict) or not all(isinstance(p, dict) for p in named.values()):
            raise Invalid("sweep.parts", named, "parts by name, each a mapping override -> values")
        given = self.composer.parse(arguments)
        keys = {o.get_key_element().lstrip("+~") for o in given}
        jobs: list[tuple[str, list[str]]] = []
        for name, part in named.items():
            for grid in _grids(part):
                lines = [_line(key, value) for key, value in grid.items() if key not in keys]
                choices = [_choices(o) for o in [*given, *self.composer.parse(lines)]]
                if len(jobs) + math.prod(map(len, choices)) > MOST:
                    raise Invalid("sweep", str(name), f"must have {MOST} trials at most")
                jobs += [(str(name), list(job)) for job in itertools.product(*choices)]
        return jobs


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
