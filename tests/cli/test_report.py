"""Tests of `masksweep report`: its statements, and that the page needs no other file."""

from __future__ import annotations

import re
import shutil
from contextlib import chdir
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from masksweep.sweeps.cli.main import main
from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.config.plan import PlannedTrial
from masksweep.sweeps.config.variants import variants
from masksweep.sweeps.report import ranking, recommendation
from masksweep.sweeps.report.recommendation import sentences
from masksweep.sweeps.results import TrialResult
from masksweep.sweeps.tracking import resume
from tests.support.sweep_process import local_store
from tests.support.trials import trial as make

SPARSITIES, SEEDS = (0.5, 0.9), (0, 1, 2)
# strategy: (accuracy minus dense accuracy, step time / dense step time, whether it holds)
WAYS = {
    "weight_mask": (-0.01, 1.2, True),
    "projection": (-0.01, 1.05, True),
    "sparse_tensor": (-0.1, 0.5, True),
    "gradient_mask": (0.0, 0.9, False),
    "init_only": (0.0, 1.0, False),
}


def result(score: float, ratio: float, held: bool | None) -> TrialResult:
    metrics = {"test/accuracy": score, "speed/ratio_to_dense": ratio, "speed/step_ms": ratio}
    tags = {}
    if held is not None:
        metrics |= {"integrity/ok": float(held), "integrity/violations": 0.0 if held else 7.0}
        metrics["integrity/peak_violations"] = metrics["integrity/violations"]
    if held is False:
        metrics |= {"integrity/peak_drift": 0.25, "integrity/first_violation_step": 3.0}
        tags["integrity.through"] = "decay"
    return TrialResult("ok", metrics=metrics, tags=tags, artifacts={"environment.txt": b"a: 1\n"})


def outcomes(ways: dict[str, tuple[float, float, bool]] = WAYS, **more: Any) -> list[Outcome]:
    outcome_list = []
    for seed in SEEDS:
        dense = 0.8 + 0.01 * seed
        trial = make(strategy="dense", seed=seed, **more)
        outcome_list.append(Outcome(trial, "", "ok", result(dense, 1.0, None)))
        for name, (score, ratio, held) in ways.items():
            for sparsity in SPARSITIES:
                pattern = {"name": "random", "sparsity": sparsity}
                trial = make(strategy=name, seed=seed, pattern=pattern, **more)
                outcome_list.append(Outcome(trial, "", "ok", result(dense + score, ratio, held)))
    return outcome_list


def said(topic: str, trials: list[Outcome]) -> str:
    return dict(sentences(trials))[topic]


def test_the_fastest_of_the_best_that_hold_is_advised() -> None:
    trials = outcomes({**WAYS, "projection": (-0.01, 0.8, True)})
    assert said("Use", trials) == (
        "projection: it held in all of 6 trials. Its mean test accuracy is 80.0 %; "
        "two seeds of the dense control lie 1.4 points apart."
    )
    assert (
        said("Speed", trials) == "with projection a step takes 0.80 [0.80, 0.80] of a dense one's."
    )
    assert said("Also hold", trials) == (
        "weight_mask (+0.0 points, step 1.20 [1.20, 1.20], slower); "
        "sparse_tensor (-9.0 points, step 0.50 [0.50, 0.50], faster)."
    )
    assert said("Leak", trials) == "gradient_mask in 6 of 6 trials, through decay."
    assert said("Control", trials) == "init_only leaks in every trial, as it must."


def test_those_that_tie_are_named_together_in_the_order_of_the_atlas() -> None:
    """A small difference in speed does not decide: on another machine it may be reversed."""
    trials = outcomes()
    advice = said("Use", trials)
    assert advice.startswith("weight_mask, or equally projection: each held in all of its trials.")
    assert "1.25 times faster" in advice
    assert "projection (+0.0 points, step 1.05 [1.05, 1.05], faster)" in said("Also hold", trials)


@pytest.mark.parametrize("load", [0.0, 0.02, 0.15])
@pytest.mark.parametrize("seed", range(5))
def test_the_advice_does_not_follow_the_machines_noise(load: float, seed: int) -> None:
    """The advice is the same on a quiet or loaded machine, and with one ratio of 0.28."""
    rng = np.random.default_rng(seed)
    ways = {
        "sparse_values": (-0.01, 0.94, True),
        "projection": (-0.01, 0.98, True),
        "sparse_tensor": (-0.01, 7.6, True),
        "weight_mask": (-0.01, 1.01, True),
    }
    trials = outcomes(ways)
    noisy = [
        replace(o, result=replace(o.result, metrics={
            **o.result.metrics,
            "speed/ratio_to_dense": o.result.metrics["speed/ratio_to_dense"]
            * float(np.exp(load * rng.standard_normal())),
        }))
        for o in trials
    ]  # fmt: skip
    if load:
        hiccup = next(i for i, o in enumerate(noisy) if o.trial.strategy.name == "projection")
        noisy[hiccup] = replace(noisy[hiccup], result=result(0.79, 0.28, True))
    advice = said("Use", noisy)
    assert advice == said("Use", trials)
    assert advice.startswith("weight_mask, or equally projection or sparse_values: ")


def test_what_is_much_faster_is_preferred_only_where_the_intervals_are_apart() -> None:
    ways = {"projection": (0.0, 1.0, True), "sparse_values": (0.0, 0.6, True)}
    trials = outcomes(ways)
    assert said("Use", trials).startswith("sparse_values: ")
    noisy = [
        replace(o, result=result(0.8, 0.6 * 3**o.trial.seed / 3, True))
        if o.trial.strategy.name == "sparse_values"
        else o
        for o in trials
    ]
    assert said("Use", noisy).startswith("projection, or equally sparse_values: ")


def test_with_one_seed_the_trials_own_intervals_count() -> None:
    def timed(strategy: str, ratio: float, *limits: float) -> Outcome:
        base = result(0.8, ratio, True)
        interval = dict(zip(("speed/ratio_low", "speed/ratio_high"), limits, strict=False))
        return Outcome(make(strategy=strategy), "", "ok",
                       replace(base, metrics={**base.metrics, **interval}))  # fmt: skip

    slow = timed("weight_mask", 1.0, 0.9, 1.1)
    assert said("Use", [slow, timed("sparse_tensor", 0.5, 0.4, 0.6)]).startswith("sparse_tensor: ")
    for other in (timed("sparse_tensor", 0.5, 0.4, 0.95), timed("sparse_tensor", 0.5)):
        advice = said("Use", [slow, other])
        assert advice.startswith("weight_mask, or equally sparse_tensor: ")


def test_without_a_noise_floor_nothing_is_chosen_by_score() -> None:
    """On a regression task with one seed, a 33.9 times slower step was advised for 5e-8 of mse."""
    ways = {"weight_mask": (1.0, 0.18), "sparse_tensor": (1.0 - 5e-8, 33.9)}
    trials = []
    for name, (mse, ratio) in {"dense": (1.5, 1.0), **ways}.items():
        metrics = {"test/mse": mse, "speed/ratio_to_dense": ratio, "integrity/ok": 1.0}
        metrics |= {"speed/ratio_low": 0.9 * ratio, "speed/ratio_high": 1.1 * ratio}
        trial = make(strategy=name, data="diabetes", objective="test/mse")
        trials.append(Outcome(trial, "", "ok", TrialResult("ok", metrics=metrics)))
    assert said("Use", trials) == (
        "weight_mask: it held in all of 1 trials. Its mean test mse is 1; "
        "without two seeds of the dense control no score counts as better."
    )
    also = said("Also hold", trials)
    assert also == "sparse_tensor (-5e-08 in test mse, step 33.90 [30.51, 37.29], slower)."


@pytest.mark.parametrize("data", ["diabetes", "digits"])
@pytest.mark.parametrize("gap", [0.0, -1e-9, 1e-9])
def test_a_difference_that_rounds_to_zero_is_not_minus_zero(data: str, gap: float) -> None:
    name = "test/mse" if data == "diabetes" else "test/accuracy"
    trials = []
    for strategy, score in {"weight_mask": 0.5, "projection": 0.5 + gap}.items():
        trial = make(strategy=strategy, data=data, objective=name)
        metrics = {name: score, "integrity/ok": 1.0}
        trials.append(Outcome(trial, "", "ok", TrialResult("ok", metrics=metrics)))
    assert "-0 " not in said("Also hold", trials)
    assert "-0.0" not in said("Also hold", trials)


def test_what_is_cut_off_is_said_with_the_most_of_a_pattern() -> None:
    trials = outcomes()
    assert "Cut off" not in dict(sentences(trials))
    changed = []
    for o in trials:
        more = {"sparsity/cut_off_units": 50.0 + o.trial.seed, "sparsity/cut_off_inputs": 0.0}
        more = more if o.trial.pattern_label == "random 0.9" else {}
        metrics = {**o.result.metrics, **more}
        changed.append(replace(o, result=replace(o.result, metrics=metrics)))
    assert said("Cut off", changed) == "random 0.9: 52 units have no connection left."


def test_a_loaded_machine_is_said() -> None:
    trials = outcomes()
    assert "Timing" not in dict(sentences(trials))
    for number, ratio in ((0, 1.2), (1, 1.01), (2, 1.06)):
        metrics = {**trials[number].result.metrics, "speed/dense_to_dense": ratio}
        trials[number] = replace(trials[number], result=replace(trials[0].result, metrics=metrics))
    assert said("Timing", trials).startswith("in 2 of 3 trials the machine was too loaded")


def test_a_control_that_nothing_reaches_is_said_to_be_inconclusive() -> None:
    trials = outcomes({"weight_mask": WAYS["weight_mask"], "init_only": (0.0, 1.0, True)})
    assert "HOLDS: no verdict can be trusted" in said("Control", trials)
    reached = {"integrity/reached": 0.0, "integrity/unreached": 1650.0}
    unreached = [
        replace(o, result=replace(o.result, metrics={**o.result.metrics, **reached}))
        if o.trial.strategy.role == "control"
        else o
        for o in trials
    ]
    assert said("Control", unreached) == (
        "init_only is inconclusive: no gradient reaches the 1,650 masked entries, so nothing can "
        "move them. It cannot show that the audit sees a leak."
    )


def test_a_score_that_is_no_number_is_none() -> None:
    trial = make(strategy="weight_mask", data="diabetes")
    metrics = {"integrity/ok": 1.0, "test/mse": np.inf}
    trials = [Outcome(trial, "", "ok", TrialResult("ok", metrics=metrics))]
    assert said("Use", trials).startswith("none")


def test_without_a_strategy_that_holds_none_is_advised() -> None:
    trials = outcomes({"gradient_mask": (0.0, 1.0, False), "init_only": (0.0, 1.0, True)})
    assert said("Use", trials).startswith("none")
    assert "HOLDS: no verdict can be trusted" in said("Control", trials)


def test_a_strategy_of_which_a_trial_failed_is_not_advised() -> None:
    trials = outcomes({k: WAYS[k] for k in ("weight_mask", "projection")})
    failed = next(i for i, o in enumerate(trials) if o.trial.strategy.name == "projection")
    trials[failed] = Outcome(trials[failed].trial, "", "failed", reason="a reason")
    assert said("Use", trials).startswith("weight_mask")
    assert "projection: 1 failed" in said("Not run", trials)


def test_one_that_was_tried_under_fewer_settings_does_not_win() -> None:
    """It wins neither by its speed in those settings, nor over one that ran in all settings."""
    trials = outcomes({"projection": (0.0, 1.05, True), "weight_mask": (0.0, 1.2, True)})
    for seed in SEEDS:
        for sparsity, ratio in ((0.5, None), (0.9, 0.3)):
            pattern = {"name": "random", "sparsity": sparsity}
            trial = make(strategy="sparse_tensor", seed=seed, pattern=pattern)
            if ratio is None:
                trials.append(Outcome(trial, "", "skipped", reason="a reason"))
            else:
                trials.append(Outcome(trial, "", "ok", result(0.82, ratio, True)))
    assert said("Use", trials).startswith("weight_mask, or equally projection: ")


def test_what_has_not_run_is_not_said_to_leak() -> None:
    trial = make(strategy="init_only")
    trials = [Outcome(trial, "", "failed", reason="a reason")]
    assert said("Control", trials) == "init_only has not run: no verdict can be trusted."
    assert said("Leak", trials) == "no strategy was tried."


def test_strategies_of_unlike_grids_are_compared_where_they_meet() -> None:
    """Only one strategy was tried with two optimizers, so only its variants name an optimizer."""
    trials = [
        *outcomes({"weight_mask": (0.0, 1.0, True), "projection": (0.0, 1.0, True)}),
        *outcomes({"weight_mask": (-0.1, 1.0, True)}, optimizer="sgd"),
    ]
    names = variants([o.trial for o in trials])
    trials = [replace(o, variant=names[o.trial.id]) for o in trials]
    assert {o.variant for o in trials if o.trial.strategy.name == "projection"} == {""}
    assert said("Use", trials).startswith("weight_mask, or equally projection: ")


def test_strategies_that_never_meet_are_said_to() -> None:
    trials = [
        *outcomes({"weight_mask": (0.0, 1.0, True)}),
        *outcomes({"projection": (0.0, 1.0, True)}, optimizer="sgd"),
    ]
    assert said("Use", trials).startswith("none: the strategies share no setting and seed")


def test_the_noise_is_that_of_the_same_data() -> None:
    """Seeds of the dense control differ by 1.4 points on one data set and 42 on the other."""
    trials = outcomes({"weight_mask": (-0.1, 1.0, True), "projection": (0.0, 1.0, True)})
    for seed, score in zip(SEEDS, (0.2, 0.5, 0.8), strict=True):
        for strategy in ("dense", "weight_mask"):
            trial = make(strategy=strategy, seed=seed, data="mnist1d")
            held = None if strategy == "dense" else True
            trials.append(Outcome(trial, "", "ok", result(score, 1.0, held)))
    assert said("Use (random, digits)", trials).startswith("projection: ")
    assert "lie 1.4 points apart" in said("Use (random, digits)", trials)
    assert "lie 42.4 points apart" in said("Use (random, mnist1d)", trials)


def test_what_proves_nothing_is_not_said_to_leak() -> None:
    trials = outcomes({"weight_mask": (0.0, 1.0, True), "projection": (0.0, 1.0, True)})
    unmoved = next(i for i, o in enumerate(trials) if o.trial.strategy.name == "projection")
    metrics = {"integrity/ok": 0.0, "integrity/violations": 0.0, "integrity/moved": 0.0}
    trials[unmoved] = replace(
        trials[unmoved], result=TrialResult("ok", metrics={**metrics, "test/accuracy": 0.8})
    )
    assert said("Leak", trials) == "none of the strategies."
    assert said("Unproven", trials).startswith(
        "projection in 1 of 6 trials: nothing that may train"
    )


@pytest.mark.parametrize(
    ("tie", "words"),
    [
        (["weight_mask", "projection"], "in the leak atlas each holds in 324 of 324 cells"),
        (["weight_mask", "var_list"], "they are ordered by the fraction of the leak atlas"),
        (["weight_mask", "row_lookup"], "they are ordered by the fraction of the leak atlas"),
        (["weight_mask", "of_ones_own"], "they are listed in a fixed order"),
    ],
)
def test_the_order_of_a_tie_is_explained_by_what_decided_it(tie: list[str], words: str) -> None:
    assert words in recommendation._explain_order(tie)


def test_another_task_is_another_kind() -> None:
    """Percentages and squared errors cannot be averaged."""
    other = make(strategy="weight_mask", data="diabetes")
    trial_result = TrialResult("ok", metrics={"test/mse": 0.5, "integrity/ok": 1.0})
    trials = [*outcomes(), Outcome(other, "", "ok", trial_result)]
    assert "Its mean test mse is 0.5;" in said("Use (random, diabetes)", trials)
    assert said("Use (random, digits)", trials).startswith("weight_mask, or equally projection:")


def test_patterns_are_not_compared_with_one_another() -> None:
    """Otherwise a strategy that was only tried on an easier pattern would win."""
    other = make(strategy="var_list", pattern="columns", held="init", targets=["output/*"])
    trials = [*outcomes(), Outcome(other, "", "ok", result(0.99, 0.1, True))]
    assert said("Use (random)", trials).startswith("weight_mask, or equally projection:")
    assert said("Use (columns, held init)", trials).startswith("var_list")


def test_scores_are_of_the_settings_that_all_share() -> None:
    """A strategy does not gain from a missing trial in the hardest setting."""
    trials = [
        o
        for o in outcomes({"weight_mask": (0.0, 1.0, True), "projection": (0.0, 1.1, True)})
        if not (o.trial.strategy.name == "projection" and o.trial.seed == 0)
    ]
    summaries = ranking.summarize_strategies(ranking.group_by_kind(trials)["random"])
    scores = {s.strategy: s.score for s in summaries}
    assert scores["weight_mask"] == scores["projection"] == pytest.approx(81.5)


class Whole(HTMLParser):
    """Parser that collects what a page would fetch, and the text of its coloured cells."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.coloured: list[tuple[str, str]] = []
        self._kind = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self._kind = (attributes.get("class") or "") if tag == "td" else ""
        links = [
            attributes[k]
            for k in ("src", "href", "xlink:href", "data", "srcset")
            if attributes.get(k)
        ]
        self.fetched += [str(link) for link in links if not str(link).startswith("#")]
        if tag in ("script", "link", "iframe", "object"):
            self.fetched.append(tag)

    def handle_data(self, data: str) -> None:
        if self._kind in ("good", "bad"):
            self.coloured.append((self._kind, data))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """The folder of a sweep and its report."""
    folder = tmp_path_factory.mktemp("sweep")
    shutil.copy(empty_store, folder / "mlflow.db")
    trials = outcomes()
    skipped = make(strategy="var_list")
    tags = {
        "sweep.question": "Which <way> holds?",
        "sweep.command": "masksweep run strategy=<all>",
    }
    planned = [PlannedTrial(o.trial, []) for o in trials]
    with chdir(folder):
        with resume.open_sweep(planned, "small", rerun=False) as (_, recorder, _):
            recorder.start_sweep("", [], tags=tags)
            recorder.sender.start()
            for o in trials:
                recorder.start_trial(o.trial, o.name)
                recorder.end_trial(o.trial, o.result)
            recorder.start_trial(skipped, skipped.name)
            recorder.end_trial(skipped, TrialResult("skipped", "no <whole> outputs"))
            recorder.end_sweep("FINISHED", "", {})
            assert recorder.sender.finish(120)
        assert main(["report"]) == 0
    return folder


def test_the_page_is_whole_by_itself(made: Path) -> None:
    text = (made / "report" / "report.html").read_text()
    page = Whole()
    page.feed(text)
    assert page.fetched == []
    assert not re.search(r"url\(\s*['\"]?(?!#)", text)
    assert text.count("<svg") == 3


def test_it_says_what_held_what_leaked_and_how_to_rerun(made: Path) -> None:
    text = (made / "report" / "report.html").read_text()
    page = Whole()
    page.feed(text)
    assert ("good", "holds") in page.coloured
    leaks = "LEAKS in 3 of 3: gradient_mask, random 0.5, seed 0, through decay"
    assert ("bad", leaks) in page.coloured
    assert "<h2>Compared with the dense control</h2>" in text
    assert "gradient_mask, random 0.9, seed 2" in text  # each trial that leaked is named
    assert "no &lt;whole&gt; outputs" in text
    assert "Which &lt;way&gt; holds?" in text
    assert "masksweep run strategy=&lt;all&gt;" in text
    parent = local_store(made, "small").parent.info.run_id
    assert f"masksweep reproduce --sweep {parent}" in text
    assert "a: 1" in text


def test_pictures_and_tables_are_beside_it_and_in_the_store(made: Path) -> None:
    files = {p.name for p in (made / "report").iterdir()}
    pictures = {"score.png", "speed.png", "pareto.png"}
    tables = {f"{of}.{form}" for of in ("trials", "curves") for form in ("csv", "parquet")}
    assert files == {"report.html"} | tables | pictures
    assert all((made / "report" / n).read_bytes().startswith(b"\x89PNG") for n in pictures)
    trials = pd.read_csv(made / "report" / "trials.csv")
    assert len(trials) == 3 * 11 + 1
    assert np.isclose(trials["test/accuracy"].max(), 0.82)
    store = local_store(made, "small")
    logged = store.client.list_artifacts(store.parent.info.run_id, "report")
    assert {Path(f.path).name for f in logged} == files


def test_a_report_made_again_is_the_same(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    assert main(["report", "small", "--out", "again"]) == 0
    for name in ("report.html", "score.png"):
        assert (made / "again" / name).read_bytes() == (made / "report" / name).read_bytes()


def test_a_baseline_that_shares_nothing_is_said_to(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user asked for the baseline, so its section is not left out."""
    monkeypatch.chdir(made)
    assert main(["report", "--baseline", "var_list", "--out", "skipped"]) == 0
    text = (made / "skipped" / "report.html").read_text()
    assert "<h2>Compared with var_list</h2>\n<p>No strategy has two trials" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none"], "none of this name"),
        (["small", "none"], "none of this name"),
        (["--baseline", "weight"], "--baseline=weight: one of dense, weight_mask, projection,"),
        (["small", "--out", "no/where"], "must be a folder whose parent exists"),
        (["small", "--out", "mlflow.db"], "must be a folder whose parent exists"),
        (["small", "--more"], "see masksweep report --help"),
        (["--uri", "sqlite:///nowhere.db"], "no store there"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    arguments: list[str],
    words: str,
    made: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(made)
    assert main(["report", *arguments]) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
