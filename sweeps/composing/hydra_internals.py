"""All uses of Hydra's private interfaces, in one place: another version may change them."""

from __future__ import annotations

import argparse
import copy
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.hydra import Hydra
from hydra._internal.utils import _run_hydra, create_config_search_path, get_args_parser
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.composing import outside

CONFIG_PACKAGE = "pkg://masksweep.conf"
apply_overrides = ConfigLoaderImpl._apply_overrides_to_config
"""Called with `(overrides, config)`: Hydra's function that merges values into a config."""


def swept_values(override: Any) -> Iterator[Any]:
    """Returns the values that an override sweeps over."""
    return map(override._convert_value, override.sweep_iterator())


def is_choice(is_group: Callable[[str], bool], override: Override) -> bool:
    """Whether an override chooses a config of a group. A mapping is merged into the section."""
    return not isinstance(override.value(), dict) and is_group(override.key_or_group)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parses a command line into Hydra's flags and the overrides.

    Raises:
        Invalid: The command line cannot be parsed. The key is `arguments`.
    """

    def refuse(message: str) -> NoReturn:
        raise Invalid("arguments", " ".join(arguments), f"{message}; see masksweep --help")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]  # argparse would print all options
    return parser.parse_args(list(arguments))


def only_prints(options: argparse.Namespace) -> bool:
    """Whether the flags only ask Hydra to print something, as `--help` and `--cfg job` do."""
    flags = (options.help, options.hydra_help, options.shell_completion, options.info, options.cfg)
    return any(flags) or bool(options.resolve)


def print_answer(options: argparse.Namespace) -> None:
    """Lets Hydra print what the flags ask for."""
    # without this setting Hydra prints an error and ends the process
    os.environ["HYDRA_FULL_ERROR"] = "1"
    version.setbase("1.3")
    outside.add_to_search_path(create_config_search_path(CONFIG_PACKAGE))
    _run_hydra(options, get_args_parser(), _task, CONFIG_PACKAGE, "config")


def _task(config: object) -> None:
    raise AssertionError("it only answers")


class SharedRepository(CachingConfigRepository):
    """Reads each config once for all compositions.

    Hydra makes a `CachingConfigRepository` for each composition, of a copy of the loader's
    repository. Here the copies share what was read: to read YAML takes a third of the time of
    composing. Each composition gets configs of its own, because Hydra merges values into them.
    """

    def __deepcopy__(self, _: dict[int, Any]) -> SharedRepository:
        return copy.copy(self)

    def load_config(self, config_path: str) -> Any:
        """Returns a copy of a config, with its header and its defaults list."""
        return copy.deepcopy(super().load_config(config_path))

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        """Changes the search path of this copy only, as `hydra.searchpath` in a config does."""
        self.delegate, self.cache = copy.deepcopy(self.delegate), {}
        super().initialize_sources(config_search_path)


@contextmanager
def compose_sweep_config(
    config_dir: str | None, overrides: Sequence[str], configs: str = CONFIG_PACKAGE
) -> Iterator[tuple[Any, DictConfig, DictConfig]]:
    """Sets up Hydra while entered, and composes the config of the sweep itself.

    The config is composed from the choices of groups, and then the values are merged into a copy of
    it: most jobs need the config without the values too, and composing takes the most time.

    Args:
        config_dir: A folder with further configs, or None.
        overrides: The overrides of the command line.
        configs: Folder or package of the main configs; another one is for tests.

    Yields:
        Hydra's config loader, the config without the overrides that sweep over values, and the same
        config without the overrides that set a value.
    """
    version.setbase("1.3")
    search_path = create_config_search_path(configs)
    outside.add_to_search_path(search_path)
    if config_dir is not None:
        anchor = SearchPathQuery(provider="schema")
        search_path.prepend("command-line", f"file://{os.path.abspath(config_dir)}", anchor)  # noqa: PTH100
    GlobalHydra.instance().clear()
    try:
        hydra = Hydra.create_main_hydra2("masksweep", search_path)
        loader: Any = hydra.config_loader
        loader.repository = SharedRepository(loader.repository)
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))
        is_group = loader.repository.group_exists
        values = [o for o in parsed if not o.is_sweep_override() and not is_choice(is_group, o)]
        chosen = hydra.compose_config(
            "config",
            [str(o.input_line) for o in parsed if o not in values],
            run_mode=RunMode.MULTIRUN,
            with_log_configuration=False,
        )
        config = copy.deepcopy(chosen)
        apply_overrides(values, config)
        with open_dict(config.hydra):
            config.hydra.overrides.task = list(overrides)
        yield loader, config, chosen
    finally:
        GlobalHydra.instance().clear()
