"""The claims that the project makes about the world, checked anew.

All but the leak atlas', which takes as long as the others together:
`masksweep run +experiment=leak_atlas`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib import resources

import yaml
from rich.console import Console

from masksweep.strategies.base import Invalid
from masksweep.sweeps.common import escape
from masksweep.sweeps.common.parser import Parser
from masksweep.sweeps.report import claims
from masksweep.sweeps.report.claims import Checked

EXPERIMENTS = ("seed_questions", "equivalence", "mnist1d", "lottery_tickets")
"""Those whose claims are all of the project's; others with claims are parts of them."""
MEASURED = "sparse_matmul"
"""TensorFlow's own table of sparse against dense products, timed anew without trials."""


def verify(arguments: Sequence[str]) -> int:
    """`verify`: run the experiments with claims, and show each claim with its figure.

    What has been run before, in this folder's store, is not run again. The exit code is 0 only if
    every sweep ended well, and every claim was checked and holds.
    """
    from masksweep.sweeps.composing.command_line import planned
    from masksweep.sweeps.driver import run_sweep

    parser = Parser(prog="masksweep verify", allow_abbrev=False)
    parser.add_argument("--only", action="append", metavar="NAME", help="one experiment")
    parser.add_argument("--rerun", action="store_true", help="what is done counts as not done")
    given, overrides = parser.parse_known_args(arguments)
    known = [*with_claims(), MEASURED]
    for name in given.only or ():
        if name not in known:
            raise Invalid("--only", name, f"one of {', '.join(known)}")
    checked: list[Checked] = []
    well = True
    began, console = time.monotonic(), escape.console()
    for name in given.only or (*EXPERIMENTS, MEASURED):
        console.rule(name)
        if name == MEASURED:
            checked += _measured(console)
            continue
        arguments = [f"+experiment={name}", *overrides]
        trials = planned(arguments)
        if not trials:
            return 0
        ended = run_sweep.run(trials, arguments, rerun=given.rerun)
        if ended.exit_code > 1:
            return ended.exit_code
        well &= ended.exit_code == 0 and bool(ended.checked)
        checked += ended.checked
    console.rule("claims")
    console.print(claims.table(checked))
    passed = sum(c.passed is True for c in checked)
    minutes = (time.monotonic() - began) / 60
    print(f"\n{passed} of {len(checked)} claims hold ({minutes:.0f} min)")
    return 0 if well and checked and passed == len(checked) else 1


def _measured(console: Console) -> list[Checked]:
    """The claims on the speed of sparse products; loads TensorFlow."""
    from masksweep.sweeps.bench import sparse_matmul_report
    from masksweep.sweeps.common.spinner import doing
    from masksweep.sweeps.training import setup

    setup.prepare_process(threads=1)
    with doing("Timing sparse and dense products"):
        return sparse_matmul_report.verify(console)


def with_claims() -> list[str]:
    """The experiments that make claims, their own or those of the experiments in them."""
    folder = resources.files("masksweep.conf").joinpath("experiment")
    configs = {
        entry.name.removesuffix(".yaml"): yaml.safe_load(entry.read_text())
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    }
    own = (name for name, config in configs.items() if (config.get("sweep") or {}).get("claims"))
    return sorted({*own, *EXPERIMENTS})
