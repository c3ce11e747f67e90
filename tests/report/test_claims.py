"""Tests of claims: when each comparison passes, which trials are selected, what is refused."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from rich.console import Console

from masksweep.strategies import Invalid
from masksweep.sweeps.config.claim import Claim
from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.config.plan import PlannedTrial, check_pairs
from masksweep.sweeps.config.trial import Trial, parse
from masksweep.sweeps.report.claims import CheckedClaim, as_markdown, check, table
from masksweep.sweeps.results import TrialResult
from tests.support.trials import BASE, trial

METRIC = "integrity/max_drift"
ACCURACY = "test/accuracy"


def ok(config: Trial, **metrics: float) -> Outcome:
    return Outcome(config, "", "ok", TrialResult("ok", metrics=metrics))


def measured(*values: float, metric: str = METRIC, **sections: Any) -> list[Outcome]:
    """Returns a trial for each value, with seeds 0, 1, ... and the value as its metric."""
    return [ok(trial(seed=s, **sections), **{metric: v}) for s, v in enumerate(values)]


def ended(status: Any, reason: str = "", **sections: Any) -> Outcome:
    return Outcome(trial(**sections), "", status, reason=reason)


def claim(**fields: Any) -> Claim:
    return Claim(**{"says": "so it is", "metric": METRIC, **fields})


def checked(
    tested: Claim, outcomes: Sequence[Outcome], parts: Mapping[str, list[str]] | None = None
) -> CheckedClaim:
    (result,) = check({"it": tested}, outcomes, parts or {})
    assert (result.name, result.statement) == ("it", tested.says)
    return result


# -- each test, in each trial ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("test", "values", "passed"),
    [
        ({"equals": 0}, (0.0, 0.0), True),
        ({"equals": 0}, (0.0, 1e-30), False),
        ({"equals": 0.5}, (0.5,), True),
        ({"above": 0}, (0.1, 0.2), True),
        ({"above": 0}, (0.1, 0.0), False),
        ({"below": 1}, (0.1, 0.9), True),
        ({"below": 1}, (0.1, 1.0), False),
        ({"at_least": 1}, (1.0, 2.0), True),
        ({"at_least": 1}, (0.999, 2.0), False),
        ({"at_most": 1}, (1.0, 0.0), True),
        ({"at_most": 1}, (1.001, 0.0), False),
        ({"at_most": 1}, (0.0, 1.001), False),
    ],
)
def test_each_trial_must_pass(
    test: dict[str, float], values: tuple[float, ...], passed: bool
) -> None:
    assert checked(claim(**test), measured(*values)).passed is passed


@pytest.mark.parametrize("test", ["equals", "above", "below", "at_least", "at_most"])
@pytest.mark.parametrize("values", [(math.nan,), (0.0, math.nan), (math.nan, 0.0)])
def test_nan_passes_no_test(test: str, values: tuple[float, ...]) -> None:
    for limit in (-1.0, 0.0, 1.0, math.nan):
        assert checked(claim(**{test: limit}), measured(*values)).passed is False


def test_nan_is_near_nothing() -> None:
    near = claim(near=[0.5], tolerance=1000)
    assert checked(near, measured(0.5, math.nan)).passed is False


@pytest.mark.parametrize(
    ("near", "tolerance", "passed"),
    [
        ([0.6], 0.0625, True),
        ([0.6], 0.05, False),
        ([0.75], 0.05, False),
        ([0.9, 0.6, 0.1], 0.0625, True),
        ([0.9, 0.1], 0.0625, False),
        ([0.65625], 0, True),
    ],
)
def test_the_mean_is_near_one_of_the_figures(
    near: list[float], tolerance: float, passed: bool
) -> None:
    outcomes = measured(0.5, 0.8125, metric=ACCURACY)  # each value is far from their mean
    result = checked(claim(metric=ACCURACY, near=near, tolerance=tolerance), outcomes)
    assert result.passed is passed
    assert result.figure == "65.6 % in the mean of 2 trials"


# -- differences -----------------------------------------------------------------------------

CLEAR = (1.0, 1.1, 0.9, 1.05, 0.95)
"""Differences with p < 0.001 and an interval of about [0.9, 1.1]."""
FAINT = (1.0, -1.0, 2.0, -0.5, 1.5)
"""Differences with a mean of 0.6 that is not significant."""
BASELINE = (10.0, 20.0, 30.0, 40.0, 50.0)


def differing(*differences: float) -> list[Outcome]:
    """Returns trials of a strategy and of the dense control, with these differences by seed."""
    control_values = list(BASELINE[: len(differences)])
    strategy_values = [b + d for b, d in zip(control_values, differences, strict=True)]
    # the seeds are in the reverse order of the controls, so that pairing by position would fail
    return [*measured(*strategy_values)[::-1], *measured(*control_values, strategy="dense")]


def minus(**test: Any) -> Claim:
    return claim(trials={"role": "strategy"}, minus={"role": "dense"}, **test)


@pytest.mark.parametrize(
    ("test", "differences", "passed"),
    [
        ({"above": 0}, CLEAR, True),
        ({"above": 0.8}, CLEAR, True),
        ({"above": 0.95}, CLEAR, False),  # the mean is above 0.95, but the interval is not
        ({"above": 1.5}, CLEAR, False),
        ({"above": 0}, FAINT, False),
        ({"above": 0}, tuple(-d for d in CLEAR), False),
        ({"below": 0}, tuple(-d for d in CLEAR), True),
        ({"below": 0}, tuple(-d for d in FAINT), False),
        ({"below": 0}, CLEAR, False),
        ({"below": 1.05}, CLEAR, False),
        ({"at_least": 0.5}, CLEAR, True),
        ({"at_least": 0.99}, CLEAR, False),
        ({"at_least": -2}, FAINT, True),
        ({"at_most": 1.5}, CLEAR, True),
        ({"at_most": 1.01}, CLEAR, False),
        ({"at_most": 0.61}, FAINT, False),
        ({"at_most": 2}, FAINT, False),  # the bootstrap interval ends at 1.6, Student's at 2.2
        ({"at_most": 2.3}, FAINT, True),
        ({"at_most": 0}, (0.0, 0.0, 0.0), True),
        ({"at_least": 0}, (0.0, 0.0, 0.0), True),
        ({"above": 0}, (0.0, 0.0, 0.0), False),
        ({"above": 0}, (2.0, 2.0, 2.0), True),
        ({"above": 0}, (5.0,), False),  # one seed has no interval
        ({"at_most": 10}, (5.0,), False),
        ({"at_least": 0}, (5.0,), False),
    ],
)
def test_differences_are_paired_by_seed(
    test: dict[str, float], differences: tuple[float, ...], passed: bool
) -> None:
    result = checked(minus(**test), differing(*differences))
    assert result.passed is passed
    seeds = "1 seed" if len(differences) == 1 else f"{len(differences)} seeds"
    assert result.figure.endswith(seeds)


def test_only_seeds_of_both_sides_count() -> None:
    outcomes = differing(*CLEAR)
    assert checked(minus(above=0, seeds=5), outcomes).passed
    fewer = [o for o in outcomes if (o.trial.strategy.role, o.trial.seed) != ("dense", 3)]
    result = checked(minus(above=0), fewer)
    assert result.passed
    assert result.figure.endswith("4 seeds")
    assert checked(minus(above=0, seeds=5), fewer).passed is False


def test_a_family_of_claims_is_corrected_together() -> None:
    """A p-value of about 0.03 is significant for one claim, but not for one of three."""
    p_003 = differing(1.0, 2.0, 0.2, 1.2, 0.4)
    assert checked(minus(above=0), p_003).passed
    three = check({n: minus(above=0) for n in "abc"}, p_003, {})
    assert [c.passed for c in three] == [False] * 3
    single = check({"a": minus(above=0), "b": claim(at_least=0)}, p_003, {})
    assert [c.passed for c in single] == [True, True]


def test_a_difference_is_told_with_its_interval_p_and_seeds() -> None:
    outcomes = [
        *measured(0.5, 0.625, metric=ACCURACY),
        *measured(0.25, 0.5, metric=ACCURACY, strategy="dense"),
    ]
    above = claim(metric=ACCURACY, trials={"role": "strategy"}, minus={"role": "dense"}, above=0)
    assert checked(above, outcomes) == CheckedClaim(
        "it", "so it is", "18.8 % [12.5 %, 25.0 %], p = 0.2, 2 seeds", "> 0.0 %", False
    )


def test_what_interval_and_p_are_is_said_where_there_are_any() -> None:
    plain = CheckedClaim("it", "so it is", "0 in 5 trials", "= 0", True)
    compared = CheckedClaim(
        "it", "so", "18.8 % [12.5 %, 25.0 %], p = 0.2, 2 seeds", "> 0.0 %", False
    )
    for results, expected in (([plain], False), ([plain, compared], True)):
        assert ("p after Holm" in as_markdown(results)) == expected
        assert (table(results).caption is not None) == expected


def test_a_difference_that_rounds_to_zero_has_no_sign() -> None:
    outcomes = [
        *measured(0.5 - 1e-6, 0.25 - 2e-6, metric=ACCURACY),
        *measured(0.5, 0.25, metric=ACCURACY, strategy="dense"),
    ]
    figure = checked(minus(metric=ACCURACY, at_least=-0.01), outcomes).figure
    assert figure.startswith("0.0 % [0.0 %, 0.0 %]")


@pytest.mark.parametrize("side", ["trials", "minus"])
def test_two_trials_of_one_seed_on_a_side_are_refused_before_any_runs(side: str) -> None:
    planned = [PlannedTrial(o.trial, []) for o in differing(*CLEAR)]
    check_pairs({"it": minus(above=0)}, planned)
    doubled = trial(strategy="dense" if side == "minus" else "projection", audit={"every": 2})
    with pytest.raises(Invalid, match="two trials of seed 0; one for each seed") as caught:
        check_pairs({"it": minus(above=0)}, [*planned, PlannedTrial(doubled, [])])
    assert caught.value.key == "sweep.claims.it"


# -- selections of trials --------------------------------------------------------------------


def held_and_leaking() -> list[Outcome]:
    """Returns trials of several strategies and widths, a control and a dense trial.

    Each has another value of the metric, so that the value identifies the trial.
    """
    narrow, wide = ({"name": "mlp", "hidden": [h]} for h in (4, 9))
    return [
        ok(trial(strategy="projection", model=narrow), **{METRIC: 1.0}),
        ok(trial(strategy="projection", model=wide), **{METRIC: 2.0}),
        ok(trial(strategy="hard_mask", model=narrow, held="init"), **{METRIC: 3.0}),
        ok(trial(strategy="init_only", model=narrow), **{METRIC: 4.0}),
        ok(trial(strategy="dense", model=narrow), **{METRIC: 5.0}),
        ok(trial(strategy="hard_mask", train={"epochs": 2, "batch_size": 50}), **{METRIC: 6.0}),
    ]


@pytest.mark.parametrize(
    ("selection", "figure"),
    [
        ({}, "1 to 6 in 6 trials"),
        ({"strategy": "projection"}, "1 to 2 in 2 trials"),
        ({"strategy": ["dense", "hard_mask"]}, "3 to 6 in 3 trials"),
        ({"held": "init"}, "3 in 1 trial"),
        ({"train.batch_size": 50}, "6 in 1 trial"),
        ({"train.batch_size": [50, 7]}, "6 in 1 trial"),
        ({"model.hidden": [9]}, "2 in 1 trial"),
        ({"model.hidden": [[9], [4]]}, "1 to 5 in 5 trials"),
        ({"strategy": "projection", "model.hidden": [4]}, "1 in 1 trial"),
        ({"role": "control"}, "4 in 1 trial"),
        ({"role": ["control", "dense"]}, "4 to 5 in 2 trials"),
        ({"role": "strategy", "held": "zero"}, "1 to 6 in 3 trials"),
        ({"seed": 0, "part": "first"}, "1 to 3 in 3 trials"),
        ({"part": ["second", "third"]}, "3 to 4 in 2 trials"),
        ({"part": "second", "strategy": "hard_mask"}, "3 in 1 trial"),
    ],
)
def test_a_selection_takes_what_has_all_its_settings(
    selection: dict[str, Any], figure: str
) -> None:
    outcomes = held_and_leaking()
    ids = [o.trial.id for o in outcomes]
    parts = {i: ["first"] for i in ids[:2]} | {ids[2]: ["first", "second"], ids[3]: ["second"]}
    assert checked(claim(trials=selection, above=0), outcomes, parts).figure == figure


@pytest.mark.parametrize(
    "test",
    [{"equals": 0}, {"near": [0], "tolerance": 9}, {"above": 0, "minus": {}}],
    ids=str,
)
@pytest.mark.parametrize(
    "selection", [{"strategy": "row_lookup"}, {"part": "other"}, {"held.value": 3}], ids=str
)
def test_without_a_trial_nothing_is_checked(
    test: dict[str, Any], selection: dict[str, Any]
) -> None:
    result = checked(claim(trials=selection, **test), held_and_leaking()[:1])
    assert (result.passed, result.verdict) == (None, "not checked")
    assert result.figure == "no such trial in this sweep"


def test_without_a_trial_to_subtract_nothing_is_checked() -> None:
    assert checked(minus(above=0), measured(1.0, 2.0)).passed is None


def test_skipped_trials_are_not_what_a_claim_is_about_and_are_told() -> None:
    refused = ended("skipped", "cannot", strategy="var_list", seed=7)
    result = checked(claim(equals=0), [*measured(0.0), refused])
    assert (result.passed, result.figure) == (True, "0 in 1 trial, 1 skipped")
    assert checked(claim(equals=0), [refused]).passed is None


@pytest.mark.parametrize("test", [{"equals": 0}, {"near": [0], "tolerance": 9}], ids=str)
def test_a_failed_trial_fails_its_claim(test: dict[str, Any]) -> None:
    failed = ended("failed", "Diverged: loss", seed=7)
    figures = measured(0.0)
    tested = claim(**test)
    assert checked(tested, figures).passed
    result = checked(tested, [*figures, failed])
    assert (result.passed, result.figure) == (False, "1 trial failed: Diverged: loss")
    # a failed trial outside of the selection does not count
    other = claim(trials={"strategy": "weight_mask"}, **test)
    assert checked(other, [*figures, ended("failed", strategy="dense")]).passed


@pytest.mark.parametrize("strategy", ["dense", "weight_mask"])
def test_a_failed_trial_on_either_side_fails_a_difference(strategy: str) -> None:
    outcomes = differing(*CLEAR)
    assert checked(minus(above=0), outcomes).passed
    failed = ended("failed", "OSError", strategy=strategy, seed=7)
    assert checked(minus(above=0), [*outcomes, failed]).passed is False


@pytest.mark.parametrize(
    "test", [{"equals": 0}, {"at_most": 1}, {"near": [0], "tolerance": 9}], ids=str
)
def test_a_trial_without_the_metric_fails(test: dict[str, Any]) -> None:
    result = checked(claim(**test), [*measured(0.0), ok(trial(seed=1), other=0.0)])
    assert (result.passed, result.figure) == (False, "measured in 1 of 2 trials")
    assert checked(claim(**test), [ok(trial())]).passed is False


@pytest.mark.parametrize(
    "test", [{"equals": 0}, {"at_least": 0}, {"near": [0], "tolerance": 9}], ids=str
)
def test_fewer_trials_than_asked_for_fail(test: dict[str, Any]) -> None:
    tested = claim(seeds=3, **test)
    assert checked(tested, measured(0.0, 0.0, 0.0)).passed
    result = checked(tested, measured(0.0, 0.0))
    assert (result.passed, result.figure) == (False, "measured in 2 of 3 trials")


# -- invalid claims --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({}, "says"),
        ({"equals": 0, "above": 0}, "says"),
        ({"near": [1], "tolerance": 1, "below": 2}, "says"),
        ({"near": [0.5]}, "tolerance"),
        ({"equals": 0.5, "tolerance": 0.1}, "tolerance"),
        ({"near": [0.5], "tolerance": -0.1}, "tolerance"),
        ({"near": [], "tolerance": 0.1}, "near"),
        ({"near": [0.5], "tolerance": 0.1, "minus": {"role": "dense"}}, "minus"),
        ({"equals": 0, "minus": {"role": "dense"}}, "minus"),
        ({"equals": 0, "seeds": 0}, "seeds"),
        ({"equals": "none"}, "equals"),
        ({"equals": 0, "greater": 1}, "greater"),
        ({"equals": 0, "metric": None}, "metric"),
    ],
    ids=str,
)
def test_what_is_no_claim_is_refused_by_its_key(given: dict[str, Any], key: str) -> None:
    config = {"says": "so it is", "metric": METRIC, **given}
    with pytest.raises(Invalid) as caught:
        parse({**BASE, "sweep": {"claims": {"mine": config}}})
    assert caught.value.key.startswith(f"sweep.claims.mine.{key}")


@pytest.mark.parametrize("missing", ["says", "metric"])
def test_a_claim_says_something_of_a_metric(missing: str) -> None:
    config = {"says": "so it is", "metric": METRIC, "equals": 0}
    del config[missing]
    with pytest.raises(Invalid) as caught:
        parse({**BASE, "sweep": {"claims": {"mine": config}}})
    assert caught.value.key == f"sweep.claims.mine.{missing}"


@pytest.mark.parametrize("side", ["trials", "minus"])
@pytest.mark.parametrize("key", ["strategie", "parts", "metric", "optimizers.learning_rate"])
def test_a_selection_by_no_key_of_a_config_is_refused(side: str, key: str) -> None:
    config = {"says": "so it is", "metric": METRIC, "at_most": 0, side: {key: 1}}
    with pytest.raises(Invalid) as caught:
        parse({**BASE, "sweep": {"claims": {"mine": config}}})
    assert (caught.value.key, caught.value.value) == ("sweep.claims.mine", key)


def test_claims_are_no_part_of_a_trials_identity() -> None:
    config = {"says": "so", "metric": METRIC, "equals": 0, "trials": {"part": "a", "role": "dense"}}
    with_claim = trial(sweep={"claims": {"mine": config}})
    assert with_claim.sweep.claims["mine"] == Claim(**config)
    assert with_claim.id == trial().id


# -- how they are shown ----------------------------------------------------------------------


def shown(results: Sequence[CheckedClaim], width: int = 200) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(table(results))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def three() -> list[CheckedClaim]:
    claims = {
        "holds": claim(says="it holds", equals=0),
        "leaks": claim(says="it leaks", above=0),
        "other": claim(says="another does", trials={"strategy": "row_lookup"}, below=1),
    }
    return check(claims, measured(0.0, 0.0), {})


def test_every_claim_is_shown_with_its_verdict() -> None:
    results = three()
    assert [c.verdict for c in results] == ["PASS", "FAIL", "not checked"]
    for text in (shown(results), as_markdown(results).replace("\\<", "<")):
        lines = [" ".join(line.replace("|", " ").split()) for line in text.splitlines()]
        for line in (
            "claim found allowed verdict",
            "holds: it holds 0 in 2 trials = 0 PASS",
            "leaks: it leaks 0 in 2 trials > 0 FAIL",
            "other: another does no such trial in this sweep < 1 not checked",
        ):
            assert lines.count(line) == 1


def test_no_verdict_is_cut_on_a_narrow_terminal() -> None:
    text = shown(three(), width=50)
    assert "…" not in text
    assert all(text.count(verdict) == 1 for verdict in ("PASS", "FAIL", "not checked"))


def test_markdown_is_a_table_of_four_columns_or_nothing() -> None:
    lines = as_markdown(three()).splitlines()
    assert len(lines) == 5
    assert all(line.count("|") == 5 for line in lines)
    assert as_markdown([]) == ""


@pytest.mark.parametrize(
    ("test", "values", "figure", "allowed"),
    [
        ({"at_most": 0.25}, (0.5,), "0.5 in 1 trial", "<= 0.25"),
        ({"at_least": 12345.678}, (1e-9, 2.0), "1e-09 to 2 in 2 trials", ">= 1.235e+04"),
    ],
)
def test_figures_are_told_with_the_number_of_trials(
    test: dict[str, float], values: tuple[float, ...], figure: str, allowed: str
) -> None:
    result = checked(claim(**test), measured(*values))
    assert (result.figure, result.allowed) == (figure, allowed)


def test_published_figures_and_the_tolerance_are_told() -> None:
    tested = claim(metric=ACCURACY, near=[0.68, 0.65], tolerance=0.015)
    assert checked(tested, measured(0.66, metric=ACCURACY)).allowed == "68.0 % or 65.0 %, +-1.5 %"


def test_a_trial_without_the_metric_fails_a_difference() -> None:
    trials = differing(1.0, 1.1, 0.9, 1.0, 1.05)
    lacking = [Outcome(trials[0].trial, "", "ok"), *trials[1:]]
    assert checked(minus(above=0), trials).passed
    result = checked(minus(above=0), lacking)
    assert (result.passed, result.figure) == (False, "measured in 9 of 10 trials")


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("test", ["above", "below", "at_least", "at_most"])
def test_no_difference_passes_on_what_is_no_finite_number(value: float, test: str) -> None:
    for trials in (differing(value, 1.0, 2.0), differing(value, value, value)):
        assert checked(minus(**{test: 0}), trials).passed is False


def test_words_are_shown_as_they_are() -> None:
    words = {"says": "it holds [/kernel] | [red]so[/red]", "equals": 0}
    results = [checked(claim(**words), measured(0.0))]
    assert "[/kernel] | [red]so[/red]" in " ".join(shown(results, width=200).split())
    assert r"it holds \[/kernel\] \| \[red\]so\[/red\]" in as_markdown(results)
    failed = [ended("failed", "no [/x] there")]
    assert "no [/x] there" in shown([checked(claim(equals=0), failed)], width=200)


def test_the_difference_of_one_seed_has_no_interval() -> None:
    result = checked(minus(at_least=-9), differing(2.0))
    assert (result.figure, result.passed) == ("2, 1 seed", False)


@pytest.mark.parametrize("key", ["train.epoch", "sweep.name", "strategy.colour", "launch.address"])
def test_a_selection_by_what_no_trial_has_is_refused(key: str) -> None:
    claims = {"it": {"says": "so", "metric": METRIC, "equals": 0, "trials": {key: None}}}
    with pytest.raises(Invalid, match=f"sweep.claims.it={key}"):
        trial(sweep={"claims": claims})
