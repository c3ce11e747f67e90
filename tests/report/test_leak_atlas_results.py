"""Tests that the order of strategies is that of the published leak atlas."""

from __future__ import annotations

import html
import re
from collections import Counter
from pathlib import Path

from masksweep.sweeps.report.leak_atlas_results import RESULTS, CellCounts, rank

ROOT = Path(__file__).parents[2]


def counts(page: str) -> dict[str, CellCounts]:
    """The cells of a published page by the strategy's label."""
    by_label = {}
    for section in (ROOT / ".assets" / page).read_text().split("<h2>")[1:]:
        label = html.unescape(section.split("</h2>")[0])
        cells = Counter(re.findall(r"<td class=(\w+)>", section))
        by_label[label] = CellCounts(cells.total() - cells["refused"], cells["exact"])
    return by_label


def test_the_figures_are_those_of_the_atlas() -> None:
    held_by_label = counts("leak_atlas.html")
    assert held_by_label.pop("init_only") == CellCounts(324, 0)
    assert held_by_label == RESULTS


def test_the_readme_says_the_same() -> None:
    text = " ".join((ROOT / "README.md").read_text().split())
    exact = [label for label, held in RESULTS.items() if held.exact == held.tried]
    plain = [label for label in exact if "(" not in label]
    (said,) = re.findall(r"((?:`\w+`(?:, | and )?)+) are exact in every cell that they take", text)
    assert set(re.findall(r"`(\w+)`", said)) == set(plain)
    assert f"take ({sum(RESULTS[label].tried for label in exact):,})" in text
    for label in ("gradient_mask", "row_lookup", "loss_mask"):
        leaks = RESULTS[label].tried - RESULTS[label].exact
        assert re.search(rf"`{label}`(?: leaks)? in {leaks}\b", text)


def test_the_readme_says_what_came_out_where_masks_move() -> None:
    text = " ".join((ROOT / "README.md").read_text().split())
    moving = counts("leak_atlas_moving.html")
    exact = {label for label, held in moving.items() if 0 < held.tried == held.exact}
    first_five = {"weight_mask", "projection", "hard_mask", "sparse_values", "sparse_tensor"}
    assert exact == {*first_five, "sparse_tensor(format=lookup)"}
    assert f"the first five are exact again ({sum(moving[x].exact for x in exact)})" in text
    assert moving["var_list"].tried == 0
    masked = moving["gradient_mask"]
    assert f"`gradient_mask` leaks in {masked.tried - masked.exact} of {masked.tried}," in text


def test_the_table_is_written_in_its_own_order() -> None:
    assert [rank(label) for label in RESULTS] == list(range(len(RESULTS)))
    assert rank("somebody's own") == len(RESULTS)
