"""The process that checks trials beside the driver."""

from __future__ import annotations

from pathlib import Path

import pytest

from masksweep.strategies import Invalid
from masksweep.sweeps.config.plan import Planned, refused
from masksweep.sweeps.training.preflight import Preflight, check
from masksweep.sweeps.training.setup import start
from tests.support.sweep_process import wait_for
from tests.support.trials import trial


def test_it_loads_tensorflow_before_it_is_asked_and_answers_for_every_trial() -> None:
    asked = [trial(strategy=s, seed=i) for s in ("weight_mask", "var_list") for i in (0, 1)]
    with Preflight() as child:
        maps = Path(f"/proc/{child._child._process.pid}/maps")
        wait_for(lambda: "libtensorflow" in maps.read_text())
        found = check(asked, child.ask)
    assert found.keys() == {t.id for t in asked if t.strategy.name == "var_list"}
    assert not child._child._process.is_alive()


def test_it_says_what_is_cut_off() -> None:
    sparse = {"name": "random", "sparsity": 0.99}
    plain, kept, dense, frozen = (
        trial(pattern=sparse),
        trial(pattern={"name": "random", "sparsity": 0.8, "min_fan_in": 1, "min_fan_out": 1}),
        trial(strategy="dense", pattern=sparse),
        trial(pattern=sparse, held={"name": "constant", "value": 0.5}),
    )
    with Preflight() as child:
        found = check([plain, kept, dense, frozen], child.ask)
    assert found.keys() == {plain.id}
    masks = start(plain).plan.weights
    cut = [[int((~w.mask).all(axis=axis).sum()) for axis in (0, 1)] for w in masks]
    said = [f"hidden_1/kernel {cut[0][0]} of 12 units, {cut[0][1]} of 64 inputs",
            f"hidden_2/kernel {cut[1][0]} of 8 units, {cut[1][1]} of 12 inputs"]  # fmt: skip
    assert found[plain.id].cut_off == "; ".join(said)
    (shown,) = refused([Planned(plain, [])], found)
    assert shown.described()["cut_off"] == found[plain.id].cut_off


def test_what_cannot_be_planned_comes_back_as_bad_input() -> None:
    with Preflight() as child, pytest.raises(Invalid, match=r"targets=nope/\*"):
        check([trial(targets=["nope/*"])], child.ask)


def test_a_model_that_ends_its_process_is_bad_input() -> None:
    with Preflight() as child:
        child._child._process.kill()
        with pytest.raises(Invalid, match="ended the process that built it"):
            check([trial()], child.ask)


def test_one_that_is_left_early_is_gone() -> None:
    with Preflight() as child:
        pass
    assert child._child._process.exitcode is not None
