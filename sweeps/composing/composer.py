"""Composes the jobs of a sweep: what Hydra would make of each, without making it each time."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import suppress
from functools import cache
from typing import Any, cast

from hydra.core.default_element import DefaultsTreeNode, GroupDefault, InputDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from masksweep.strategies.base import Invalid
from masksweep.sweeps.composing.hydra_internals import apply_overrides

Lines = tuple[str, ...]
"""Overrides as on the command line."""


class Composer:
    """Each choice of groups is composed by Hydra once; values are merged in by Hydra's own rule."""

    def __init__(self, loader: Any, config: DictConfig) -> None:
        """`config` is the sweep's own, that Hydra composed without the jobs' overrides."""
        self._loader, self._config = loader, config
        self._is_group = cache(loader.repository.group_exists)
        self._parser = OverridesParser.create(config_loader=loader)
        self._parsed: dict[str, Override] = {}
        self._composed: dict[Lines, DictConfig] = {}
        self._sections: dict[tuple[Lines, str, Lines], dict[str, Any] | None] = {}

    def parse(self, lines: Sequence[str]) -> list[Override]:
        """What the overrides say; each is read once."""
        if new := [line for line in lines if line not in self._parsed]:
            self._parsed |= zip(new, self._parser.parse_overrides(new), strict=True)
        return [self._parsed[line] for line in lines]

    def compose(self, job: Sequence[str]) -> DictConfig:
        """The config of one job, equal to Hydra's own."""
        chosen, values = self._split(job)
        config = copy.deepcopy(self._choice(chosen))
        apply_overrides(self.parse(values), config)
        with open_dict(config.hydra):
            config.hydra.overrides.task = list(job)
        return config

    def resolve(self, jobs: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
        """The configs of all jobs as plain data, without Hydra's own.

        They say the same as those of `compose`, at a hundredth of the time and memory: where
        nothing is interpolated, a section follows from the overrides that name it alone, and all
        jobs that say the same of it share it. Raises `Invalid` where a value is missing.
        """
        split = [self._split(job) for job in jobs]
        apart = self._apart({chosen for chosen, _ in split})
        return [
            self._put_together(chosen, values, apart) or plain(self.compose(job))
            for job, (chosen, values) in zip(jobs, split, strict=True)
        ]

    def _put_together(
        self, chosen: Lines, values: Lines, apart: Mapping[str, str]
    ) -> dict[str, Any] | None:
        """A job's config by sections; None if one of them takes the whole config to make."""
        common = tuple(line for line in chosen if line not in apart)
        source = {apart[line]: (*common, line) for line in chosen if line in apart}
        named: dict[str, Lines] = dict.fromkeys(self._choice(common), ())
        for line in values:
            key = self._parsed[line].key_or_group.partition(".")[0]
            named[key] = (*named.get(key, ()), line)
        if named.pop("hydra"):
            return None
        found: dict[str, Any] = {}
        for key, lines in named.items():
            section = self._section(source.get(key, common), key, lines)
            if section is None:
                return None
            found |= section
        return found

    def _section(self, chosen: Lines, key: str, values: Lines) -> dict[str, Any] | None:
        """One section under its key, made once; None if it takes the whole config to make."""
        at = chosen, key, values
        if at not in self._sections:
            overrides = self.parse(values)
            part = OmegaConf.masked_copy(self._choice(chosen), key)
            OmegaConf.set_struct(part, True)
            said = [OmegaConf.to_container(part), *(o.value() for o in overrides)]
            self._sections[at] = None
            if "${" not in repr(said):
                # what goes wrong here goes wrong in the whole config too, and is said there
                with suppress(HydraException, OmegaConfBaseException):
                    apply_overrides(overrides, part)
                    made = OmegaConf.to_container(part, throw_on_missing=True)
                    self._sections[at] = cast(dict[str, Any], made)
        return self._sections[at]

    def _apart(self, choices: Set[Lines]) -> dict[str, str]:
        """By line, the section that a choice fills, if each fills one of its own and no more.

        The sections of many choices can then be composed once for each line, not for each product
        of lines. Empty where that does not hold, or saves nothing.
        """
        lines = dict.fromkeys(line for chosen in choices for line in chosen)
        common = tuple(line for line in lines if all(line in chosen for chosen in choices))
        if len(choices) <= 2 * len(lines):
            return {}
        before = self._defaults(common)
        found = {}
        for line in lines:
            if line not in common:
                section = _filled(before, self._defaults((*common, line)), self._parsed[line])
                if section is None:
                    return {}
                found[line] = section
        own = [[found[line] for line in chosen if line in found] for chosen in choices]
        return found if all(len(set(sections)) == len(sections) for sections in own) else {}

    def _defaults(self, chosen: Lines) -> list[InputDefault]:
        """Every entry of the defaults list that Hydra comes to, with those it leaves out."""
        hydras = list(self._config.hydra.overrides.hydra)
        name = self._config.hydra.job.config_name
        found = self._loader.compute_defaults_list(name, [*hydras, *chosen], RunMode.RUN)
        return list(_entries(found.defaults_tree))

    def _choice(self, chosen: Lines) -> DictConfig:
        """The config of a choice of groups, from Hydra. Not to be changed."""
        if chosen not in self._composed:
            self._composed[chosen] = self._loader.load_sweep_config(self._config, list(chosen))
        return self._composed[chosen]

    def _split(self, job: Sequence[str]) -> tuple[Lines, Lines]:
        """A job's overrides by what they change: the choice of groups, or values.

        Raises `Invalid` for a choice by path, which may lead out of the folder of the configs.
        """
        chosen: list[str] = []
        values: list[str] = []
        for line, override in zip(job, self.parse(job), strict=True):
            mapping = isinstance(override.value(), dict)  # Hydra merges it into the group's section
            group = not mapping and self._is_group(override.key_or_group)
            if group and ".." in re.split(r"[^.\w]+", str(override.value())):
                raise Invalid(override.key_or_group, override.value(), "a config's name, no path")
            (chosen if group else values).append(line)
        return tuple(chosen), tuple(values)


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


def _entries(tree: DefaultsTreeNode) -> Iterator[InputDefault]:
    yield tree.node
    for child in tree.children or ():
        if isinstance(child, DefaultsTreeNode):
            yield from _entries(child)
        else:
            yield child


def _filled(
    before: Sequence[InputDefault], after: Sequence[InputDefault], choice: Override
) -> str | None:
    """The section that a choice fills, if it does no more than exchange one entry for another."""
    same_key = [
        (old, new)
        for old, new in zip(before, after, strict=False)
        if isinstance(new, GroupDefault) and new.get_override_key() == choice.get_key_element()
    ]
    changed = [(old, new) for old, new in zip(before, after, strict=False) if old != new]
    if len(before) != len(after) or len(same_key) != 1 or changed not in ([], same_key):
        return None
    packages = {entry.get_final_package() for entry in same_key[0]}
    package = packages.pop()
    return package if package and "." not in package and not packages else None
