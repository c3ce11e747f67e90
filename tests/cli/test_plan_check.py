"""What `masksweep plan --check` shows of each model before anything trains."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from masksweep.sweeps.cli import plan_check
from masksweep.sweeps.cli.model_table import print_model
from masksweep.sweeps.config.plan import PlannedTrial, with_answers
from masksweep.sweeps.results import PreflightAnswer
from masksweep.sweeps.training.model_summary import ModelSummary, summaries
from tests.support.command import masksweep
from tests.support.trials import trial

TABLE = """\
mlp(hidden=[12, 8]) on digits
1,294 training, 144 validation, 359 test samples, 10 classes
an epoch is 12 steps of 100; the last 94 are left out
6 variables, 974 weights, 1,888 FLOPs for each sample

                                                        columns 0.3
weight             shape  weights  FLOPs  random 0.5  held constant
hidden_1/kernel  64 x 12      768  1,536         0.5          dense
hidden_2/kernel   12 x 8       96    192         0.5          dense
output/kernel     8 x 10       80    160       dense            0.7
output/bias           10       10      0       dense            0.7
2 others (bias)                20      0       dense          dense
all                           974  1,888       0.556          0.972
not masked                                       542            947
FLOPs as masked                                1,024          1,888

masks        held          trials  strategies
-            -                  1  dense
random 0.5   zero               3  weight_mask
                                   refused by var_list: hidden_1/kernel:
                                   scattered
columns 0.3  constant 0.5       1  hard_mask
random 0.5 cuts off: a/kernel 1 of 2 units; b 3; and 1 more kernel"""


def planned(*sections: dict[str, Any]) -> list[PlannedTrial]:
    return [PlannedTrial(trial(**s), []) for s in sections]


def shown(
    trials: Sequence[PlannedTrial],
    width: int = 80,
    change: Any = lambda summary: summary,
) -> list[list[str]]:
    """Returns the lines that are printed of each model."""
    models = plan_check.group_by_model(trials, lambda ts: [change(s) for s in summaries(ts)])
    texts = []
    for model in models:
        file = io.StringIO()
        print_model(model, Console(file=file, width=width, highlight=False))
        texts.append([line.rstrip() for line in file.getvalue().splitlines()])
    return texts


def test_the_table_of_a_model_with_two_patterns() -> None:
    trials = planned(
        {"strategy": "dense"},
        {"strategy": "weight_mask"},
        {"strategy": "var_list"},
        {"strategy": "weight_mask", "seed": 1},
        {
            "strategy": "hard_mask",
            "pattern": {"name": "columns", "sparsity": 0.3},
            "held": {"name": "constant", "value": 0.5},
            "targets": ["output/*"],
        },
    )
    answers = {
        trials[2].trial.id: PreflightAnswer("hidden_1/kernel: scattered"),
        trials[3].trial.id: PreflightAnswer("", "a/kernel 1 of 2 units; b 3; c 4"),
    }
    (lines,) = shown(with_answers(trials, answers))
    assert "\n".join(lines) == TABLE


@pytest.mark.parametrize("strategy", ["dense", "weight_mask"])
def test_weights_that_do_not_train_are_shown_as_frozen(strategy: str) -> None:
    trainable = ["hidden_2/*", "output/kernel", "hidden_1/bias"]
    (lines,) = shown(planned({"strategy": strategy, "trainable": trainable}))
    assert lines[3] == "6 variables, 974 weights (778 frozen), 1,888 FLOPs for each sample"
    table = [
        "weight             shape  weights  FLOPs   trained",
        "hidden_1/kernel  64 x 12      768  1,536    frozen",
        "hidden_2/kernel   12 x 8       96    192       yes",
        "output/kernel     8 x 10       80    160       yes",
        "3 others (bias)                30      0  1 frozen",
        "all                           974  1,888",
    ]
    assert [line[: len(table[0])].rstrip() for line in lines[5:11]] == table


def test_what_a_strategy_chooses_is_told_once_for_each_pattern() -> None:
    rows = {"name": "rows", "sparsity": 0.5}
    trials = planned(
        *({"strategy": "sparse_tensor", "seed": seed} for seed in (0, 1)),
        {"strategy": "sparse_tensor", "pattern": rows},
    )
    chosen = ["coo", "coo", "compact"]
    answers = {
        p.trial.id: PreflightAnswer(chosen=f"format: {format}")
        for p, format in zip(trials, chosen, strict=True)
    }
    (lines,) = shown(with_answers(trials, answers))
    assert lines[-2:] == [
        "random 0.5: sparse_tensor, format: coo",
        "rows 0.5: sparse_tensor, format: compact",
    ]


def test_trials_that_differ_otherwise_share_a_table() -> None:
    many = planned(
        *({"seed": seed, "strategy": s} for seed in range(3) for s in ("projection", "hard_mask")),
        {"optimizer": "sgd"},
    )
    (lines,) = shown(many)
    assert sum("hidden_1/kernel" in line for line in lines) == 1
    assert lines[-1].split(maxsplit=3) == [
        "random",
        "0.5",
        "zero",
        "7  projection, hard_mask, weight_mask",
    ]


def test_each_model_and_each_data_set_has_a_table() -> None:
    models = shown(planned({}, {"model": "logistic", "strategy": "dense"}, {"data": "iris"}))
    assert [lines[0] for lines in models] == [
        "mlp(hidden=[12, 8]) on digits",
        "logistic on digits",
        "mlp(hidden=[12, 8]) on iris",
    ]
    assert not any("as masked" in line for line in models[1])


@pytest.mark.parametrize("width", [80, 120])
def test_no_table_is_wider_than_the_terminal(width: int) -> None:
    patterns = [{"name": "random", "sparsity": s / 20} for s in range(1, 20)]
    (lines,) = shown(planned(*({"pattern": p} for p in patterns)), width)
    assert max(map(len, lines)) <= width
    heads = [line for line in lines if line.startswith("weight ")]
    assert len(heads) > 1
    assert [head.split()[1:].count("random") for head in heads] != [1] * len(heads)
    assert " ".join(heads).count("random") == len(patterns)
    assert all("shape" not in head for head in heads[1:])


def test_masks_with_the_same_pattern_are_told_apart() -> None:
    by_targets = shown(planned({}, {"targets": ["*/kernel"]}))[0]
    assert any(line.endswith("  by default    */kernel") for line in by_targets)
    random = {"name": "random", "sparsity": 0.5}
    by_settings = shown(planned({}, {"pattern": {**random, "distribution": "erk"}}))[0]
    assert any("distribution=erk" in line for line in by_settings)


def test_patterns_that_choose_later_say_so() -> None:
    magnitude = {"name": "magnitude", "rounds": 5, "round": 2}
    (lines,) = shown(planned({"pattern": magnitude}), width=120)
    assert lines[-1].startswith("magnitude chooses while it trains; ")


def test_masks_of_loaded_weights_are_those_of_the_file(tmp_path: Path) -> None:
    import keras

    path = str(tmp_path / "pruned.keras")
    layers = [keras.Input((64,)), keras.layers.Dense(10, name="output")]
    model = keras.Sequential(layers)
    kernel = np.ones((64, 10))
    kernel[:16] = 0
    model.set_weights([kernel, np.zeros(10)])
    model.save(path)
    pruned = {"model": "logistic", "start": {"path": path}, "targets": ["*/kernel"]}
    (lines,) = shown(planned({**pruned, "pattern": "zeros"}))
    (row,) = (line for line in lines if line.startswith("output/kernel"))
    assert row.split()[-1] == "0.75"


def test_unknown_flops_are_a_question_mark() -> None:
    def unknown(summary: ModelSummary) -> ModelSummary:
        from dataclasses import replace

        weights = tuple(replace(w, flops=None, masked_flops=None) for w in summary.weights)
        return ModelSummary(weights, summary.samples, "sizes differ")

    (lines,) = shown(planned({}), change=unknown)
    assert lines[3:5] == ["6 variables, 974 weights", "FLOPs are unknown: sizes differ"]
    assert lines[-4].split() == ["FLOPs", "as", "masked", "?"]


def test_the_command_shows_models_and_refusals_and_writes_nothing(tmp_path: Path) -> None:
    arguments = ("plan", "--check", "strategy=var_list,weight_mask", "seed=0,1")
    process = masksweep(*arguments, cwd=tmp_path, light=True)
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert lines[0] == "mlp on mnist1d"
    assert any("refused by var_list: hidden_1/kernel: " in line for line in lines)
    assert lines[-1] == "4 trials: 2 to run, 2 skipped"
    assert not list(tmp_path.iterdir())
