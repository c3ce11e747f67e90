"""A generic Hydra launcher on Ray: any config, any task function.

A command may take its jobs over (`taking_over`), to validate, record and run them itself.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.plugins.plugin import Plugin
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.basecontainer import BaseContainer
from omegaconf.errors import MissingMandatoryValue

from masksweep.strategies.base import Invalid
from masksweep.sweeps.config.composed import Composed
from masksweep.sweeps.launch import engine
from masksweep.sweeps.launch.cluster import Spec, cluster
from masksweep.sweeps.launch.job import Emit, Failure, Job, Watcher

MODULE = "hydra_plugins.masksweep"


def plain(config: DictConfig) -> dict[str, Any]:
    """A config as plain data, without Hydra's own. Raises `Invalid` where a value is missing."""
    try:
        return {
            str(key): OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
            if OmegaConf.is_config(node := config[key])
            else node
            for key in config
            if key != "hydra"
        }
    except MissingMandatoryValue as error:
        raise Invalid(str(error.full_key), "???", "must be given") from error


TakeOver = Callable[[Sequence[Composed]], Sequence[JobReturn]]
_taken_over: ContextVar[TakeOver | None] = ContextVar("taken_over", default=None)


@contextmanager
def taking_over(launch: TakeOver) -> Iterator[None]:
    """Jobs that reach the launcher in this context go to `launch` instead of a task function."""
    token = _taken_over.set(launch)
    try:
        yield
    finally:
        _taken_over.reset(token)


def taken_over() -> TakeOver | None:
    """The command that jobs go to, if any."""
    return _taken_over.get()


class RayLauncher(Launcher):
    """Runs Hydra's jobs on Ray workers that live as long as the sweep."""

    def __init__(
        self, address: str | None = None, num_cpus: float = 1, num_gpus: float = 0
    ) -> None:
        self._address = address
        self._spec = Spec(num_cpus=num_cpus, num_gpus=num_gpus)

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self._context, self._task, self._config = hydra_context, task_function, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        load = self._context.config_loader.load_sweep_config
        configs = [load(self._config, list(o)) for o in job_overrides]
        if take_over := taken_over():
            jobs = zip(job_overrides, configs, strict=True)
            return take_over([Composed(o, plain(c), c) for o, c in jobs])
        return self.launch_composed(configs, initial_job_idx)

    def launch_composed(self, configs: Sequence[DictConfig], first: int = 0) -> Sequence[JobReturn]:
        """Run jobs that are composed already, in order; `first` is the first one's number."""
        setup_globals()
        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        Path(self._config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        for number, config in enumerate(configs, start=first):
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = number
        returned: dict[str, JobReturn] = {}

        class Returned(Watcher):
            def ended(self, key: str, result: Any) -> None:
                if isinstance(result, Failure):
                    failed = RuntimeError(result.traceback)
                    result = JobReturn(status=JobStatus.FAILED, _return_value=failed)
                returned[key] = result

        work = _HydraJob(
            self._context,
            self._task,
            Singleton.get_state(),
            BaseContainer._resolvers,
            str(Path.cwd()),
        )
        with cluster(self._address):
            engine.run(
                [Job(str(i), config, self._spec) for i, config in enumerate(configs)],
                work,
                Returned(),
                joined=self._address is not None,
            )
        return [returned[str(i)] for i in range(len(configs))]


@dataclass(frozen=True)
class _HydraJob:
    """What a worker does for a foreign task function: the same as Hydra's own launcher."""

    context: HydraContext
    task: TaskFunction
    singletons: Any
    resolvers: Any
    folder: str
    """The driver's current folder, which relative paths of the config start from."""

    def setup(self, spec: Spec) -> None:
        register()
        if Path(self.folder).is_dir():
            os.chdir(self.folder)
        Singleton.set_state(self.singletons)
        setup_globals()
        BaseContainer._resolvers |= self.resolvers

    def run(self, payload: DictConfig, emit: Emit) -> JobReturn:
        return run_job(
            hydra_context=self.context,
            task_function=self.task,
            config=payload,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )


def register() -> None:
    """Make the launcher and the sweeper known to Hydra as `masksweep`.

    Hydra takes only plugins whose module is under `hydra_plugins`. A real package of that name
    works for wheels but not for editable installs, so the module is made here.
    """
    from masksweep.sweeps.composing.sweeper import MaskSweeper

    plugins = Plugins.instance()
    if MODULE not in sys.modules:
        if "hydra_plugins" not in sys.modules:
            parent = types.ModuleType("hydra_plugins")
            parent.__path__ = []
            sys.modules["hydra_plugins"] = parent
        sys.modules[MODULE] = types.ModuleType(MODULE)
    group: type[Plugin]
    for group, kind, settings in (
        (RayLauncher, "launcher", {"address": None, "num_cpus": 1, "num_gpus": 0}),
        (MaskSweeper, "sweeper", {}),
    ):
        group.__module__ = MODULE
        setattr(sys.modules[MODULE], group.__name__, group)
        plugins.register(group)
        node = OmegaConf.create({"_target_": f"{MODULE}.{group.__name__}", **settings})
        ConfigStore.instance().store(group=f"hydra/{kind}", name="masksweep", node=node)
