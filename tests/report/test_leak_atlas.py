"""Tests of the leak atlas: the text of each cell, and the HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from typing import Any

import pytest

from masksweep.strategies import Invalid
from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.report.leak_atlas import Cell, cells, page
from masksweep.sweeps.results import TrialResult
from tests.support.trials import trial

EXACT = {
    "ok": 1.0,
    "moved": 1.0,
    "violations": 0.0,
    "peak_violations": 0.0,
    "max_drift": 0.0,
    "peak_drift": 0.0,
}
LEAK = {
    "ok": 0.0,
    "moved": 1.0,
    "violations": 3.0,
    "peak_violations": 7.0,
    "max_drift": 0.001,
    "peak_drift": 0.0256,
    "first_violation_step": 4.0,
}
STEPS = {"steps": 16, "batch_size": 64}


def ended(integrity: Mapping[str, float], through: str = "", **sections: Any) -> Outcome:
    tags = {"integrity.through": through} if through else {}
    metrics = {f"integrity/{k}": v for k, v in integrity.items()}
    return Outcome(trial(**sections), "", "ok", TrialResult("ok", metrics=metrics, tags=tags))


def not_ended(status: Any, reason: str, **sections: Any) -> Outcome:
    return Outcome(trial(**sections), "", status, reason=reason)


def cell(outcome: Outcome) -> Cell:
    (only,) = cells([outcome])
    return only


# -- the text of a cell ----------------------------------------------------------------------


def test_a_trial_without_a_violation_is_exact() -> None:
    shown = cell(ended(EXACT))
    assert (shown.kind, shown.text) == ("exact", "exact")
    assert (shown.drift, shown.step, shown.through) == (0, None, "")


def test_a_leak_says_how_far_from_which_step_and_through_what() -> None:
    shown = cell(ended(LEAK, "decay, slots"))
    assert (shown.kind, shown.drift, shown.step) == ("leaks", 0.0256, 4)
    assert shown.text == "0.026, from step 4, through decay, slots"


@pytest.mark.parametrize("key", ["violations", "peak_violations"])
def test_a_violation_at_the_end_or_on_the_way_is_a_leak(key: str) -> None:
    """A weight that moved back is violated only at a step; the last EMA only at the end."""
    assert cell(ended({**EXACT, key: 1.0})).kind == "leaks"


@pytest.mark.parametrize("key", ["max_drift", "peak_drift"])
def test_the_drift_is_the_largest_at_the_end_or_on_the_way(key: str) -> None:
    assert cell(ended({**EXACT, "violations": 1.0, key: 2.5})).drift == 2.5


def test_the_first_step_is_step_0_too() -> None:
    text = cell(ended({**LEAK, "first_violation_step": 0.0}, "form")).text
    assert text == "0.026, from step 0, through form"


def test_a_negative_zero_is_a_leak_of_the_sign_alone() -> None:
    shown = cell(ended({**LEAK, "max_drift": 0.0, "peak_drift": 0.0}, "form"))
    assert shown.kind == "leaks"
    assert shown.text == "only the sign of 0, from step 4, through form"


def test_a_leak_of_the_end_alone_says_so() -> None:
    late = {k: v for k, v in LEAK.items() if k != "first_violation_step"}
    shown = cell(ended({**late, "max_drift": 0.5}, "EMA"))
    assert shown.step is None
    assert shown.text == "0.5, at the end, through EMA"


def test_a_leak_of_unknown_cause_says_so() -> None:
    assert cell(ended(LEAK)).text.endswith("through ?")


@pytest.mark.parametrize(("status", "kind"), [("skipped", "refused"), ("failed", "failed")])
def test_what_was_not_measured_says_why(status: Any, kind: str) -> None:
    shown = cell(not_ended(status, "masks are scattered", strategy="var_list"))
    assert (shown.strategy, shown.kind) == ("var_list", kind)
    assert shown.text == f"{kind}: masks are scattered"


def test_the_dense_control_has_no_cell_and_the_leaking_one_has() -> None:
    masking = [ended(LEAK, strategy=s) for s in ("init_only", "weight_mask", "hard_mask")]
    atlas_cells = cells([not_ended("skipped", "", strategy="dense"), *masking])
    assert [c.strategy for c in atlas_cells] == ["init_only", "weight_mask", "hard_mask"]


def test_a_strategys_settings_are_part_of_its_name() -> None:
    shown = cell(ended(LEAK, strategy={"name": "weight_mask", "form": "product"}))
    assert shown.strategy == "weight_mask(form=product)"


@pytest.mark.parametrize(
    ("train", "event"),
    [
        ({}, "none"),
        ({"switch_at": 8}, "mask changed"),
        ({"resume_at": 8}, "resumed"),
        ({"switch_at": 8, "resume_at": 9}, "mask changed, resumed"),
    ],
    ids=str,
)
def test_what_happened_on_the_way_is_the_event(train: dict[str, int], event: str) -> None:
    assert cell(ended(EXACT, train={**STEPS, **train})).event == event


@pytest.mark.parametrize("schedule", ["gradual", "set", "rigl"])
def test_a_mask_schedule_is_an_event(schedule: str) -> None:
    assert cell(ended(EXACT, train=STEPS, schedule={"name": schedule})).event == schedule
    both = ended(EXACT, train={**STEPS, "resume_at": 9}, schedule={"name": schedule})
    assert cell(both).event == f"{schedule}, resumed"


@pytest.mark.parametrize(
    ("sections", "setting"),
    [
        ({"optimizer": "sgd"}, "sgd"),
        ({"optimizer": {"name": "adam", "learning_rate": 0.5, "beta_1": 0.8}}, "adam, beta_1=0.8"),
        ({"optimizer": {"name": "sgd", "momentum": 0.9}}, "sgd, momentum=0.9"),
        (
            {"optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": True}},
            "sgd, momentum=0.9, nesterov",
        ),
        ({"optimizer": {"name": "adam", "weight_decay": 0.1}}, "adam, weight_decay=0.1"),
        ({"optimizer": {"name": "adam", "clipnorm": 0.1}}, "adam, clipnorm=0.1"),
        ({"optimizer": {"name": "adam", "clipvalue": 0.1}}, "adam, clipvalue=0.1"),
        ({"optimizer": {"name": "adam", "global_clipnorm": 0.1}}, "adam, global_clipnorm=0.1"),
        (
            {"optimizer": {"name": "adam", "use_ema": True, "ema_overwrite_frequency": 3}},
            "adam, use_ema, ema_overwrite_frequency=3",
        ),
    ],
    ids=str,
)
def test_an_optimizer_is_told_with_what_is_set_beside_it(
    sections: dict[str, Any], setting: str
) -> None:
    assert cell(ended(EXACT, **sections)).setting == setting


@pytest.mark.parametrize(
    ("model", "told"),
    [({"l2": 0.01}, "l2=0.01"), ({"constraint": "unit_norm"}, "constraint=unit_norm")],
    ids=str,
)
def test_penalties_and_constraints_are_told_with_the_optimizer(
    model: dict[str, Any], told: str
) -> None:
    shown = cell(ended(EXACT, model={"name": "mlp", "hidden": [12], **model}))
    assert sorted(shown.setting.split(", ")) == sorted(["adam", told])


def test_held_values_are_told() -> None:
    held = {"name": "constant", "value": 0.25}
    assert cell(ended(EXACT, held=held)).held == "constant(value=0.25)"
    assert cell(ended(EXACT)).held == "zero"


# -- the page --------------------------------------------------------------------------------

VOID = {"meta", "br"}


class Page(HTMLParser):
    """Parses a page. Checks that tags are nested, and collects the cells of each table by row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.classes: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.tags: list[str] = []
        self.prose, self.title, self.style = "", "", ""
        self._strategy = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(key, value or "") for key, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        match tag:
            case "h2":
                self._strategy = ""
            case "table":
                assert self._strategy not in self.tables
                self.tables[self._strategy] = []
            case "tr":
                assert self.open[-2] == "table"
                self.tables[self._strategy].append([])
            case "th" | "td":
                assert self.open[-2] == "tr"
                self.tables[self._strategy][-1].append("")
                self.classes += [value or "" for _, value in attrs] if tag == "td" else []
            case "br":
                self.handle_data("; ")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        match self.open[-1:]:
            case ["th" | "td"]:
                self.tables[self._strategy][-1][-1] += data
            case ["h2"]:
                self._strategy += data
            case ["title"]:
                self.title += data
            case ["style"]:
                self.style += data
            case _:
                self.prose += data


def several() -> list[Outcome]:
    adamw = {"name": "adamw", "learning_rate": 0.01}
    changed = {**STEPS, "switch_at": 8}
    return [
        ended(LEAK, "decay", strategy="gradient_mask", optimizer=adamw),
        ended(EXACT, strategy="gradient_mask"),
        ended(LEAK, "slots", strategy="gradient_mask", train=changed),
        ended(EXACT, strategy="hard_mask"),
        ended(EXACT, strategy="hard_mask", held="init"),
        not_ended("skipped", "masks are scattered", strategy="var_list"),
        not_ended("failed", "Diverged", strategy="projection"),
        not_ended("skipped", "", strategy="dense"),
    ]


def test_the_page_has_a_table_for_each_strategy_with_a_row_for_each_setting() -> None:
    parsed = Page(page(several(), "Atlas"))
    assert parsed.title == "Atlas"
    assert parsed.tables == {
        "gradient_mask": [
            ["optimizer", "zero; none", "zero; mask changed"],
            ["adamw", "0.026, from step 4, through decay", ""],
            ["adam", "exact", "0.026, from step 4, through slots"],
        ],
        "hard_mask": [["optimizer", "zero; none", "init; none"], ["adam", "exact", "exact"]],
        "var_list": [["optimizer", "zero; none"], ["adam", "refused: masks are scattered"]],
        "projection": [["optimizer", "zero; none"], ["adam", "failed: Diverged"]],
    }
    kinds = ["leaks", "none", "exact", "leaks", "exact", "exact", "refused", "failed"]
    assert parsed.classes == kinds
    assert "7 trials: 3 exact, 1 refused, 2 leaks, 1 failed." in " ".join(parsed.prose.split())


def test_every_kind_but_an_empty_cell_has_a_colour() -> None:
    parsed = Page(page(several(), "Atlas"))
    assert all(f"td.{kind} {{" in parsed.style for kind in set(parsed.classes) - {"none"})


def test_names_and_reasons_are_escaped() -> None:
    evil = "<script>alert('&amp;')</script><td>"
    trials: Sequence[Outcome] = [
        not_ended("failed", evil),
        ended(LEAK, evil, strategy="hard_mask"),
    ]
    text = page(trials, evil)
    parsed = Page(text)
    assert parsed.title == evil
    assert "script" not in parsed.tags
    assert "<script" not in text
    assert parsed.tables["weight_mask"][1][1] == f"failed: {evil}"
    assert parsed.tables["hard_mask"][1][1].endswith(f"through {evil}")


def test_the_page_needs_nothing_from_elsewhere() -> None:
    text = page(several(), "Atlas")
    parsed = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "base", "a"} & set(parsed.tags)
    assert {key for key, _ in parsed.attributes} == {"charset", "class"}
    assert not any(word in text.lower() for word in ("http", "url(", "@import", "//", "src="))


def test_a_page_of_nothing_is_a_page() -> None:
    assert Page(page([], "Atlas")).tables == {}


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
def test_of_several_seeds_the_worst_is_shown(order: tuple[int, ...]) -> None:
    outcomes = [ended(EXACT, seed=0), ended(LEAK, "decay", seed=1), ended(EXACT, seed=2)]
    text = page([outcomes[i] for i in order], "seeds")
    assert "0.026, from step 4, through decay" in text
    assert "class=exact" not in text


def test_a_trial_that_masks_nothing_has_no_cell() -> None:
    assert cells([ended({}, pattern={"name": "random", "sparsity": 0})]) == []


def test_a_drift_that_is_no_number_is_told_as_infinite() -> None:
    assert cell(ended({**LEAK, "peak_drift": float("nan")})).text.startswith("inf, from step 4")


@pytest.mark.parametrize(
    ("moved", "reason"),
    [(0.0, "nothing moved"), (1.0, "what was saved differs")],
)
def test_without_a_violation_the_verdict_counts(moved: float, reason: str) -> None:
    shown = cell(ended({**EXACT, "ok": 0.0, "moved": moved}))
    assert (shown.kind, shown.text) == ("unproven", f"unproven: {reason}")


def test_a_control_that_nothing_reaches_is_not_said_to_be_exact() -> None:
    shown = cell(ended({**EXACT, "reached": 0.0}, strategy="init_only"))
    assert (shown.kind, shown.reason) == ("unproven", "no gradient reaches what is masked")
    assert cell(ended(EXACT, strategy="init_only")).kind == "exact"


def test_the_page_asks_for_an_audit_of_every_step() -> None:
    with pytest.raises(Invalid, match=r"audit\.every=10"):
        trial(sweep={"page": "leaks"}, audit={"every": 10})
