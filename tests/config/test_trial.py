"""Tests of the schema: every yaml file is valid, and identities depend on the right settings."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from masksweep.strategies import PATTERNS, STRATEGIES, Invalid
from masksweep.strategies.held import HELD
from masksweep.sweeps.components.datasets import DATASETS
from masksweep.sweeps.components.models import MODELS
from masksweep.sweeps.components.optimizers import OPTIMIZERS
from masksweep.sweeps.config.trial import Trial, parse
from masksweep.sweeps.config.validation import as_section
from tests.support.data_files import write_csv, write_images, write_npz
from tests.support.trials import BASE, trial

# composing sets Hydra's version base, which must not affect other tests
pytestmark = pytest.mark.usefixtures("hydra_restore_singletons")

CONF = Path(__file__).parents[2] / "conf"
REGISTRIES: dict[str, dict[str, type]] = {
    "strategy": dict(STRATEGIES),
    "pattern": dict(PATTERNS),
    "held": dict(HELD),
    "model": dict(MODELS),
    "data": dict(DATASETS),
    "optimizer": dict(OPTIMIZERS),
}
OPTIONS = [(g, p.stem) for g in REGISTRIES for p in sorted((CONF / g).glob("*.yaml"))]
NEEDS = {
    ("pattern", "explicit"): ["pattern.mask=[[0,1]]"],
    ("pattern", "window"): ["pattern.kept=[0,1,0]"],
    ("pattern", "by_weight"): ["pattern.of={hidden_*: {name: block}, *: random}"],
    ("pattern", "edges"): ["pattern.pairs=[[0,1]]"],
    ("pattern", "complement"): ["pattern.of=band"],
    ("pattern", "intersection"): ["pattern.of=[band,{name: rows, sparsity: 0.2}]"],
    ("pattern", "union"): ["pattern.of=[band,columns]"],
    ("pattern", "file"): ["pattern.path=masks.npz"],
    ("held", "file"): ["held.path=masks.npz"],
    ("schedule", "given"): ["schedule.path=masks.npz"],
    ("model", "explicit"): ["model.kernels=[[[0,1]]]"],
    ("data", "npz"): ["data.path=data.npz"],
    ("data", "image_folder"): ["data.path=images"],
    ("data", "csv"): ["data.path=data.csv", "data.target=kind"],
    ("model", "keras_file"): ["model.path=net.keras"],
    ("data", "explicit"): ["data.x=[[0]]", "data.y=[[1]]"],
}
"""Overrides that an option requires."""


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_module("masksweep.conf", version_base="1.3"):
        config = OmegaConf.to_container(compose("config", list(overrides)), resolve=True)
    assert isinstance(config, dict)
    return {str(k): v for k, v in config.items()}


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_validates(
    group: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "masks.npz", a=np.zeros(1))
    write_npz(tmp_path / "data.npz")
    write_csv(tmp_path / "data.csv")
    write_images(tmp_path / "images")
    with zipfile.ZipFile(tmp_path / "net.keras", "w") as archive:
        archive.writestr("config.json", '{"class_name": "Sequential", "config": {}}')
    parsed = parse(composed(f"{group}={option}", *NEEDS.get((group, option), [])))
    assert (
        getattr(parsed, group).name
        == yaml.safe_load((CONF / group / f"{option}.yaml").read_text())["name"]
    )


@pytest.mark.parametrize("group", REGISTRIES)
def test_every_name_has_a_yaml_with_all_its_settings_at_their_defaults(group: str) -> None:
    for name, component in REGISTRIES[group].items():
        yaml_settings = yaml.safe_load((CONF / group / f"{name}.yaml").read_text())
        expected = {"name": name}
        for field in dataclasses.fields(component):
            default = field.default
            expected[field.name] = list(default) if isinstance(default, tuple) else default
        assert yaml_settings.keys() == expected.keys()
        assert {k: expected[k] for k, v in yaml_settings.items() if v != "???"} == {
            k: v for k, v in yaml_settings.items() if v != "???"
        }


def test_the_default_config_is_the_schema_with_its_defaults() -> None:
    parsed = parse(composed())
    assert parsed == Trial(**{group: getattr(parsed, group) for group in REGISTRIES})


@pytest.mark.parametrize(
    "sections",
    [
        {"strategy": "projection"},
        {"strategy": {"name": "weight_mask", "form": "product"}},
        {"pattern": {"name": "random", "sparsity": 0.6}},
        {"held": "init"},
        {"model": {"name": "mlp", "hidden": [12, 9]}},
        {"data": "mnist1d"},
        {"optimizer": {"name": "adam", "learning_rate": 0.02}},
        {"train": {"epochs": 3, "batch_size": 100}},
        {"train": {"epochs": 2, "batch_size": 100, "threads": 2}},
        {"train": {"epochs": 2, "batch_size": 100, "jit": False}},
        {"train": {"epochs": 2, "batch_size": 100, "shuffle": False}},
        {"train": {"epochs": 2, "batch_size": 100, "loss": "huber"}},
        {"train": {"epochs": 2, "batch_size": 100, "metrics": ["auc"]}},
        {"train": {"epochs": 2, "batch_size": 100, "class_weight": "balanced"}},
        {"train": {"epochs": 2, "batch_size": 100, "early_stopping": 5}},
        {"train": {"epochs": 2, "batch_size": 100, "mixed_precision": "mixed_bfloat16"}},
        {"audit": {"every": 2}},
        {"seed": 1},
        {"targets": ["hidden_1/*"]},
        {"targets": "inner"},
        {"trainable": ["output/*"]},
        {"outputs_held": [0]},
    ],
)
def test_whatever_can_change_a_bit_changes_the_identity(sections: dict[str, Any]) -> None:
    assert trial(**sections).id != trial().id


@pytest.mark.parametrize(
    "sections",
    [
        {"tracking": {"uri": "http://127.0.0.1:1"}},
        {"launch": {"address": "auto", "max_retries": 0, "trial_timeout_s": 9}},
        {"checkpoint": {"every_s": 1, "path": "memory://"}},
        {"sweep": {"name": "other"}},
        {"resources": {"num_cpus": 2}},
        {"objective": "test/loss"},
        {"train": {"epochs": 2, "batch_size": 100, "jit": True}},  # `auto` means true here
        # the loss that null means here
        {"train": {"epochs": 2, "batch_size": 100, "loss": "sparse_categorical_crossentropy"}},
    ],
)
def test_where_it_runs_is_no_part_of_the_identity(sections: dict[str, Any]) -> None:
    assert trial(**sections).id == trial().id


def test_the_dense_control_is_one_trial_for_all_patterns() -> None:
    first = trial(strategy="dense")
    second = trial(strategy="dense", pattern="columns", held="init", targets=["output/*"])
    assert first.id == second.id
    assert trial(strategy="dense", seed=1).id != first.id


def test_steps_stand_in_for_epochs() -> None:
    two_epochs = trial(train={"steps": 7, "epochs": 2})
    assert two_epochs.id == trial(train={"steps": 7, "epochs": 3}).id


def test_a_file_counts_by_its_content(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.npz", "b.npz", "c.npz")]
    for path, value in zip(paths, (0, 0, 1), strict=True):
        np.savez(path, w=np.full(3, value))
    ids = [trial(pattern={"name": "file", "path": str(p)}).id for p in paths]
    assert ids[0] == ids[1] != ids[2]


PATTERNS_OF_TWO_KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "rows": ({}, {"by": "l1"}),
    "columns": ({}, {"by": "l2"}),
    "axis": ({"by": "l1"}, {"by": "l2"}),
    "block": ({}, {"by": "l1"}),
    "heads": ({}, {"by": "l2"}),
    "n_m": ({}, {"by": "magnitude"}),
    "edges": ({"pairs": [[0, 1]]}, {"pairs": [[0, 1]], "units": ["a", "b"], "inputs": None}),
    "by_weight": (
        {"of": {"*kernel": "band", "*": "rows"}},
        {"of": {"*": "rows", "*kernel": "band"}},  # the order decides
    ),
}


@pytest.mark.parametrize("name", PATTERNS_OF_TWO_KINDS)
def test_a_patterns_settings_are_part_of_the_identity(name: str) -> None:
    first, second = ({"name": name, **s} for s in PATTERNS_OF_TWO_KINDS[name])
    if name == "edges":
        second |= {"pairs": [[0, "a"]]}
    trials = [trial(pattern=first), trial(pattern=second)]
    assert trials[0].id != trials[1].id
    for original in trials:
        assert parse(json.loads(json.dumps(original.resolved()))).id == original.id


def test_the_same_pattern_in_another_form_is_the_same_trial() -> None:
    of = {"*kernel": {"name": "band", "lower": 0}, "*": "rows"}
    pairs = [[glob, pattern] for glob, pattern in of.items()]
    ids = {trial(pattern={"name": "by_weight", "of": form}).id for form in (of, pairs)}
    assert len(ids) == 1


def test_a_checkpoint_and_a_list_of_edges_count_by_their_content(tmp_path: Path) -> None:
    def ids(name: str, paths: list[Path]) -> list[str]:
        return [trial(pattern={"name": name, "path": str(p)}).id for p in paths]

    lists = [tmp_path / f"{name}.csv" for name in "abc"]
    for path, unit in zip(lists, (0, 0, 1), strict=True):
        path.write_text(f"source,target\n0,{unit}\n")
    weights = [tmp_path / f"{name}.npz" for name in "abc"]
    for path, value in zip(weights, (0, 0, 1), strict=True):
        np.savez(path, w=np.full(3, value))
    for first, same, other in (ids("edges", lists), ids("smallest", weights)):
        assert first == same != other
    assert trial(pattern={"name": "smallest", "path": None}).id == trial(pattern="smallest").id


def test_identity_is_the_same_in_every_process() -> None:
    script = (
        "import json, sys; from masksweep.sweeps.config.trial import parse;"
        "print(parse(json.load(sys.stdin)).id)"
    )
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", script],
            input=json.dumps(BASE),
            env={"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == trial().id


def test_the_resolved_config_gives_the_same_trial_again() -> None:
    for strategy in STRATEGIES:
        original = trial(strategy=strategy, pattern="columns", targets=["output/*"])
        assert parse(json.loads(json.dumps(original.resolved()))).id == original.id


def test_the_dense_control_of_a_trial_is_compiled_as_it_would_be_by_itself() -> None:
    sparse = trial(strategy="sparse_tensor")
    assert sparse.id
    assert not sparse.jit
    assert sparse.control.jit
    assert sparse.control.id == trial(strategy="dense").id
    plain = trial(train={"epochs": 2, "batch_size": 100, "jit": False})
    assert not plain.control.jit


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"strategy": "nope"}, "strategy.name"),
        ({"strategy": {"name": "dense", "form": "where"}}, "strategy.form"),
        ({"pattern": {"name": "random", "sparsity": 1.0}}, "pattern.sparsity"),
        ({"pattern": {"name": "random", "sparsity": -0.1}}, "pattern.sparsity"),
        ({"pattern": {"name": "random", "sparsity": float("nan")}}, "pattern.sparsity"),
        ({"pattern": {"name": "random", "distribution": "other"}}, "pattern.distribution"),
        ({"pattern": {"name": "n_m", "n": 5, "m": 4}}, "pattern.n"),
        ({"pattern": {"name": "block", "block": [0, 4]}}, "pattern.block"),
        ({"pattern": {"name": "rows", "by": "l3"}}, "pattern.by"),
        ({"pattern": {"name": "n_m", "by": "l1"}}, "pattern.by"),
        ({"pattern": {"name": "edges", "pairs": [[0]]}}, "pattern.pairs"),
        ({"pattern": {"name": "edges", "pairs": [[0, 1]], "units": [7]}}, "pattern.units"),
        ({"pattern": {"name": "by_weight", "of": {"*": "nope"}}}, "pattern.of"),
        ({"targets": "outer"}, "targets"),
        ({"pattern": {"name": "columns", "indices": [-1]}}, "pattern.indices"),
        ({"held": {"name": "constant", "value": float("inf")}}, "held.value"),
        ({"model": {"name": "mlp", "hidden": [0]}}, "model.hidden"),
        ({"model": {"name": "mlp", "dropout": 1}}, "model.dropout"),
        ({"data": {"name": "digits", "validation": 1}}, "data.validation"),
        ({"optimizer": {"name": "adam", "learning_rate": -1}}, "optimizer.learning_rate"),
        ({"optimizer": {"name": "adam", "beta_1": 1}}, "optimizer.beta_1"),
        ({"optimizer": {"name": "sgd", "clipnorm": 1, "clipvalue": 1}}, "optimizer.clipnorm"),
        ({"train": {"batch_size": 0}}, "train.batch_size"),
        ({"train": {"epochs": 1.5}}, "train.epochs"),
        ({"train": {"threads": 0}}, "train.threads"),
        ({"audit": {"every": 0}}, "audit.every"),
        ({"seed": -1}, "seed"),
        ({"outputs_held": [-1]}, "outputs_held.0"),
        ({"objective": "loss"}, "objective"),
        ({"objective": "test/mse"}, "objective"),
        ({"objective": "test/auc"}, "objective"),  # only if train.metrics has it
        (
            {"data": {"name": "digits", "validation": 0}, "objective": "validation/loss"},
            "objective",
        ),
        ({"resources": {"num_cpus": 0}}, "resources.num_cpus"),
        ({"strategy": "sparse_tensor", "train": {"jit": True}}, "train.jit"),
        ({"other": 1}, "other"),
    ],
)
def test_a_bad_value_is_named_by_its_key(sections: dict[str, Any], key: str) -> None:
    config = {
        k: {"name": v} if isinstance(v, str) and k in REGISTRIES else v for k, v in sections.items()
    }
    with pytest.raises(Invalid) as caught:
        parse({**BASE, **config})
    assert caught.value.key == key


def test_trials_are_compared_by_what_is_recorded() -> None:
    train = {**BASE["train"], "metrics": ["auc"]}
    for key in ("test/auc", "validation/loss", "train/accuracy", "integrity/violations"):
        assert parse({**BASE, "train": train, "objective": key}).score_metric.key == key
    with pytest.raises(Invalid, match=r"^objective=train/auc: must be one of test/loss, "):
        parse({**BASE, "train": train, "objective": "train/auc"})


@pytest.mark.parametrize("kind", ["npz", "image_folder"])
def test_only_validation_samples_that_exist_can_be_compared_by(kind: str, tmp_path: Path) -> None:
    """The files may have a part for validation; the fraction of the training part is 0."""

    def config(own: bool) -> dict[str, Any]:
        folder = tmp_path / str(own)
        folder.mkdir()
        if kind == "image_folder":
            path = write_images(
                folder, {"train": 1, "test": 1} | ({"validation": 1} if own else {})
            )
        else:
            x, y = np.ones((3, 4)), np.arange(3)
            part = {"x_validation": x, "y_validation": y} if own else {}
            path = write_npz(folder / "d.npz", **part)
        data = {"name": kind, "path": path, "validation": 0}
        return {**BASE, "data": data, "objective": "validation/loss"}

    parse(config(own=True))
    with pytest.raises(Invalid, match=r"^objective=validation/loss: needs data\.validation > 0"):
        parse(config(own=False))


def test_knobs_leave_out_defaults_only_if_asked() -> None:
    adam = OPTIMIZERS["adam"](learning_rate=0.5)
    assert as_section(adam, defaults=False) == {"name": "adam", "learning_rate": 0.5}
    assert as_section(adam)["beta_1"] == 0.9


GOLDEN = json.loads((Path(__file__).parents[1] / "identity.json").read_text())
"""Recorded identities of trials, and default values that must not change."""


@pytest.mark.parametrize("given", GOLDEN["ids"], ids=lambda given: given["id"][:8])
def test_golden_identities(given: dict[str, Any]) -> None:
    """Users find their results by these identities, so a new setting must not change them."""
    assert trial(**given["config"]).id == given["id"]


def test_golden_defaults() -> None:
    """An identity leaves defaults out, so a changed default would change what it stands for."""

    def default(key: str) -> Any:
        if "/" not in key:
            value = Trial.model_fields[key].default
            return value.model_dump() if hasattr(value, "model_dump") else value
        group, name = key.split("/")
        fields = dataclasses.fields(REGISTRIES[group][name])
        defaults = {
            f.name: f.metadata.get("implied", f.default)
            for f in fields
            if f.default is not dataclasses.MISSING
        }
        return {k: list(v) if isinstance(v, tuple) else v for k, v in defaults.items()}

    for key, expected in GOLDEN["defaults"].items():
        current = default(key)
        compared = {k: current.get(k) for k in expected} if isinstance(expected, dict) else current
        assert compared == expected, key


def test_a_loss_with_settings_is_kept_as_text() -> None:
    two = {"name": "huber", "delta": 2}, "huber(delta=2)", "huber( delta = 2.0 )"
    one = {"name": "huber", "delta": 1}, "huber(delta=1.0)", "huber()", "huber"
    trials = [trial(train={"loss": loss}) for loss in (*two, *one)]
    assert [t.train.loss for t in trials] == 3 * ["huber(delta=2.0)"] + 4 * ["huber"]
    assert len({t.id for t in trials}) == 2
