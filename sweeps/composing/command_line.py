"""Composes the configs that a command line asks for. Each error is one line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from masksweep.strategies.errors import Invalid

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from masksweep.sweeps.config.composed import ComposedJob
    from masksweep.sweeps.config.plan import PlannedTrial

RUN_FLAGS = ("--rerun",)
"""Masksweep's own flags of `run`. They are not passed to Hydra."""
HYDRA_KEY = re.compile(r"[+~]*hydra\b")
"""The key of an override of Hydra's own config."""
NO_NAME = re.compile(r"[^=.]*=(.*,)?(null|true|false|[-+\d.]+)(,.*)?")
"""A choice of a group by something that Hydra reads as another value than a text."""
# argparse accepts any unique prefix of a flag
PICKLE_FLAG = re.compile(r"--e[a-z-]*(=|$)")
"""Hydra's flag `--experimental-rerun`, which loads a pickle file."""


def compose(arguments: Sequence[str]) -> list[ComposedJob]:
    """Composes the jobs that the arguments ask for.

    Args:
        arguments: Overrides as `KEY=VALUE`, and flags of Hydra.

    Returns:
        The jobs. The list is empty if Hydra printed something instead, as for `--help` or `--cfg`.

    Raises:
        Invalid: A config cannot be composed, or an argument is not allowed.
    """
    for argument in arguments:
        key, _, value = argument.partition("=")
        if PICKLE_FLAG.match(argument):
            raise Invalid(key, value, "not offered: --experimental-rerun would load a pickle")
        if argument.startswith("="):
            raise Invalid("arguments", argument, "must be KEY=VALUE")
        if HYDRA_KEY.match(key):
            raise Invalid(key, value, "Hydra's own config is fixed here")
    from masksweep.sweeps.composing import hydra_internals, places, untrusted

    options = hydra_internals.parse(arguments)
    config_folder = untrusted.check(options)
    try:
        if hydra_internals.only_prints(options):
            hydra_internals.print_answer(options)
            return []
        jobs = _compose_jobs(options.config_dir, options.overrides)
    except (Invalid, BrokenPipeError):
        raise
    except Exception as error:
        # the config cannot be composed: Hydra, OmegaConf and YAML raise different errors
        raise explain(error, options.overrides) from error
    if not jobs:
        raise Invalid("overrides", "", "must describe at least one trial")
    if config_folder:
        places.check(config_folder, [job.values for job in jobs])
    return jobs


def _compose_jobs(config_dir: str | None, overrides: Sequence[str]) -> list[ComposedJob]:
    """Composes all jobs of a sweep. Raises the errors of Hydra and OmegaConf."""
    from masksweep.sweeps.composing import grid, hydra_internals
    from masksweep.sweeps.composing.composer import Composer
    from masksweep.sweeps.config.composed import ComposedJob

    with hydra_internals.compose_sweep_config(config_dir, overrides) as sweep_config:
        loader, config, chosen = sweep_config
        composer = Composer(loader, config, chosen)
        named_jobs = grid.jobs(composer, config, list(config.hydra.overrides.task))
        values = composer.resolve([job for _, job in named_jobs])
    return [ComposedJob(job, v, part) for (part, job), v in zip(named_jobs, values, strict=True)]


def compose_plan(arguments: Sequence[str]) -> list[PlannedTrial]:
    """Composes and checks the trials that the arguments ask for.

    Returns:
        The trials. The list is empty if Hydra printed something instead.

    Raises:
        Invalid: As in `compose`, or a trial is not valid.
    """
    from masksweep.sweeps.composing import start_runs
    from masksweep.sweeps.config.plan import parse_trials, plan

    jobs = start_runs.fetch(compose(arguments))
    return plan(jobs, parse_trials(jobs)) if jobs else []


def explain(error: Exception, overrides: Sequence[str]) -> Invalid:
    """Turns an error of Hydra into an `Invalid` with the key, the value and what is allowed.

    Args:
        error: The error of Hydra, OmegaConf or YAML.
        overrides: All overrides of the command line, to find the one that is to blame.
    """
    from hydra.errors import MissingConfigException, OverrideParseException

    from masksweep.sweeps.components.groups import GROUPS

    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        if not error.options:
            return Invalid("config", error.missing_cfg_file, "no such config")
        return Invalid(group, name, f"unknown; one of {', '.join(error.options)}")
    if match := re.search(r"Could not override '([^']*)'", text):
        key = match.group(1)
        value = next((o.partition("=")[2] for o in overrides if o.split("=")[0] == key), "")
        return Invalid(key, value, _unknown_key_message(key, value, overrides))
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        if "=" not in error.override:
            return Invalid("arguments", error.override, "must be KEY=VALUE")
        quoted = f"""quote it, as {key}='"..."'"""
        allowed = quoted if "Lexer" in text else text.splitlines()[0]
        return Invalid(key, value, f"not an override that Hydra reads: {allowed}")
    message = " ".join(text.split()) or type(error).__name__
    if error.__cause__ is not None:
        message += f": {' '.join(str(error.__cause__).split())}"
    suspects = [o for o in overrides if o in text]
    if "group override must be" in text:  # Hydra does not name the override
        groups = {o: o.partition("=")[0].lstrip("+") for o in overrides if NO_NAME.fullmatch(o)}
        suspects = [o for o, group in groups.items() if group in (*GROUPS, "experiment")]
        if suspects and (group := groups[suspects[0]]) in GROUPS:
            message = f"must be one of {', '.join(GROUPS[group])}"
    if "Cannot convert sweep" in text:  # not here either
        suspects, message = (
            [o for o in overrides if "interval(" in o],
            "a comma list, choice() or range()",
        )
    if text.startswith("range()"):
        suspects = [o for o in overrides if "range(" in o]
    key, _, value = (suspects or ["config"])[0].partition("=")
    return Invalid(key, value, message[:300])


def _unknown_key_message(key: str, value: str, overrides: Sequence[str]) -> str:
    """Returns a message for an unknown key, with the known keys of the chosen option.

    If several options of a group are swept over, the key may be unknown to some of them only.
    """
    from omegaconf import DictConfig, OmegaConf

    if key.startswith("sweep.parts"):
        return "parts are added, as +sweep.parts.NAME.KEY=[...]"
    parent, _, name = key.rpartition(".")
    chosen = next((v for k, _, v in (o.partition("=") for o in overrides) if k == parent), "")
    lacking: list[str] = []
    message = ""
    options = chosen.split(",")
    for option in options:
        config = _compose_default([f"{parent}={option}"] if option else [])
        node = OmegaConf.select(config, parent) if parent else config
        if not isinstance(node, DictConfig):
            return f"unknown key; there is no {parent}"
        if name not in node:
            lacking.append(option)
            keys = ", ".join(str(k) for k in node if k not in ("hydra", "name"))
            message = f"unknown key; one of {keys}" if keys else "unknown key; it has no settings"
            message += f" (of {parent}={option})" if option else ""
    if len(lacking) == len(options):
        starts = "; start.path and start.run name trained weights"
        return f"{message}{starts if key == 'model.weights' else ''}"
    if value.startswith("{"):
        inner = OmegaConf.select(config, key)
        keys = ", ".join(map(str, inner)) if isinstance(inner, DictConfig) else ""
        return f"has an unknown key; known: {keys or 'none'}; +{key}.KEY=VALUE adds one"
    suffix = f" ({', '.join(lacking)})" if lacking else ""
    return f"not a key of every {parent} in this sweep{suffix}; give each its own in sweep.parts"


def _compose_default(overrides: Sequence[str]) -> DictConfig:
    """Composes the default config with these overrides, or without them if they are not valid."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.errors import HydraException

    with initialize_config_module("masksweep.conf", version_base="1.3"):
        try:
            return hydra_compose("config", list(overrides))
        except HydraException:
            return hydra_compose("config")
