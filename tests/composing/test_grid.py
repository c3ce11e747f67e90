"""The grids of a sweep: the same configs as Hydra's own, parts, and no repeated values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import DictConfig, OmegaConf, open_dict

from masksweep.strategies import Invalid
from masksweep.sweeps.cli.verify import experiments_with_claims
from masksweep.sweeps.composing import command_line, grid, hydra_internals
from masksweep.sweeps.composing.composer import Composer
from masksweep.sweeps.config.plan import PlannedTrial
from masksweep.sweeps.config.selection import select

# composing sets Hydra's version base, which must be reset for other tests
pytestmark = pytest.mark.usefixtures("hydra_restore_singletons")


class Sweep:
    """The config of a sweep itself, as Hydra composes it from some arguments."""

    def __init__(self, loader: ConfigLoaderImpl, config: DictConfig, chosen: DictConfig) -> None:
        self.loader, self.config = loader, config
        self.composer = Composer(loader, config, chosen)

    def named_jobs(self, arguments: list[str]) -> list[tuple[str, list[str]]]:
        return grid.jobs(self.composer, self.config, arguments)

    def jobs(self, arguments: list[str]) -> list[list[str]]:
        return [job for _, job in self.named_jobs(arguments)]


@pytest.fixture
def sweep() -> Iterator[Callable[..., Sweep]]:
    with ExitStack() as stack:
        yield lambda *arguments: Sweep(
            *stack.enter_context(hydra_internals.compose_sweep_config(None, arguments))
        )


def task(config: DictConfig) -> object:
    config = config.copy()
    with open_dict(config):
        del config["hydra"]
    return OmegaConf.to_container(config, resolve=True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["seed=0,1"],
        ["strategy=dense,weight_mask,projection", "pattern.sparsity=0.5,0.9"],
        ["pattern=random,columns", "pattern.sparsity=0.25", "held=zero,init"],
        ["model.hidden=[10],[20,20]", "targets=[hidden_1/*]", "optimizer=sgd,adam"],
        ["train.steps=range(1,4)", "optimizer.learning_rate=choice(1e-3,1e-2)"],
        ["+experiment=quickstart", "seed=3,4"],
        ["data=digits", "~held", "+held=init", "sweep.name='a b'"],
    ],
)
def test_configs_are_equal_to_hydras_own(sweep: Callable[..., Sweep], arguments: list[str]) -> None:
    composed_sweep = sweep(*arguments)
    jobs = composed_sweep.jobs(arguments)
    assert len(jobs) > 0
    for job in jobs:
        expected = composed_sweep.loader.load_sweep_config(composed_sweep.config, job)
        actual = composed_sweep.composer.compose(job)
        assert task(actual) == task(expected)
        assert actual.hydra.overrides.task == expected.hydra.overrides.task


def test_a_product_of_all_lists_in_order(sweep: Callable[..., Sweep]) -> None:
    arguments = ["strategy=dense,projection", "seed=0,1"]
    assert sweep(*arguments).jobs(arguments) == [
        ["strategy=dense", "seed=0"],
        ["strategy=dense", "seed=1"],
        ["strategy=projection", "seed=0"],
        ["strategy=projection", "seed=1"],
    ]


def test_parts_are_grids_of_their_own_and_the_command_line_goes_first(
    sweep: Callable[..., Sweep],
) -> None:
    parts = "sweep.parts={a:{strategy:[dense,projection],seed:[0,1]},b:{held:init,seed:7}}"
    composed_sweep = sweep(f"+{parts}".replace("+sweep.parts", "++sweep.parts"))
    assert composed_sweep.jobs([]) == [
        ["strategy=dense", "seed=0"],
        ["strategy=dense", "seed=1"],
        ["strategy=projection", "seed=0"],
        ["strategy=projection", "seed=1"],
        ["held=init", "seed=7"],
    ]
    assert composed_sweep.jobs(["seed=5"]) == [
        ["seed=5", "strategy=dense"],
        ["seed=5", "strategy=projection"],
        ["seed=5", "held=init"],
    ]


def test_a_list_of_sets_is_a_choice_among_them(sweep: Callable[..., Sweep]) -> None:
    what = "what:[{strategy:dense},{strategy:[projection,hard_mask],held:init}]"
    events = "events:[{},{train.switch_at:3}]"
    composed_sweep = sweep(f"++sweep.parts={{a:{{{what},{events},seed:[0]}}}}")
    assert composed_sweep.named_jobs([]) == [
        ("a", ["strategy=dense", "seed=0"]),
        ("a", ["strategy=dense", "train.switch_at=3", "seed=0"]),
        ("a", ["strategy=projection", "held=init", "seed=0"]),
        ("a", ["strategy=hard_mask", "held=init", "seed=0"]),
        ("a", ["strategy=projection", "held=init", "train.switch_at=3", "seed=0"]),
        ("a", ["strategy=hard_mask", "held=init", "train.switch_at=3", "seed=0"]),
    ]


def test_what_a_set_says_is_not_said_again(sweep: Callable[..., Sweep]) -> None:
    composed_sweep = sweep("++sweep.parts={a:{what:[{seed:1},{held:init}],seed:2}}")
    with pytest.raises(Invalid, match=r"seed=.*given once in a part"):
        composed_sweep.jobs([])


@pytest.mark.parametrize("arguments", [["seed=0,1,0"], ["pattern.sparsity=0.5,0.9,0.5"]])
def test_a_repeated_value_is_refused(sweep: Callable[..., Sweep], arguments: list[str]) -> None:
    with pytest.raises(Invalid, match="is repeated"):
        sweep(*arguments).jobs(arguments)


@pytest.mark.parametrize("parts", ["{a:1}", "{a:{seed:{b:1}}}"])
def test_parts_of_another_form_are_refused(sweep: Callable[..., Sweep], parts: str) -> None:
    composed_sweep = sweep(f"++sweep.parts={parts}")
    with pytest.raises(Invalid, match=r"sweep\.parts"):
        composed_sweep.jobs([])


EXPERIMENTS = sorted(p.stem for p in (Path(__file__).parents[2] / "conf/experiment").glob("*.yaml"))


@cache
def planned(name: str) -> Sequence[PlannedTrial]:
    """The plan of an experiment."""
    return tuple(command_line.compose_plan([f"+experiment={name}"]))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_trial_of_every_experiment_validates(name: str) -> None:
    trials = planned(name)
    assert len({p.trial.id for p in trials}) == len(trials) > 0
    assert {p.trial.sweep.name for p in trials} == {name}


@pytest.mark.parametrize("name", experiments_with_claims())
def test_every_claim_is_about_some_trials(name: str) -> None:
    trials = planned(name)
    parts = {p.trial.id: p.parts for p in trials}
    claims = trials[0].trial.sweep.claims
    assert claims
    for claim in claims.values():
        for selection in filter(None, (claim.trials, claim.minus)):
            chosen = select(selection, trials, parts)
            assert chosen, f"{name}: {claim.says}"
            assert len({p.trial.seed for p in chosen}) >= claim.seeds


def test_the_four_questions_together_are_each_of_them() -> None:
    questions = ("selective_zero", "sparse_variable", "constant_weight", "freeze_output")
    together = planned("seed_questions")
    apart = [p for name in questions for p in planned(name)]
    assert [p.trial.id for p in together] == [p.trial.id for p in apart]
    names = list(together[0].trial.sweep.claims)
    assert names == [n for q in questions for n in planned(q)[0].trial.sweep.claims]
