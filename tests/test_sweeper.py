"""The sweeper: the same configs as Hydra's own, in parts, and nothing twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from strategies import Invalid
from sweeps import launcher, plan
from sweeps.sweeper import MaskSweeper

# composing sets Hydra's version base, which other tests must not see
pytestmark = pytest.mark.usefixtures("hydra_restore_singletons")


@pytest.fixture
def hydra() -> Iterator[Hydra]:
    launcher.register()
    GlobalHydra.instance().clear()
    yield Hydra.create_main_hydra2("masksweep", create_config_search_path("pkg://conf"))
    GlobalHydra.instance().clear()


def sweeper(hydra: Hydra, *arguments: str) -> MaskSweeper:
    config = hydra.compose_config("config", list(arguments), run_mode=RunMode.MULTIRUN)
    made = Plugins.instance().instantiate_sweeper(
        config=config,
        hydra_context=HydraContext(hydra.config_loader, Callbacks(config)),
        task_function=lambda config: None,
    )
    assert isinstance(made, MaskSweeper)
    return made


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
def test_configs_are_equal_to_hydras_own(hydra: Hydra, arguments: list[str]) -> None:
    made = sweeper(hydra, *arguments)
    jobs = made.jobs(arguments)
    assert len(jobs) > 0
    for job in jobs:
        theirs = hydra.config_loader.load_sweep_config(made._config, job)
        ours = made.composer.compose(job)
        assert task(ours) == task(theirs)
        assert ours.hydra.overrides.task == theirs.hydra.overrides.task


def test_a_product_of_all_lists_in_order(hydra: Hydra) -> None:
    arguments = ["strategy=dense,projection", "seed=0,1"]
    assert sweeper(hydra, *arguments).jobs(arguments) == [
        ["strategy=dense", "seed=0"],
        ["strategy=dense", "seed=1"],
        ["strategy=projection", "seed=0"],
        ["strategy=projection", "seed=1"],
    ]


def test_parts_are_grids_of_their_own_and_the_command_line_goes_first(hydra: Hydra) -> None:
    parts = "sweep.parts={a:{strategy:[dense,projection],seed:[0,1]},b:{held:init,seed:7}}"
    made = sweeper(hydra, f"+{parts}".replace("+sweep.parts", "++sweep.parts"))
    assert made.jobs([]) == [
        ["strategy=dense", "seed=0"],
        ["strategy=dense", "seed=1"],
        ["strategy=projection", "seed=0"],
        ["strategy=projection", "seed=1"],
        ["held=init", "seed=7"],
    ]
    assert made.jobs(["seed=5"]) == [
        ["seed=5", "strategy=dense"],
        ["seed=5", "strategy=projection"],
        ["seed=5", "held=init"],
    ]


def test_a_list_of_sets_is_a_choice_among_them(hydra: Hydra) -> None:
    what = "what:[{strategy:dense},{strategy:[projection,hard_mask],held:init}]"
    events = "events:[{},{train.switch_at:3}]"
    made = sweeper(hydra, f"++sweep.parts={{a:{{{what},{events},seed:[0]}}}}")
    assert made.named_jobs([]) == [
        ("a", ["strategy=dense", "seed=0"]),
        ("a", ["strategy=dense", "train.switch_at=3", "seed=0"]),
        ("a", ["strategy=projection", "held=init", "seed=0"]),
        ("a", ["strategy=hard_mask", "held=init", "seed=0"]),
        ("a", ["strategy=projection", "held=init", "train.switch_at=3", "seed=0"]),
        ("a", ["strategy=hard_mask", "held=init", "train.switch_at=3", "seed=0"]),
    ]


def test_what_a_set_says_is_not_said_again(hydra: Hydra) -> None:
    made = sweeper(hydra, "++sweep.parts={a:{what:[{seed:1},{held:init}],seed:2}}")
    with pytest.raises(Invalid, match=r"seed=.*given once in a part"):
        made.jobs([])


@pytest.mark.parametrize("arguments", [["seed=0,1,0"], ["pattern.sparsity=0.5,0.9,0.5"]])
def test_a_repeated_value_is_refused(hydra: Hydra, arguments: list[str]) -> None:
    with pytest.raises(Invalid, match="is repeated"):
        sweeper(hydra, *arguments).jobs(arguments)


@pytest.mark.parametrize("parts", ["{a:1}", "{a:{seed:{b:1}}}"])
def test_parts_of_another_form_are_refused(hydra: Hydra, parts: str) -> None:
    made = sweeper(hydra, f"++sweep.parts={parts}")
    with pytest.raises(Invalid, match=r"sweep\.parts"):
        made.jobs([])


def test_a_command_gets_the_same_jobs_from_any_sweeper(hydra: Hydra) -> None:
    made, batches = sweeper(hydra), []

    def launch(jobs: Sequence[launcher.Composed]) -> list[JobReturn]:
        batches.append([(list(job.overrides), job.values) for job in jobs])
        return []

    with launcher.taking_over(launch):
        made.sweep(["seed=3,4", "strategy=dense"])
        made._launcher.launch([["seed=3", "strategy=dense"], ["seed=4", "strategy=dense"]], 0)
    ours, others = batches
    assert len(ours) == 2
    assert ours == others


EXPERIMENTS = sorted(p.stem for p in (Path(__file__).parents[1] / "conf/experiment").glob("*.yaml"))


# the four questions together take longest, and test_verify compares their trials with those apart
EACH_APART = [name for name in EXPERIMENTS if name != "seed_questions"]


@pytest.mark.parametrize(
    "name", [*EACH_APART, pytest.param("seed_questions", marks=pytest.mark.slow)]
)
def test_every_trial_of_every_experiment_validates(hydra: Hydra, name: str) -> None:
    arguments = [f"+experiment={name}"]
    made = sweeper(hydra, *arguments)
    jobs = made.jobs(arguments)
    resolved = zip(jobs, made.composer.resolve(jobs), strict=True)
    composed = [launcher.Composed(job, values) for job, values in resolved]
    planned = plan.plan(composed, plan.trials_of(composed))
    assert len({p.trial.id for p in planned}) == len(planned) > 0
    assert {p.trial.sweep.name for p in planned} == {name}
