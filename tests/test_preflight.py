"""The process that checks trials beside the driver."""

from __future__ import annotations

from pathlib import Path

import pytest

from strategies import Invalid
from sweeps.preflight import Child, check
from tests.driver import wait_for
from tests.trials import trial


def test_it_loads_tensorflow_before_it_is_asked_and_answers_for_every_trial() -> None:
    asked = [trial(strategy=s, seed=i) for s in ("weight_mask", "var_list") for i in (0, 1)]
    with Child() as child:
        maps = Path(f"/proc/{child._process.pid}/maps")
        wait_for(lambda: "libtensorflow" in maps.read_text())
        found = check(asked, child.ask)
    assert found.keys() == {t.id for t in asked if t.strategy.name == "var_list"}
    assert not child._process.is_alive()


def test_what_cannot_be_planned_comes_back_as_bad_input() -> None:
    with Child() as child, pytest.raises(Invalid, match=r"targets=nope/\*"):
        check([trial(targets=["nope/*"])], child.ask)


def test_a_model_that_ends_its_process_is_bad_input() -> None:
    with Child() as child:
        child._process.kill()
        with pytest.raises(Invalid, match="ended the process that built it"):
            check([trial()], child.ask)


def test_one_that_is_left_early_is_gone() -> None:
    with Child() as child:
        pass
    assert child._process.exitcode is not None
