"""Composed jobs equal those of Hydra, also in their errors, and are composed only once."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from masksweep.sweeps.composing import command_line, hydra_internals
from masksweep.sweeps.composing.composer import Composer, Overrides, to_plain_data
from masksweep.sweeps.config import composed, plan
from tests.support.selection import by_default

# composing sets Hydra's version base, which must be reset for other tests
pytestmark = pytest.mark.usefixtures("hydra_restore_singletons")


@pytest.fixture
def made() -> Iterator[Composer]:
    with hydra_internals.compose_sweep_config(None, []) as (loader, config, chosen):
        assert isinstance(loader, ConfigLoaderImpl)
        yield Composer(loader, config, chosen)


def outcome(make: Callable[[], Any]) -> Any:
    """The result as JSON, or the type and the messages of the error."""
    try:
        return json.dumps(make(), sort_keys=True)  # distinguishes 1, 1.0 and true
    except Exception as error:
        return type(error), str(error), str(error.__cause__)


def ours(made: Composer, job: Sequence[str]) -> Any:
    return outcome(lambda: made.resolve([job])[0])


def hydras(made: Composer, job: Sequence[str]) -> Any:
    load = made._loader.load_sweep_config
    return outcome(lambda: to_plain_data(load(made._config, list(job))))


GROUPS = [
    ["strategy=dense", "strategy=projection", "strategy=nope", "strategy=null"],
    ["pattern=columns", "pattern=file", "~pattern"],
    ["held=init", "~held", "+held=zero"],
    ["optimizer=sgd", "optimizer=[sgd]", "optimizer@x=sgd"],
    ["+experiment=quickstart"],
]
VALUES = r"""
seed=3 seed=null seed=1.5 seed=1 seed=1.0 seed='7' seed=true seed=abc seed=??? seed='?' seed=007
seed=[1,2] seed={a:1} seed.a=1 ~seed ~seed=0 ~seed=4 +seed=4 ++seed=4
seed=${train.epochs} seed=$\{nope\} seed='\${x}'
optimizer.learning_rate=1e-05 optimizer.learning_rate=${.use_ema} optimizer=7 ~optimizer.name
optimizer={learning_rate:2} +optimizer={new:2} ++optimizer={new:2}
pattern.path=a.npz pattern.sparsity=.25 pattern.sparsity='0.25'
targets=[a/*,b] targets=null targets={a:1} targets=a trainable=null
model.hidden=[3,[4]] model.hidden.0=5 model.hidden.9=5 model.hidden=${targets}
train.epochs={} train={epochs:7} train={foo:1} train=[1] train=null train=${x} +train.epochs=1
foo=1 +foo=1 foo.a=1 train.foo=1 ++train.foo.bar=[1,{a:???}]
~sweep ~sweep.name sweep.name= sweep.name='a,b' sweep.question='${seed}'
hydra.job.name=x hydra.nope=x tracking.uri=${hydra.job.name} launch=${tracking}
"""
JOBS = st.builds(
    lambda chosen, values: [*filter(None, chosen), *values],
    st.tuples(*(st.none() | st.sampled_from(lines) for lines in GROUPS)),
    st.lists(st.sampled_from(VALUES.split()), max_size=4),
)


def test_each_override_does_what_it_does_in_hydra(made: Composer) -> None:
    jobs: list[Overrides] = [(line,) for line in itertools.chain(*GROUPS, VALUES.split())]
    jobs.append(("optimizer.learning_rate=1", "optimizer={learning_rate:2}"))
    assert {job: ours(made, job) for job in jobs} == {job: hydras(made, job) for job in jobs}


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(job=JOBS.flatmap(st.permutations))
def test_any_overrides_do_what_they_do_in_hydra(made: Composer, job: list[str]) -> None:
    expected = hydras(made, job)
    assert ours(made, job) == expected
    assert outcome(lambda: to_plain_data(made.compose(job))) == expected


def product(**lists: Sequence[object]) -> list[list[str]]:
    lines = [[f"{key}={value}" for value in values] for key, values in lists.items()]
    return [list(job) for job in itertools.product(*lines)]


def test_many_choices_of_groups_are_composed_once_for_each_option(made: Composer) -> None:
    common = ["+experiment=quickstart", "optimizer.learning_rate=0.5", "pattern.sparsity=0.75"]
    lists = {
        "strategy": ["dense", "weight_mask", "projection", "hard_mask", "sparse_values"],
        "pattern": ["random", "columns", "rows"],
        "optimizer": ["adam", "sgd", "adamw"],
        "held": ["zero", "init"],
    }
    jobs = [[*common, *job] for job in product(**lists)]
    configs = made.resolve(jobs)
    assert len(made._composed) <= 1 + sum(map(len, lists.values()))
    for number in random.Random(0).sample(range(len(jobs)), 8):
        assert json.dumps(configs[number], sort_keys=True) == hydras(made, jobs[number])


# (the groups that are swept, the files that differ from the plain ones); the groups `a`, `b` and
# `c` have five options each
ENTANGLED = {
    "options for all": (
        "ab",
        {f"a/o{i}.yaml": f"# @package _global_\nb: {{over: {i}}}" for i in range(5)},
    ),
    "an option elsewhere": ("ac", {"a/o1.yaml": "# @package c\nover: true\n"}),
    "an option that chooses another": (
        "bc",
        {"b/o1.yaml": "defaults:\n  - override /a@_global_.a: o3\n  - _self_\nv: 1\n"},
    ),
    "an option with a part": (
        "ab",
        {"a/o1.yaml": "defaults:\n  - part\n  - _self_\n", "a/part.yaml": "p: 1"},
    ),
    "options with parts elsewhere": (
        "ab",
        {f"a/o{i}.yaml": f"defaults:\n  - /p@_global_.b: p{i}\n  - _self_\n" for i in range(5)}
        | {f"p/p{i}.yaml": f"p: {i}" for i in range(5)},
    ),
    "an option with a part at the end": (
        "bc",
        {"c/o1.yaml": "defaults:\n  - /p@_global_.b: p\n  - _self_\n", "p/p.yaml": "p: 1"},
    ),
    "a pair": ("ab", {"both/o1_o2.yaml": "p: 1", "more": "  - optional both: ${a}_${b}\n"}),
    "one section for two": ("ab", {f"b/o{i}.yaml": f"# @package a\nw: {i}" for i in range(5)}),
    "a value from another": ("ac", {"c/o1.yaml": "v: ${a.v}\n"}),
}


@pytest.mark.parametrize(
    "name", by_default(["options for all", "an option with a part", "a pair"], ENTANGLED)
)
def test_choices_that_act_on_each_other_are_composed_together(tmp_path: Path, name: str) -> None:
    swept, differing = ENTANGLED[name]
    files = {f"{group}/o{i}.yaml": f"v: {i}\n" for group in "abc" for i in range(5)} | differing
    defaults = "".join(f"  - {group}: o0\n" for group in "abc") + files.pop("more", "")
    files["config.yaml"] = f"defaults:\n  - _self_\n{defaults}x: 0\n"
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    with hydra_internals.compose_sweep_config(None, [], str(tmp_path)) as (loader, config, chosen):
        composer = Composer(loader, config, chosen)
    jobs = product(**{group: [f"o{i}" for i in range(5)] for group in swept})
    configs = composer.resolve(jobs)
    compared = [i for i, job in enumerate(jobs) if {line[-1] for line in job} <= {"1", "2"}]
    assert [json.dumps(configs[i], sort_keys=True) for i in compared] == [
        hydras(composer, jobs[i]) for i in compared
    ]


@pytest.mark.parametrize(
    ("arguments", "compositions"),
    [
        (["seed=0,1", "train.epochs=3", "held=init"], 1),
        (["seed=0,1", "strategy=dense,projection"], 3),
    ],
)
def test_a_choice_of_groups_is_composed_once(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], compositions: int
) -> None:
    """Also the one that the sweep itself has."""
    calls = []
    load = ConfigLoaderImpl.load_configuration

    def counted(*args: Any, **options: Any) -> Any:
        calls.append(options)
        return load(*args, **options)

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", counted)
    for job in command_line.compose(arguments):
        assert job.values["seed"] in (0, 1)
        assert job.values["train"]["epochs"] == (3 if compositions == 1 else 20)
    assert len(calls) == compositions


def test_a_group_without_a_choice_is_an_error_in_a_job(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.yaml").write_text("v: 1\n")
    (tmp_path / "config.yaml").write_text("defaults:\n  - a: ???\n  - _self_\nb: 0\n")
    with hydra_internals.compose_sweep_config(None, [], str(tmp_path)) as (loader, config, chosen):
        composer = Composer(loader, config, chosen)
        assert composer.resolve([["a=x", "b=1"]]) == [{"a": {"v": 1}, "b": 1}]
        assert "You must specify 'a'" in str(ours(composer, ["b=1"]))
        assert ours(composer, ["b=1"]) == hydras(composer, ["b=1"])


def test_a_thousand_trials_share_what_is_equal(made: Composer) -> None:
    jobs = product(strategy=["weight_mask", "projection"], seed=range(500))
    values = zip(jobs, made.resolve(jobs), strict=True)
    all_composed = [composed.ComposedJob(job, value) for job, value in values]
    planned = plan.plan(all_composed, plan.parse_trials(all_composed))
    assert len({p.trial.id for p in planned}) == 1000
    for section in ("strategy", "optimizer", "train"):
        assert len({id(job.values[section]) for job in all_composed[:500]}) == 1
    assert len({id(job.values["optimizer"]) for job in all_composed}) <= 2
