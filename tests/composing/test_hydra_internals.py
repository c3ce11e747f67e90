"""Hydra's private interfaces work as `hydra_internals` expects."""

from __future__ import annotations

import copy

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from masksweep.strategies import Invalid
from masksweep.sweeps.composing import hydra_internals as internals


def test_flags_and_overrides_of_a_command_line() -> None:
    options = internals.parse(["--cfg", "job", "seed=1", "-m"])
    assert (options.cfg, options.multirun, options.overrides) == ("job", True, ["seed=1"])
    assert internals.only_prints(options)
    assert not internals.only_prints(internals.parse(["seed=1"]))
    with pytest.raises(Invalid, match=r"^arguments=--nothing: "):
        internals.parse(["--nothing"])


def test_values_that_are_swept_over() -> None:
    parsed = OverridesParser.create().parse_overrides(["a=1,2", "b=range(1,4)", "c='x',null"])
    assert [list(internals.swept_values(o)) for o in parsed] == [[1, 2], [1, 2, 3], ["x", None]]


def test_a_config_and_values_that_are_merged_into_it() -> None:
    with internals.compose_sweep_config(None, ["seed=3"]) as (loader, config, _):
        assert config.seed == 3
        assert "mlp" in loader.get_group_options("model")
        merged = OmegaConf.create(OmegaConf.to_container(config))
        overrides = OverridesParser.create().parse_overrides(["seed=4", "+new=5"])
        internals.apply_overrides(overrides, merged)
        assert (merged.seed, merged.new, config.seed) == (4, 5, 3)


def test_compositions_that_share_what_was_read_are_those_of_hydra() -> None:
    """Also if they come again: no composition changes what the next one gets."""
    choices = [
        ["strategy=projection", "pattern=columns"],
        ["+experiment=quickstart"],
        ["model=cnn1d", "optimizer=muon", "pattern.sparsity=0.5"],
        ["~held", "+held=init"],
    ]
    with internals.compose_sweep_config(None, []) as (loader, config, _):
        plain = copy.copy(loader)
        plain.repository = loader.repository.delegate
        assert not isinstance(plain.repository, internals.SharedRepository)
        expected = [OmegaConf.to_yaml(plain.load_sweep_config(config, c)) for c in choices]
        reads = []
        read = loader.repository.delegate.load_config
        loader.repository.delegate.load_config = lambda config_path: (
            reads.append(config_path) or read(config_path=config_path)
        )
        for _ in range(2):
            shared = [OmegaConf.to_yaml(loader.load_sweep_config(config, c)) for c in choices]
            assert shared == expected
    assert sorted(reads) == sorted(set(reads))
    assert "experiment/quickstart" in reads
