"""Tests of `masksweep selftest`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from masksweep.strategies.hard_mask import HardMask
from masksweep.strategies.init_only import InitOnly
from masksweep.strategies.testing import Case, strategy_checks
from masksweep.strategies.testing.documented import CASES
from masksweep.sweeps.bench import selftest
from masksweep.sweeps.bench.selftest import Check, Finding
from masksweep.sweeps.cli.main import main
from tests.support.sweep_process import clean_env


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "gpu"], "--device=gpu: needs a GPU"),
        (["--device", "tpu"], "--device=tpu: cpu or gpu"),
        (["--json", "a.txt"], "--json=a.txt: must be a .json file in an existing folder"),
        (["--json", "nowhere/a.json"], "--json=nowhere/a.json: must be a .json file in an"),
    ],
)
def test_what_cannot_be_checked_is_one_line(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["selftest", *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"masksweep: {said}")
    assert not list(tmp_path.iterdir())


def first_checks(case: Case) -> dict[str, Callable[[], None]]:
    """The first checks of a strategy. All of them take some ten seconds."""
    return dict(islice(strategy_checks(case).items(), 3))


def test_a_strategy_must_hold_what_it_is_documented_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "strategy_checks", first_checks)
    outcome, says = selftest._contract(Case(InitOnly()))
    assert outcome == "failed"
    assert "holds zero under sgd: (violations, drift) by step: " in says


@pytest.mark.slow
def test_a_strategy_must_leak_where_it_is_documented_to() -> None:
    assert selftest._contract(Case(HardMask()))[0] == "ok"
    outcome, says = selftest._contract(Case(HardMask(), leaks={("sgd", "zero"): "values"}))
    assert outcome == "failed"
    assert "holds zero under sgd: it is documented to leak, and holds" in says


def test_a_check_that_raises_has_failed() -> None:
    def broken() -> tuple[selftest.Outcome, str]:
        raise RuntimeError("out of order\nwith more lines")

    found = Check("steps", "broken", broken).run()
    assert found == Finding("steps", "broken", "failed", "RuntimeError: out of order")
    fine = Check("steps", "fine", lambda: ("ok", "1.00 x dense")).run()
    assert fine == Finding("steps", "fine", "ok", "1.00 x dense")


def test_formats_are_those_of_the_device() -> None:
    masks = selftest._masks()
    coo = "coo: compiled code runs on a CPU only"
    assert selftest._format("cpu", masks["scattered"]) == ("ok", "compiled")
    assert selftest._format("cpu", masks["small"]) == ("ok", "dense")
    assert selftest._format("gpu", masks["scattered"]) == ("off", coo)
    assert selftest._format("gpu", masks["column"]) == ("ok", "compact")


@pytest.mark.slow  # all checks
def test_this_cpu_passes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "masksweep.sweeps.cli", "selftest"]
    process = subprocess.run(
        command, cwd=tmp_path, env=clean_env(), capture_output=True, text=True, timeout=1800
    )
    assert process.returncode == 0, process.stderr[-3000:]
    content = json.loads((tmp_path / "selftest.json").read_text())
    found = [Finding(**finding) for finding in content["findings"]]
    assert {f.subject for f in found if f.part == "contract"} == CASES.keys()
    assert {f.part for f in found} == {"contract", "steps", "memory", "determinism", "formats"}
    assert content["device"] == "cpu"
    assert content["environment"]["tensorflow"]
    assert f"{len(found)} checks, 0 failed. Written: selftest.json" in process.stdout
