"""The command `masksweep verify`: checks the project's claims by running their experiments.

By default it leaves out experiments that take hours, such as `leak_atlas`, `schedules` and
`set_tutorial`: `masksweep verify --only leak_atlas` checks one of them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib import resources

import yaml
from rich.console import Console

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.common import escape
from masksweep.sweeps.common.parser import Parser
from masksweep.sweeps.components import plugins
from masksweep.sweeps.report import claims
from masksweep.sweeps.report.claims import CheckedClaim

EXPERIMENTS = ("seed_questions", "equivalence", "mnist1d", "lottery_tickets", "lenet300")
"""Experiments whose claims are checked by default. Others with claims are parts of these, or take
hours, such as `schedules` and `set_tutorial`: `--only` checks them."""
SPARSE_MATMUL = "sparse_matmul"
"""Name of the check of TensorFlow's table of sparse against dense products. It has no trials."""


def verify(arguments: Sequence[str]) -> int:
    """Runs `masksweep verify`: runs the experiments, and shows each claim with its figure.

    Trials that are finished in this folder's store are not run again.

    Args:
        arguments: The command's arguments, without the word `verify`.

    Returns:
        The exit code: 0 only if every sweep ended well, and every claim was checked and holds.
    """
    from masksweep.sweeps.composing.command_line import compose_plan
    from masksweep.sweeps.driver import run_sweep

    parser = Parser(prog="masksweep verify", allow_abbrev=False, epilog=plugins.HELP)
    parser.add_argument("--only", action="append", metavar="NAME", help="one experiment")
    parser.add_argument("--rerun", action="store_true", help="what is done counts as not done")
    options, overrides = parser.parse_known_args(arguments)
    known = [*experiments_with_claims(), SPARSE_MATMUL]
    for name in options.only or ():
        if name not in known:
            raise Invalid("--only", name, f"one of {', '.join(known)}")
    checked: list[CheckedClaim] = []
    all_sweeps_ok = True
    start, console = time.monotonic(), escape.console()
    for name in options.only or (*EXPERIMENTS, SPARSE_MATMUL):
        console.rule(name)
        if name == SPARSE_MATMUL:
            checked += _verify_sparse_matmul(console)
            continue
        arguments = [f"+experiment={name}", *overrides]
        trials = compose_plan(arguments)
        if not trials:
            return 0
        sweep_result = run_sweep.run(trials, arguments, rerun=options.rerun)
        if sweep_result.exit_code > 1:
            return sweep_result.exit_code
        all_sweeps_ok &= sweep_result.exit_code == 0 and bool(sweep_result.checked)
        checked += sweep_result.checked
    console.rule("claims")
    console.print(claims.table(checked))
    passed = sum(c.passed is True for c in checked)
    minutes = (time.monotonic() - start) / 60
    print(f"\n{passed} of {len(checked)} claims hold ({minutes:.0f} min)")
    return 0 if all_sweeps_ok and checked and passed == len(checked) else 1


def _verify_sparse_matmul(console: Console) -> list[CheckedClaim]:
    """Checks the claims about the speed of sparse products. Loads TensorFlow."""
    from masksweep.sweeps.bench import sparse_matmul_report
    from masksweep.sweeps.common.spinner import show_status
    from masksweep.sweeps.training import process

    process.prepare_process(threads=1)
    with show_status("Timing sparse and dense products"):
        return sparse_matmul_report.verify(console)


def experiments_with_claims() -> list[str]:
    """Returns the names of the experiments that make claims, also by the experiments in them."""
    folder = resources.files("masksweep.conf").joinpath("experiment")
    configs = {
        entry.name.removesuffix(".yaml"): yaml.safe_load(entry.read_text())
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    }
    names = (name for name, config in configs.items() if (config.get("sweep") or {}).get("claims"))
    return sorted({*names, *EXPERIMENTS})
