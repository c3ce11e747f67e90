"""Tests of the comparison with a baseline: pairs, noise, and the text of the table."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.config.score_metric import ScoreMetric
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.config.variants import variants
from masksweep.sweeps.report.baseline import (
    as_markdown,
    compare_with_baseline,
    headers,
    method_note,
    noise_floors,
    noise_note,
    rows,
    table,
)
from masksweep.sweeps.results import TrialResult
from tests.support.trials import trial

SGD = {"name": "sgd", "learning_rate": 0.1}
DENSE = (0.5, 0.625, 0.75)
REGRESSION: dict[str, Any] = {"data": "diabetes"}
ACCURACY, MSE = ScoreMetric("test/accuracy"), ScoreMetric("test/mse", "regression")

Scored = tuple[Trial, float]


def scored(*scores: float, **sections: Any) -> list[Scored]:
    """Returns a trial with its score for each of the seeds 0, 1, ..."""
    return [(trial(seed=s, **sections), score) for s, score in enumerate(scores)]


def outcomes(*groups: Sequence[Scored]) -> list[Outcome]:
    pairs = [pair for group in groups for pair in group]
    labels = variants([t for t, _ in pairs])
    return [
        Outcome(t, labels[t.id], "ok", TrialResult("ok", metrics={t.score_metric.key: score}))
        for t, score in pairs
    ]


def dense() -> list[Scored]:
    return scored(*DENSE, strategy="dense")


# -- pairs -----------------------------------------------------------------------------------


def test_a_strategy_is_paired_with_the_dense_trial_of_its_seed() -> None:
    strategy_trials = scored(0.45, 0.61, 0.71)
    for trials in (outcomes(strategy_trials, dense()), outcomes(dense()[::-1], strategy_trials)):
        (compared,) = compare_with_baseline(trials)
        assert (compared.strategy, compared.pattern) == ("weight_mask", "random 0.5")
        assert compared.metric == ACCURACY
        assert compared.difference.seeds == 3
        assert compared.difference.mean == pytest.approx(100 * (-0.05 - 0.015 - 0.04) / 3)
        expected = stats.ttest_rel([45, 61, 71], [50, 62.5, 75]).pvalue
        assert compared.difference.p == pytest.approx(expected)


def test_a_seed_without_its_dense_trial_is_left_out() -> None:
    strategy_trials = scored(0.45, 0.61, 0.0)
    (compared,) = compare_with_baseline(outcomes(strategy_trials, dense()[:2]))
    assert compared.difference.seeds == 2
    assert compared.difference.mean == pytest.approx((-5 - 1.5) / 2)


@pytest.mark.parametrize(
    "other",
    [
        {"optimizer": SGD},
        {"optimizer": {"name": "adam", "learning_rate": 0.02}},
        {"model": {"name": "mlp", "hidden": [12, 9]}},
        {"data": "mnist1d"},
        {"train": {"epochs": 3, "batch_size": 100}},
        {"train": {"epochs": 2, "batch_size": 100, "shuffle": False}},
        {"trainable": ["output/*"]},
    ],
    ids=str,
)
def test_the_dense_trial_of_other_settings_is_not_taken(other: dict[str, Any]) -> None:
    strategy_trials = scored(0.4, 0.5, 0.6)
    other_dense = scored(0.9, 0.9, 0.9, strategy="dense", **other)
    assert compare_with_baseline(outcomes(strategy_trials, other_dense)) == []
    (compared,) = compare_with_baseline(outcomes(strategy_trials, other_dense, dense()))
    assert compared.difference.mean == pytest.approx(100 * (0.5 - 0.625))


def test_each_optimizer_has_its_own_control_and_row() -> None:
    trials = outcomes(
        scored(0.4, 0.41),
        scored(0.3, 0.31, optimizer=SGD),
        scored(0.5, 0.51, strategy="dense"),
        scored(0.7, 0.71, strategy="dense", optimizer=SGD),
    )
    means = {c.pattern: c.difference.mean for c in compare_with_baseline(trials)}
    assert means == pytest.approx({"random 0.5, adam": -10, "random 0.5, sgd": -40})


def test_masks_and_held_values_make_no_other_control() -> None:
    """Dense trials have no masks, so one control serves strategies with any masks."""
    trials = outcomes(
        scored(0.4, 0.41),
        scored(0.3, 0.31, pattern="columns", held="init", targets=["output/*"]),
        scored(0.2, 0.21, strategy={"name": "weight_mask", "form": "product"}),
        scored(0.5, 0.51, strategy="dense"),
    )
    assert sorted(c.difference.mean for c in compare_with_baseline(trials)) == pytest.approx(
        [-30, -20, -10]
    )


def test_p_is_corrected_for_the_whole_table() -> None:
    better, worse = scored(0.45, 0.61, 0.71), scored(0.25, 0.375, 0.51, strategy="projection")
    (better_alone,) = compare_with_baseline(outcomes(better, dense()))
    (worse_alone,) = compare_with_baseline(outcomes(worse, dense()))
    assert worse_alone.difference.p < better_alone.difference.p
    both = {
        c.strategy: c.difference for c in compare_with_baseline(outcomes(better, worse, dense()))
    }
    assert both["projection"].p == pytest.approx(2 * worse_alone.difference.p)
    assert both["weight_mask"].p == pytest.approx(2 * better_alone.difference.p)


@pytest.mark.parametrize("status", ["failed", "skipped"])
@pytest.mark.parametrize("strategy", ["weight_mask", "dense"])
def test_a_trial_without_a_score_makes_no_pair(status: Any, strategy: str) -> None:
    trials = outcomes(scored(0.45, 0.61, 0.71), dense())
    assert compare_with_baseline(trials)[0].difference.seeds == 3
    without_one = [
        Outcome(o.trial, o.variant, status, reason="no")
        if (o.trial.strategy.name, o.trial.seed) == (strategy, 1)
        else o
        for o in trials
    ]
    assert compare_with_baseline(without_one)[0].difference.seeds == 2


@pytest.mark.parametrize(
    "given",
    [
        [],
        scored(0.4, 0.5),
        scored(0.4, 0.5, strategy="dense"),
        [*scored(0.4), *scored(0.5, strategy="dense")],  # one seed is not enough
        [*scored(0.4, 0.5), *scored(0.5, strategy="dense")],
    ],
    ids=["none", "no dense", "dense only", "one seed", "one pair"],
)
def test_without_two_pairs_there_is_nothing(given: list[Scored]) -> None:
    trials = outcomes(given)
    assert compare_with_baseline(trials) == []
    assert rows(trials) == []
    assert as_markdown(trials) == ""
    assert table(trials) is None


# -- another baseline ------------------------------------------------------------------------


def test_another_baseline_is_paired_by_seed_and_mask() -> None:
    """Trials with sparsity 0.9 must not be paired with trials of sparsity 0.5."""
    sparsity_09 = {"pattern": {"name": "random", "sparsity": 0.9}}
    trials = outcomes(
        scored(0.5, 0.52, strategy="projection"),
        scored(0.1, 0.12, strategy="projection", **sparsity_09),
        scored(0.4, 0.41),
        scored(0.2, 0.21, **sparsity_09),
        dense(),
    )
    differences = {
        (c.strategy, c.pattern): c.difference for c in compare_with_baseline(trials, "weight_mask")
    }
    assert {k: d.mean for k, d in differences.items()} == pytest.approx(
        {("projection", "random 0.5"): 10.5, ("projection", "random 0.9"): -9.5}
    )
    alone = [
        c.difference for c in compare_with_baseline(outcomes(*_pair(0.5, 0.52)), "weight_mask")
    ]
    assert differences["projection", "random 0.5"].p == pytest.approx(2 * alone[0].p)


def _pair(*scores: float, **sections: Any) -> list[list[Scored]]:
    """Returns trials of `projection` with some settings, and of `weight_mask` without them."""
    return [scored(*scores, strategy="projection", **sections), scored(0.4, 0.41)]


@pytest.mark.parametrize(
    "other",
    [
        {"pattern": {"name": "random", "sparsity": 0.9}},
        {"pattern": "columns"},
        {"held": "init"},
        {"targets": ["output/*"]},
        {"optimizer": SGD},
        {"train": {"epochs": 2, "batch_size": 100, "switch_at": 3}},
        {"train": {"epochs": 2, "batch_size": 100, "resume_at": 3}},
    ],
    ids=str,
)
def test_a_baseline_of_other_settings_is_not_taken(other: dict[str, Any]) -> None:
    assert len(compare_with_baseline(outcomes(*_pair(0.5, 0.52)), "weight_mask")) == 1
    assert compare_with_baseline(outcomes(*_pair(0.5, 0.52, **other)), "weight_mask") == []


@pytest.mark.parametrize(
    "other",
    [{"audit": {"every": 7}}, {"speed": {"rounds": 0}}, {"compare": "hard_mask"}],
    ids=str,
)
def test_what_changes_no_training_makes_no_other_baseline(other: dict[str, Any]) -> None:
    assert len(compare_with_baseline(outcomes(*_pair(0.5, 0.52, **other)), "weight_mask")) == 1
    baseline = scored(0.4, 0.41, **other)
    assert len(
        compare_with_baseline(
            outcomes(scored(0.5, 0.52, strategy="projection"), baseline), "weight_mask"
        )
    )


@pytest.mark.parametrize("at", ["switch_at", "resume_at"])
def test_the_dense_control_is_one_whatever_happens_on_the_way(at: str) -> None:
    """Changed masks do not concern a dense trial, and resuming changes no bit."""
    train = {"epochs": 2, "batch_size": 100, at: 3}
    assert len(compare_with_baseline(outcomes(scored(0.4, 0.41, train=train), dense()))) == 1


def test_a_baseline_without_xla_is_one_all_the_same() -> None:
    """`train.jit=auto` depends on the strategy, so pairs may differ in `jit`."""
    trials = outcomes(scored(0.5, 0.52), scored(0.4, 0.41, strategy="sparse_tensor"))
    assert [o.trial.jit for o in trials] == [True, True, False, False]
    (compared,) = compare_with_baseline(trials, "sparse_tensor")
    assert (compared.strategy, compared.difference.mean) == ("weight_mask", pytest.approx(10.5))


def test_a_baseline_is_given_by_its_label() -> None:
    trials = outcomes(
        scored(0.4, 0.41),
        scored(0.3, 0.31, strategy={"name": "weight_mask", "form": "product"}),
        dense(),
    )
    (compared,) = compare_with_baseline(trials, "weight_mask(form=product)")
    assert (compared.strategy, compared.difference.mean) == ("weight_mask", pytest.approx(10))
    (compared,) = compare_with_baseline(trials, "weight_mask")
    assert compared.strategy == "weight_mask(form=product)"
    assert compare_with_baseline(trials, "projection") == []


def test_dense_is_not_compared_with_a_strategy() -> None:
    """A dense trial has no masks, so several trials of a strategy could be its partner."""
    assert [
        c.strategy
        for c in compare_with_baseline(outcomes(*_pair(0.5, 0.52), dense()), "weight_mask")
    ] == ["projection"]


def test_the_table_says_what_the_baseline_is() -> None:
    trials = outcomes(*_pair(0.5, 0.52))
    assert headers(trials)[2] == "test accuracy minus dense"
    assert headers(trials, "hard_mask")[2] == "test accuracy minus hard_mask"
    ((name, *_),) = rows(trials, "weight_mask")
    assert name == "projection"


# -- noise -----------------------------------------------------------------------------------


def test_the_noise_floor_is_of_dense_trials_alone() -> None:
    two = scored(0.5, 0.54, strategy="dense")
    assert noise_floors(outcomes(two)) == pytest.approx({ACCURACY: 4})
    assert noise_floors(outcomes(two, scored(0.1, 0.9))) == pytest.approx({ACCURACY: 4})
    assert noise_floors(outcomes(scored(0.1, 0.9))) == {}
    assert noise_floors(outcomes(two[:1])) == {}


def test_the_noise_floor_is_never_across_settings_and_the_largest_of_them() -> None:
    trials = outcomes(
        scored(0.5, 0.54, strategy="dense"), scored(0.9, 0.91, strategy="dense", optimizer=SGD)
    )
    assert noise_floors(trials) == pytest.approx({ACCURACY: 4})


def test_each_metric_has_its_own_noise_floor() -> None:
    trials = outcomes(
        scored(0.5, 0.54, strategy="dense"), scored(1.5, 1.75, strategy="dense", **REGRESSION)
    )
    assert noise_floors(trials) == pytest.approx({ACCURACY: 4, MSE: 0.25})
    assert noise_note(trials) == (
        "Noise: two dense trials that differ in their seed alone lie "
        "4.0 points of test accuracy (digits) and 0.2500 in test mse (diabetes) apart."
    )


def test_a_failed_dense_trial_makes_no_noise() -> None:
    (first, second) = outcomes(scored(0.5, 0.54, strategy="dense"))
    failed = Outcome(second.trial, second.variant, "failed", second.result)
    assert noise_floors([first, failed]) == {}
    assert noise_note([first, failed]) == ""
    assert noise_note([]) == ""


# -- the text --------------------------------------------------------------------------------

FIGURE = re.compile(r"[+-]\d+\.\d+ \[[+-]\d+\.\d+, [+-]\d+\.\d+\]")


def shown(trials: Sequence[Outcome], width: int = 120) -> str:
    comparison = table(trials)
    assert comparison is not None
    console = Console(width=width, file=io.StringIO())
    console.print(comparison)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def several() -> list[Outcome]:
    return outcomes(
        scored(0.45, 0.61, 0.71),
        scored(0.25, 0.375, 0.51, strategy="projection"),
        scored(0.1, 0.2251, 0.35, strategy="hard_mask"),
        scored(0.45, 0.575, 0.7, strategy="gradient_mask"),
        dense(),
    )


def test_a_row_has_the_mean_its_interval_p_and_seeds() -> None:
    cells = {row[0]: row[1:] for row in rows(several())}
    assert list(cells) == ["weight_mask", "projection", "hard_mask", "gradient_mask"]
    assert cells["projection"] == ("random 0.5", "-24.7 [-27.6, -21.7]", "< 0.001", "3")
    assert cells["gradient_mask"] == ("random 0.5", "-5.0 [-5.0, -5.0]", "< 0.001", "3")
    _, figure, p, seeds = cells["weight_mask"]
    assert (figure, seeds) == ("-3.5 [-12.7, +5.7]", "3")
    assert p == "0.313 (not clear)"


@pytest.mark.parametrize(
    ("own", "figure", "p"),
    [
        (DENSE, "+0.0 [+0.0, +0.0]", "1.000 (not clear)"),
        ((0.6, 0.625, 0.95), "+10.0 [-14.8, +34.8]", "0.225 (not clear)"),
        ((0.55, 0.69, 0.8), "+5.5 [+3.3, +7.7]", "0.008"),
        ((0.6, 0.725, 0.851), "+10.0 [+9.9, +10.2]", "< 0.001"),
    ],
)
def test_p_at_or_above_005_is_said_to_be_not_clear(
    own: tuple[float, ...], figure: str, p: str
) -> None:
    assert rows(outcomes(scored(*own), dense())) == [("weight_mask", "random 0.5", figure, p, "3")]


def test_an_error_is_told_in_its_own_unit() -> None:
    trials = outcomes(
        scored(1.5, 1.25, **REGRESSION), scored(1.25, 1.0, strategy="dense", **REGRESSION)
    )
    ((_, _, figure, _, _),) = rows(trials)
    assert figure == "+0.2500 [+0.2500, +0.2500]"


def test_markdown_never_has_a_bare_mean() -> None:
    trials = several()
    text = re.sub(r"\\([\[\]<])", r"\1", as_markdown(trials))
    header, line, *body, blank, method_text, _, noise = text.splitlines()
    assert header == f"| {' | '.join(headers(trials))} |"
    assert line == "| --- | --- | --- | --- | --- |"
    assert blank == ""
    assert noise == noise_note(several())
    assert method_text == method_note(4)
    assert "of all 4 rows at once (Bonferroni)" in method_text
    assert len(body) == 4
    for row in body:
        _, strategy, _, figure, p, seeds, _ = (cell.strip() for cell in row.split("|"))
        assert strategy
        assert FIGURE.fullmatch(figure)
        assert re.match(r"(< 0\.001|\d\.\d{3})", p)
        assert seeds == "3"


def test_the_terminal_shows_the_same_cells() -> None:
    text = shown(several())
    for row in rows(several()):
        (line,) = [line for line in text.splitlines() if line.startswith(f"{row[0]} ")]
        assert all(cell in line for cell in row)
    narrow = shown(several(), width=80)
    assert "…" not in narrow
    assert len(FIGURE.findall(narrow)) == 4


def test_a_table_of_two_metrics_is_as_narrow_as_a_terminal() -> None:
    trials = outcomes(
        dense(),
        scored(0.45, 0.61, 0.71),
        scored(0.5, 0.54, strategy="dense", **REGRESSION),
        scored(0.5, 0.6, **REGRESSION),
    )
    narrow = shown(trials, width=80)
    assert all(text in narrow for text in ("random 0.5", "weight_mask", "test mse", "minus dense"))


SCORES = st.lists(st.integers(0, 100), min_size=2, max_size=5)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(st.lists(SCORES, min_size=1, max_size=4), st.integers(0, 3))
def test_an_interval_leaves_out_zero_exactly_where_p_is_clear(
    found: list[list[int]], exponent: int
) -> None:
    """Tests the printed row: rounding must not make interval and p-value disagree."""
    names = ("weight_mask", "projection", "hard_mask", "gradient_mask")
    size = min(map(len, found))
    trials = [
        scored(*(0.5 + v / 10**exponent / 100 for v in values[:size]), strategy=name)
        for name, values in zip(names, found, strict=False)
    ]
    for _, _, figure, p, _ in rows(outcomes(*trials, scored(*[0.5] * size, strategy="dense"))):
        low, high = map(float, re.findall(r"[+-][\d.]+", figure)[1:])
        assert (low > 0 or high < 0) == ("not clear" not in p), (figure, p)
        assert "-0.0 " not in figure.replace("]", " ").replace(",", " ")
        assert ("not clear" in p) == (float(p.split()[-1 if p[0] == "<" else 0]) >= 0.05)


def test_no_figure_is_nan() -> None:
    for c in compare_with_baseline(several()):
        d = c.difference
        assert not any(math.isnan(x) for x in (d.mean, d.low, d.high, d.p))
        assert d.low <= d.mean <= d.high
