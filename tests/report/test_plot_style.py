"""A strategy looks the same in every plot."""

from __future__ import annotations

from masksweep.strategies.registry import STRATEGIES
from masksweep.sweeps.report.plot_style import look

PEERS = ["torch dense", "torch csr", "jax masked", "jax bcoo"]


def test_a_strategys_colour_does_not_hang_on_what_else_is_drawn() -> None:
    names = list(STRATEGIES)
    alone = {name: look(name, [name]) for name in names}
    assert alone == {name: look(name, [*PEERS, *reversed(names)]) for name in names}


def test_no_two_look_alike() -> None:
    variants = ["sparse_tensor(form=coo)", "sparse_tensor(form=lookup)"]
    drawn = [*(n for n in STRATEGIES if n != "sparse_tensor"), *variants, *PEERS]
    found = [look(name, drawn) for name in drawn]
    pairs = {(f["color"], f["linestyle"]) for f in found}
    assert len(pairs) == len(drawn)
