"""Tests of which plots a report has, and of what is drawn in them."""

from __future__ import annotations

from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.report.plots import draw_plots
from masksweep.sweeps.results import TrialResult
from tests.support.trials import trial


def outcome(strategy: str, pattern: str, accuracy: float) -> Outcome:
    metrics = {"test/accuracy": accuracy, "speed/ratio_to_dense": 1.1, "integrity/ok": 1.0}
    return Outcome(
        trial(strategy=strategy, pattern=pattern), "", "ok", TrialResult("ok", metrics=metrics)
    )


def test_strategies_of_other_kinds_of_masks_are_not_drawn_on_one_axis() -> None:
    """Masks of another kind make other steps and scores, so no front joins them."""
    of_random = [outcome(name, "random", 0.8) for name in ("weight_mask", "projection")]
    of_columns = [outcome(name, "columns", 0.7) for name in ("var_list", "weight_mask")]
    both = draw_plots([*of_random, *of_columns])
    assert both.keys() == {"pareto random", "pareto columns"}
    assert b"var_list" in both["pareto columns"]
    assert b"projection" not in both["pareto columns"]
    assert b"projection" in both["pareto random"]
    assert draw_plots(of_random).keys() == {"pareto"}
