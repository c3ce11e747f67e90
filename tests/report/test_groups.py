"""Tests that a report tells apart what is not the same: data sets, models, and ways to run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.config.variants import variants
from masksweep.sweeps.report import flops_plot, results_table
from masksweep.sweeps.report.baseline import compare_with_baseline, noise_floors, noise_note
from masksweep.sweeps.report.plots import draw_plots
from masksweep.sweeps.report.ranking import group_by_kind
from masksweep.sweeps.report.recommendation import sentences
from masksweep.sweeps.results import TrialResult
from tests.support.trials import trial

MODELS = {"mlp": {"name": "mlp", "hidden": [12]}, "lenet300": {"name": "lenet300"}}


def outcomes(*groups: tuple[list[float], dict[str, Any]]) -> list[Outcome]:
    """Returns an outcome for each score of each group, with the seeds 0, 1, ..."""
    pairs = [(trial(seed=s, **g), score) for scores, g in groups for s, score in enumerate(scores)]
    labels = variants([t for t, _ in pairs])
    usual = {"integrity/ok": 1.0, "flops/training_ratio": 0.5, "speed/ratio_to_dense": 1.0}
    return [
        Outcome(t, labels[t.id], "ok", TrialResult("ok", metrics={**usual, t.score_metric.key: v}))
        for t, v in pairs
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"launch": {"pack": 1}}, {"launch": {"pack": 4}}),
        ({"train": {"jit": True}}, {"train": {"jit": False}}),
    ],
    ids=["pack", "jit"],
)
def test_a_seed_counts_once_in_each_row(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Trials that differ in `jit` or `pack` alone are no other seeds."""
    parts = [
        (scores, {"strategy": strategy, **way})
        for way in (one, other)
        for strategy, scores in (("dense", [0.5, 0.625, 0.75]), ("weight_mask", [0.4, 0.5, 0.75]))
    ]
    alone, both = outcomes(*parts[:2]), outcomes(*parts)
    assert [c.difference.seeds for c in compare_with_baseline(both)] == [3, 3]
    assert {r.counts for r in results_table.rows(both)} == {"3/0/0"}
    assert noise_floors(both) == noise_floors(alone)
    # a strategy may be compiled or not where another is: that makes no other row
    assert [o.variant for o in outcomes(parts[0], parts[3])] == [""] * 6


def test_files_of_one_kind_are_told_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4)).astype("float32")
    targets = {"a": np.arange(60) % 3, "b": rng.normal(size=(60, 1)).astype("float32")}
    data = {}
    for name, y in targets.items():
        path = tmp_path / f"{name}.npz"
        np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
        data[name] = {"name": "npz", "path": str(path)}
    found = outcomes(
        *(([0.5, 0.625], {"strategy": s, "data": d}) for s in ("dense", "weight_mask")
          for d in data.values())
    )  # fmt: skip
    kinds = group_by_kind(found)
    assert [len(members) for members in kinds.values()] == [2, 2]
    assert all("path=sha256:" in kind for kind in kinds)
    assert noise_note(found).count("npz ") == 2
    assert draw_plots(found)


def test_two_models_make_two_lines_over_flops() -> None:
    groups = [
        ([score, score + 0.01], {"model": model, "strategy": strategy, **moving})
        for score, model in zip((0.6, 0.9), MODELS.values(), strict=True)
        for strategy, moving in (
            ("dense", {}),
            ("hard_mask", {"schedule": {"name": "set", "frequency": 2}}),
        )
    ]
    (members,) = flops_plot.by_data(outcomes(*groups)).values()
    assert len(flops_plot.lines(members)) == 4
    assert all(
        len(scores) == 2 for line in flops_plot.lines(members).values() for scores in line.values()
    )
    assert sum(map(flops_plot.is_dense, flops_plot.lines(members))) == 2
    assert any(name.startswith("flops") for name in draw_plots(outcomes(*groups)))
    (members,) = flops_plot.by_data(outcomes(*groups[:2])).values()
    assert list(flops_plot.lines(members)) == ["dense", "random, set"]


def test_long_settings_are_not_in_the_legend_of_the_plot_over_flops() -> None:
    of = {f"hidden_{i}/kernel": {"name": "random", "sparsity": 0.5} for i in (1, 2)}
    by_weight = trial(strategy="hard_mask", pattern={"name": "by_weight", "of": of})
    assert flops_plot.method(by_weight) == "by_weight, static"
    erk = {"name": "random", "distribution": "erk", "sparsity": 0.5}
    assert flops_plot.method(trial(pattern=erk)) == "weight_mask, random(distribution=erk), static"


def test_a_training_that_diverges_is_the_worst_and_ends_no_report() -> None:
    groups = [
        ([2.0, math.inf, 3.0], {"strategy": "dense", "data": "diabetes"}),
        ([1.0, math.inf, math.nan], {"strategy": "weight_mask", "data": "diabetes"}),
        ([1.5, 1.5, 1.5], {"strategy": "projection", "data": "diabetes"}),
    ]
    found = outcomes(*groups)
    assert noise_note(found) == ""
    assert [row.score for row in results_table.rows(found)] == ["inf", "nan", "1.5000 ± 0.0000"]
    pairs = {c.strategy: c.difference.seeds for c in compare_with_baseline(found)}
    assert pairs == {"projection": 2}
    assert sentences(found)[0][1].startswith("projection: it held in all of 3 trials")
    draw_plots(found)
    draw_plots(outcomes(*groups[:2]))
