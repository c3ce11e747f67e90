"""Strategies against a baseline: who is paired with whom, and what is said of it."""

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
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.config.variants import variants
from masksweep.sweeps.report.baseline import (
    against,
    as_markdown,
    floors,
    headers,
    method,
    note,
    rows,
    table,
)
from masksweep.sweeps.results import TrialResult
from tests.support.trials import trial

SGD = {"name": "sgd", "learning_rate": 0.1}
DENSE = (0.5, 0.625, 0.75)
REGRESSION: dict[str, Any] = {"data": "diabetes", "objective": "train/loss"}

Scored = tuple[Trial, float]


def scored(*scores: float, **sections: Any) -> list[Scored]:
    """A trial of each seed with its score."""
    return [(trial(seed=s, **sections), score) for s, score in enumerate(scores)]


def outcomes(*found: Sequence[Scored]) -> list[Outcome]:
    all_of = [pair for group in found for pair in group]
    told = variants([made for made, _ in all_of])
    return [
        Outcome(made, told[made.id], "ok", TrialResult("ok", metrics={metric(made): score}))
        for made, score in all_of
    ]


def dense() -> list[Scored]:
    return scored(*DENSE, strategy="dense")


def metric(made: Trial) -> str:
    return "test/accuracy" if made.data.task == "classification" else "test/mse"


# -- who is paired with whom -----------------------------------------------------------------


def test_a_strategy_is_paired_with_the_dense_trial_of_its_seed() -> None:
    own = scored(0.45, 0.61, 0.71)
    for given in (outcomes(own, dense()), outcomes(dense()[::-1], own)):
        (found,) = against(given)
        assert (found.strategy, found.pattern) == ("weight_mask", "random 0.5")
        assert found.metric == "accuracy"
        assert found.difference.seeds == 3
        assert found.difference.mean == pytest.approx(100 * (-0.05 - 0.015 - 0.04) / 3)
        expected = stats.ttest_rel([45, 61, 71], [50, 62.5, 75]).pvalue
        assert found.difference.p == pytest.approx(expected)


def test_a_seed_without_its_dense_trial_is_left_out() -> None:
    own = scored(0.45, 0.61, 0.0)
    (found,) = against(outcomes(own, dense()[:2]))
    assert found.difference.seeds == 2
    assert found.difference.mean == pytest.approx((-5 - 1.5) / 2)


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
    own = scored(0.4, 0.5, 0.6)
    far = scored(0.9, 0.9, 0.9, strategy="dense", **other)
    assert against(outcomes(own, far)) == []
    (found,) = against(outcomes(own, far, dense()))
    assert found.difference.mean == pytest.approx(100 * (0.5 - 0.625))


def test_each_optimizer_has_its_own_control_and_row() -> None:
    given = outcomes(
        scored(0.4, 0.41),
        scored(0.3, 0.31, optimizer=SGD),
        scored(0.5, 0.51, strategy="dense"),
        scored(0.7, 0.71, strategy="dense", optimizer=SGD),
    )
    found = {c.pattern: c.difference.mean for c in against(given)}
    assert found == pytest.approx({"random 0.5, adam": -10, "random 0.5, sgd": -40})


def test_masks_and_held_values_make_no_other_control() -> None:
    """What is masked is a setting of the strategy's alone: one control for all of them."""
    given = outcomes(
        scored(0.4, 0.41),
        scored(0.3, 0.31, pattern="columns", held="init", targets=["output/*"]),
        scored(0.2, 0.21, strategy={"name": "weight_mask", "form": "product"}),
        scored(0.5, 0.51, strategy="dense"),
    )
    assert sorted(c.difference.mean for c in against(given)) == pytest.approx([-30, -20, -10])


def test_p_is_corrected_for_the_whole_table() -> None:
    mine, worse = scored(0.45, 0.61, 0.71), scored(0.25, 0.375, 0.51, strategy="projection")
    (alone,) = against(outcomes(mine, dense()))
    (least,) = against(outcomes(worse, dense()))
    assert least.difference.p < alone.difference.p
    both = {c.strategy: c.difference for c in against(outcomes(mine, worse, dense()))}
    assert both["projection"].p == pytest.approx(2 * least.difference.p)
    assert both["weight_mask"].p == pytest.approx(2 * alone.difference.p)


@pytest.mark.parametrize("status", ["failed", "skipped"])
@pytest.mark.parametrize("strategy", ["weight_mask", "dense"])
def test_a_trial_without_a_score_makes_no_pair(status: Any, strategy: str) -> None:
    given = outcomes(scored(0.45, 0.61, 0.71), dense())
    assert against(given)[0].difference.seeds == 3
    lost = [
        Outcome(o.trial, o.variant, status, reason="no")
        if (o.trial.strategy.name, o.trial.seed) == (strategy, 1)
        else o
        for o in given
    ]
    assert against(lost)[0].difference.seeds == 2


@pytest.mark.parametrize(
    "given",
    [
        [],
        scored(0.4, 0.5),
        scored(0.4, 0.5, strategy="dense"),
        [*scored(0.4), *scored(0.5, strategy="dense")],  # one seed is no comparison
        [*scored(0.4, 0.5), *scored(0.5, strategy="dense")],
    ],
    ids=["none", "no dense", "dense only", "one seed", "one pair"],
)
def test_without_two_pairs_there_is_nothing(given: list[Scored]) -> None:
    made = outcomes(given)
    assert against(made) == []
    assert rows(made) == []
    assert as_markdown(made) == ""
    assert table(made) is None


# -- another baseline ------------------------------------------------------------------------


def test_another_baseline_is_paired_by_seed_and_mask() -> None:
    """A mask of 0.9 costs more than one of 0.5: neither may stand for the other."""
    nine = {"pattern": {"name": "random", "sparsity": 0.9}}
    given = outcomes(
        scored(0.5, 0.52, strategy="projection"),
        scored(0.1, 0.12, strategy="projection", **nine),
        scored(0.4, 0.41),
        scored(0.2, 0.21, **nine),
        dense(),
    )
    found = {(c.strategy, c.pattern): c.difference for c in against(given, "weight_mask")}
    assert {k: d.mean for k, d in found.items()} == pytest.approx(
        {("projection", "random 0.5"): 10.5, ("projection", "random 0.9"): -9.5}
    )
    alone = [c.difference for c in against(outcomes(*_pair(0.5, 0.52)), "weight_mask")]
    assert found["projection", "random 0.5"].p == pytest.approx(2 * alone[0].p)


def _pair(*scores: float, **sections: Any) -> list[list[Scored]]:
    """Trials of `projection` under some settings, and of `weight_mask` without them."""
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
    assert len(against(outcomes(*_pair(0.5, 0.52)), "weight_mask")) == 1
    assert against(outcomes(*_pair(0.5, 0.52, **other)), "weight_mask") == []


@pytest.mark.parametrize(
    "other",
    [{"audit": {"every": 7}}, {"speed": {"rounds": 0}}, {"compare": "hard_mask"}],
    ids=str,
)
def test_what_changes_no_training_makes_no_other_baseline(other: dict[str, Any]) -> None:
    assert len(against(outcomes(*_pair(0.5, 0.52, **other)), "weight_mask")) == 1
    theirs = scored(0.4, 0.41, **other)
    assert len(against(outcomes(scored(0.5, 0.52, strategy="projection"), theirs), "weight_mask"))


@pytest.mark.parametrize("at", ["switch_at", "resume_at"])
def test_the_dense_control_is_one_whatever_happens_on_the_way(at: str) -> None:
    """It has no masks that could change, and goes on to the same bits."""
    train = {"epochs": 2, "batch_size": 100, at: 3}
    assert len(against(outcomes(scored(0.4, 0.41, train=train), dense()))) == 1


def test_a_baseline_without_xla_is_one_all_the_same() -> None:
    """`train.jit=auto` follows from the strategy, so it is part of what is compared."""
    given = outcomes(scored(0.5, 0.52), scored(0.4, 0.41, strategy="sparse_tensor"))
    assert [o.trial.jit for o in given] == [True, True, False, False]
    (found,) = against(given, "sparse_tensor")
    assert (found.strategy, found.difference.mean) == ("weight_mask", pytest.approx(10.5))


def test_a_baseline_is_given_by_its_label() -> None:
    given = outcomes(
        scored(0.4, 0.41),
        scored(0.3, 0.31, strategy={"name": "weight_mask", "form": "product"}),
        dense(),
    )
    (found,) = against(given, "weight_mask(form=product)")
    assert (found.strategy, found.difference.mean) == ("weight_mask", pytest.approx(10))
    (found,) = against(given, "weight_mask")
    assert found.strategy == "weight_mask(form=product)"
    assert against(given, "projection") == []


def test_dense_is_not_compared_with_a_strategy() -> None:
    """It has no mask that would say with which of them."""
    assert [c.strategy for c in against(outcomes(*_pair(0.5, 0.52), dense()), "weight_mask")] == [
        "projection"
    ]


def test_the_table_says_what_the_baseline_is() -> None:
    assert headers()[2] == "test score minus dense"
    assert headers("hard_mask")[2] == "test score minus hard_mask"
    ((name, *_),) = rows(outcomes(*_pair(0.5, 0.52)), "weight_mask")
    assert name == "projection"


# -- noise -----------------------------------------------------------------------------------


def test_the_noise_floor_is_of_dense_trials_alone() -> None:
    two = scored(0.5, 0.54, strategy="dense")
    assert floors(outcomes(two)) == pytest.approx({"accuracy": 4})
    assert floors(outcomes(two, scored(0.1, 0.9))) == pytest.approx({"accuracy": 4})
    assert floors(outcomes(scored(0.1, 0.9))) == {}
    assert floors(outcomes(two[:1])) == {}


def test_the_noise_floor_is_never_across_settings_and_the_largest_of_them() -> None:
    given = outcomes(
        scored(0.5, 0.54, strategy="dense"), scored(0.9, 0.91, strategy="dense", optimizer=SGD)
    )
    assert floors(given) == pytest.approx({"accuracy": 4})


def test_each_metric_has_its_own_noise_floor() -> None:
    given = outcomes(
        scored(0.5, 0.54, strategy="dense"), scored(1.5, 1.75, strategy="dense", **REGRESSION)
    )
    assert floors(given) == pytest.approx({"accuracy": 4, "mse": 0.25})
    assert note(given) == (
        "Noise: two dense trials that differ in their seed alone lie "
        "4.0 points of accuracy (digits) and 0.2500 in mse (diabetes) apart."
    )


def test_a_failed_dense_trial_makes_no_noise() -> None:
    (one, other) = outcomes(scored(0.5, 0.54, strategy="dense"))
    failed = Outcome(other.trial, other.variant, "failed", other.result)
    assert floors([one, failed]) == {}
    assert note([one, failed]) == ""
    assert note([]) == ""


# -- the text --------------------------------------------------------------------------------

FIGURE = re.compile(r"[+-]\d+\.\d+ \[[+-]\d+\.\d+, [+-]\d+\.\d+\]")


def shown(given: Sequence[Outcome], width: int = 120) -> str:
    made = table(given)
    assert made is not None
    console = Console(width=width, file=io.StringIO())
    console.print(made)
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
    found = {row[0]: row[1:] for row in rows(several())}
    assert list(found) == ["weight_mask", "projection", "hard_mask", "gradient_mask"]
    assert found["projection"] == ("random 0.5", "-24.7 [-27.6, -21.7]", "< 0.001", "3")
    assert found["gradient_mask"] == ("random 0.5", "-5.0 [-5.0, -5.0]", "< 0.001", "3")
    _, figure, p, seeds = found["weight_mask"]
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
    given = outcomes(
        scored(1.5, 1.25, **REGRESSION), scored(1.25, 1.0, strategy="dense", **REGRESSION)
    )
    ((_, _, figure, _, _),) = rows(given)
    assert figure == "+0.2500 [+0.2500, +0.2500]"


def test_markdown_never_has_a_bare_mean() -> None:
    text = re.sub(r"\\([\[\]<])", r"\1", as_markdown(several()))
    header, line, *body, blank, said, _, noise = text.splitlines()
    assert header == f"| {' | '.join(headers())} |"
    assert line == "| --- | --- | --- | --- | --- |"
    assert blank == ""
    assert noise == note(several())
    assert said == method(4)
    assert "of all 4 rows at once (Bonferroni)" in said
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


SCORES = st.lists(st.integers(0, 100), min_size=2, max_size=5)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(st.lists(SCORES, min_size=1, max_size=4), st.integers(0, 3))
def test_an_interval_leaves_out_zero_exactly_where_p_is_clear(
    found: list[list[int]], exponent: int
) -> None:
    """As it is printed: a row must not contradict itself by rounding either."""
    names = ("weight_mask", "projection", "hard_mask", "gradient_mask")
    size = min(map(len, found))
    own = [
        scored(*(0.5 + v / 10**exponent / 100 for v in values[:size]), strategy=name)
        for name, values in zip(names, found, strict=False)
    ]
    for _, _, figure, p, _ in rows(outcomes(*own, scored(*[0.5] * size, strategy="dense"))):
        low, high = map(float, re.findall(r"[+-][\d.]+", figure)[1:])
        assert (low > 0 or high < 0) == ("not clear" not in p), (figure, p)
        assert "-0.0 " not in figure.replace("]", " ").replace(",", " ")
        assert ("not clear" in p) == (float(p.split()[-1 if p[0] == "<" else 0]) >= 0.05)


def test_no_figure_is_nan() -> None:
    for c in against(several()):
        d = c.difference
        assert not any(math.isnan(x) for x in (d.mean, d.low, d.high, d.p))
        assert d.low <= d.mean <= d.high
