"""Tests that the order of strategies is that of the published leak atlas."""

from __future__ import annotations

import html
import re
from collections import Counter
from pathlib import Path

from masksweep.sweeps.report.leak_atlas_results import RESULTS, CellCounts, rank

ROOT = Path(__file__).parents[2]


def test_the_figures_are_those_of_the_atlas() -> None:
    page = (ROOT / ".assets" / "leak_atlas.html").read_text()
    held_by_label = {}
    for section in page.split("<h2>")[1:]:
        label = html.unescape(section.split("</h2>")[0])
        cells = Counter(re.findall(r"<td class=(\w+)>", section))
        held_by_label[label] = CellCounts(cells.total() - cells["refused"], cells["exact"])
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


def test_the_table_is_written_in_its_own_order() -> None:
    assert [rank(label) for label in RESULTS] == list(range(len(RESULTS)))
    assert rank("somebody's own") == len(RESULTS)
