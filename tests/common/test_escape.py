"""Texts of configs stay plain text in a note, a spreadsheet, a table and a terminal."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.common import escape
from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.driver import summary
from masksweep.sweeps.report import claims, export
from masksweep.sweeps.report.claims import CheckedClaim
from masksweep.sweeps.report.results_table import as_markdown
from masksweep.sweeps.results import TrialResult
from tests.support.command import masksweep
from tests.support.trials import trial

PICTURE = "![x](http://127.0.0.1/x.png) <img src=x onerror=alert(1)>\n\n# a [l](j) `c` *b* a|b"


def assert_escaped(text: str) -> None:
    """Checks that Markdown shows the text as it is, and that something was escaped."""
    unescaped = re.sub(r"\\.", "", text)
    assert unescaped != text
    for sign in ("![", "](", "<", "`", "*", "#"):
        assert sign not in unescaped


def test_a_question_makes_no_picture_in_a_note() -> None:
    note = summary.note(PICTURE, f"masksweep run 'sweep.name={PICTURE}'", [], [])
    question, command = note.split("Run again with")
    assert_escaped(question)
    assert question.count("\n") == 2
    # the command is not escaped, because all its lines are in a code block
    assert all(line.startswith("    ") for line in command.strip("\n").splitlines())


def test_a_claim_makes_no_picture_in_a_note() -> None:
    text = claims.as_markdown([CheckedClaim("a|b", PICTURE, f"1 failed: {PICTURE}", ">= 2", True)])
    assert_escaped(text)
    assert len(text.splitlines()) == 3


def test_a_variant_makes_no_picture_in_a_table() -> None:
    outcome = Outcome(trial(), PICTURE, "failed", reason=PICTURE)
    assert_escaped(as_markdown([outcome]))


def test_a_cause_makes_no_picture_in_a_note() -> None:
    result = TrialResult(
        "ok",
        metrics={"integrity/ok": 0.0, "integrity/violations": 3.0},
        tags={"integrity.through": PICTURE},
    )
    note = summary.note("", "", [Outcome(trial(), "", "ok", result)], [])
    (leak,) = [line for line in note.splitlines() if line.startswith("**Leak**")]
    assert "x.png" in leak
    assert_escaped(leak.removeprefix("**Leak**"))


@pytest.mark.parametrize("formula", ["=1+1", "+1", "-1+x", "@x", "\t=1", "\r=1"])
def test_a_text_is_no_formula_in_a_spreadsheet(formula: str) -> None:
    frame = pd.DataFrame({"name": [formula, "-", "a"], "number": [-1.5, 2.0, 3.0]})
    files = export.files("trials", frame)
    table = pd.read_csv(io.BytesIO(files["trials.csv"]))
    assert table["name"][0].startswith("'")
    assert list(table["name"][1:]) == ["-", "a"]
    assert list(table["number"]) == [-1.5, 2.0, 3.0]
    parquet = pd.read_parquet(io.BytesIO(files["trials.parquet"]))
    assert list(parquet["name"]) == [
        formula,
        "-",
        "a",
    ]  # unchanged: only programs read it


def test_a_terminal_shows_markup_as_it_is() -> None:
    out = io.StringIO()
    escape.console(file=out, width=80).print("[bold]a[/bold] [link=http://x]b[/link] :smile: [/x]")
    assert out.getvalue() == "[bold]a[/bold] [link=http://x]b[/link] :smile: [/x]\n"


@pytest.mark.parametrize("text", ["a\x1b[2Jb", "a\x07", "a\x9b2J", "\x7f"])
@pytest.mark.parametrize(
    "config",
    [
        lambda text: {"sweep": {"name": text}},
        lambda text: {"sweep": {"question": text}},
        lambda text: {"sweep": {"claims": {"a": {"says": text, "metric": "x", "equals": 1}}}},
        lambda text: {"targets": [text]},
        lambda text: {text: 1},
    ],
)
def test_no_text_moves_the_cursor(text: str, config: Callable[[str], dict[str, object]]) -> None:
    with pytest.raises(Invalid, match="no control characters"):
        trial(**config(text))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_without_the_signs_shows_them_by_number(tmp_path: Path, encoding: str) -> None:
    env = {"LC_ALL": "C", "LANG": "C", "PYTHONIOENCODING": encoding}
    process = masksweep("run", "--cfg", "job", "sweep.name='é → ü'", cwd=tmp_path, **env)
    assert (process.returncode, process.stderr) == (0, "")
    expected = {"ascii": r"\xe9 \u2192 \xfc", "latin-1": "é \\u2192 ü", "utf-8": "é → ü"}[encoding]
    assert f"name: {expected}" in process.stdout
