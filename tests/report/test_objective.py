"""Tests that `objective` decides what the trials of a sweep are compared by."""

from __future__ import annotations

import json

import pytest

from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.config.score_metric import ScoreMetric
from masksweep.sweeps.driver.progress_panel import render_lines
from masksweep.sweeps.driver.progress_state import Tally
from masksweep.sweeps.report import baseline, plots, ranking, recommendation, results_table
from masksweep.sweeps.results import TrialResult
from masksweep.sweeps.tracking import mlflow_view
from tests.support.trials import trial

RESULTS = {  # by strategy: accuracy, loss and step time
    "dense": (0.80, 0.50, 1.0),
    "weight_mask": (0.90, 0.70, 1.2),
    "projection": (0.70, 0.30, 1.2),
}


def outcomes(objective: str | None) -> list[Outcome]:
    made = []
    for strategy, (accuracy, loss, step) in RESULTS.items():
        for seed in (0, 1):
            metrics = {
                "test/accuracy": accuracy + 0.01 * seed,
                "validation/loss": loss + 0.01 * seed,
                "speed/ratio_to_dense": step,
                "integrity/ok": 1.0,
            }
            planned = trial(strategy=strategy, seed=seed, objective=objective)
            made.append(Outcome(planned, "", "ok", TrialResult("ok", metrics=metrics)))
    return made


@pytest.mark.parametrize(
    ("objective", "advised", "score", "title", "difference", "best"),
    [
        (None, "weight_mask", "90.5 %", "test\naccuracy %", "+10.0", "weight_mask 0.910"),
        ("test/accuracy", "weight_mask", "90.5 %", "test\naccuracy %", "+10.0",
         "weight_mask 0.910"),
        ("validation/loss", "projection", "0.305", "validation\nloss", "-0.2000",
         "projection 0.3"),
    ],
)  # fmt: skip
def test_tables_advice_and_progress_go_by_it(
    objective: str | None, advised: str, score: str, title: str, difference: str, best: str
) -> None:
    trials = outcomes(objective)
    name = title.replace("\n", " ").removesuffix(" %")
    assert results_table.headers(trials)[2] == title
    row = next(r for r in results_table.rows(trials) if r.strategy == advised)
    assert row.score.startswith(score.removesuffix(" %"))
    use = dict(recommendation.sentences(trials))["Use"]
    assert use.startswith(f"{advised}: it held in all of 2 trials. Its mean {name} is {score};")
    assert baseline.headers(trials)[2] == f"{name} minus dense"
    compared = next(r for r in baseline.rows(trials) if r[0] == advised)
    assert compared[2].startswith(difference)
    tally = Tally(6, 0)
    for outcome in trials:
        tally.end(outcome)
    lines = [line.plain for line in render_lines(tally, 120, 24)]
    assert any(line.startswith(f"best {name}: {best}") for line in lines), lines


def test_less_is_better_but_for_accuracies_and_what_holds() -> None:
    """Also where values are negative, as those of a loss of your own may be."""
    assert [ScoreMetric(key).sign for key in ("train/accuracy", "integrity/ok")] == [1, 1]
    assert [ScoreMetric(key).sign for key in ("test/mse", "speed/step_ms")] == [-1, -1]
    assert [ScoreMetric(key).sign for key in ("test/auc", "test/kind_accuracy")] == [1, 1]
    trials = outcomes("validation/loss")
    for outcome in trials:
        outcome.result.metrics["validation/loss"] -= 1
    use = dict(recommendation.sentences(trials))["Use"]
    assert "Its mean validation loss is -0.695;" in use
    (summary,) = (s for s in ranking.summarize_strategies(trials) if s.strategy == "projection")
    assert summary.score == pytest.approx(0.695)


def test_a_trial_is_paired_with_a_dense_one_that_was_recorded_under_another_one() -> None:
    dense = [o for o in outcomes(None) if o.trial.strategy.role == "dense"]
    others = [o for o in outcomes("validation/loss") if o.trial.label == "projection"]
    ((_, _, difference, _, _),) = baseline.rows([*dense, *others])
    assert difference.startswith("-0.2000")
    mixed = [*dense, *others, *(o for o in outcomes(None) if o.trial.label == "projection")]
    assert [r.score.split()[0] for r in results_table.rows(mixed)] == ["80.5", "0.3050", "70.5"]
    assert {*ranking.group_by_kind(mixed)} == {"random, validation loss", "random, test accuracy"}


def test_losses_of_two_tasks_are_not_compared() -> None:
    trials = outcomes("validation/loss")
    for outcome in outcomes("validation/loss"):
        planned = trial(
            data="diabetes", objective="validation/loss", strategy=outcome.trial.strategy.name,
            seed=outcome.trial.seed,
        )  # fmt: skip
        metrics = {**outcome.result.metrics, "validation/loss": 3000.0}
        trials.append(Outcome(planned, "", "ok", TrialResult("ok", metrics=metrics)))
    tally = Tally(len(trials), 0)
    for outcome in trials:
        tally.end(outcome)
    lines = [line.plain for line in render_lines(tally, 120, 24)]
    best = [line for line in lines if line.startswith("best validation loss: ")]
    assert len(best) == 2, lines
    assert "projection 0.3" in best[0]
    assert "3000" in best[1]


def test_a_mean_of_nothing_has_no_sign() -> None:
    assert ScoreMetric("integrity/violations").format(-0.0) == "0"


def test_mlflows_view_shows_each_metric_once() -> None:
    for key in ("speed/ratio_to_dense", "integrity/peak_violations", "test/accuracy"):
        _, view = mlflow_view.view_tag("id", "parent", [key])
        state = json.loads(view)
        lists = [state["selectedColumns"]]
        lists += [c["selectedMetrics"] for c in state["compareRunCharts"] if "selectedMetrics" in c]
        assert all(len(names) == len(set(names)) for names in lists), lists


def test_plots_are_of_it() -> None:
    assert b"validation loss" in plots.draw_plots(outcomes("validation/loss"), "svg")["pareto"]
