"""Tests that a strategy has the same colour, dash and marker in all plots."""

from __future__ import annotations

from masksweep.strategies.registry import STRATEGIES
from masksweep.sweeps.report.plot_style import line_style

PEERS = ["torch dense", "torch csr", "jax masked", "jax bcoo"]


def test_a_strategys_colour_does_not_hang_on_what_else_is_drawn() -> None:
    names = list(STRATEGIES)
    looks = {name: line_style(name, [name]) for name in names}
    assert looks == {name: line_style(name, [*PEERS, *reversed(names)]) for name in names}


def test_no_two_look_alike() -> None:
    variants = ["sparse_tensor(form=coo)", "sparse_tensor(form=lookup)"]
    labels = [*(n for n in STRATEGIES if n != "sparse_tensor"), *variants, *PEERS]
    looks = [line_style(name, labels) for name in labels]
    pairs = {(f["color"], f["linestyle"]) for f in looks}
    assert len(pairs) == len(labels)
