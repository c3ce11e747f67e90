"""The command `masksweep`. Imports little, so that `--help` answers at once."""

from __future__ import annotations

from masksweep.sweeps.common import safe_path  # noqa: F401  first: no other module may be imported from the current folder

# isort: split
import errno
import sys
from collections.abc import Sequence
from pathlib import Path

from masksweep.strategies.errors import Invalid
from masksweep.sweeps._version import __version__
from masksweep.sweeps.common import streams
from masksweep.sweeps.common.signals import SignalHandler, end_children
from masksweep.sweeps.common.sweep_failed import SweepFailed

USAGE = """\
masksweep finds by experiment which ways of holding masked weights work in TensorFlow.

  masksweep run [OVERRIDES]            train every trial of a sweep, and show which strategies hold
  masksweep plan [OVERRIDES]           show the trials; [--json], [--check] the models and refusals
  masksweep list                       strategies, patterns, held values, models, data, experiments
  masksweep ui [--port N] [--uri URI]  start MLflow on the results, on 127.0.0.1; prints the address
  masksweep report [SWEEP ...]         what came out: a page, pictures, tables; [--baseline LABEL]
  masksweep audit MODEL MASKS          whether a saved model holds its masked weights; [--held H]
  masksweep audit RUN_ID [--uri URI]   the same of a trial's run; both take [--json]
  masksweep reproduce RUN_ID | FILE    run a trial again from its config.yaml; [--sweep] all of one
  masksweep sync [--uri URI]           send results that wait on disk to the MLflow store
  masksweep verify [--only NAME]       run five experiments, and check their claims
  masksweep bench [--sizes S,M,L]      compare each step time with a dense step; see bench --help
  masksweep selftest [--device gpu]    check that Masksweep works on this CPU, or on this GPU
  masksweep doctor [OVERRIDES]         check what would stop that sweep; [--address A]: on a cluster
  masksweep submit [OVERRIDES]         run the sweep as a job of a Ray cluster; [--follow] its log
  masksweep status [ID]                the cluster's sweeps, or one
  masksweep stop ID                    stop a sweep; finished trials are kept
  masksweep --version

run, plan and verify take [--rerun]: trials that are done are run again.
run, plan, list, report, reproduce, verify, doctor and submit take [--plugin FILE.py]: a file with a
model, a data set or another component of your own. No config file can name one.
submit, status and stop take [--address URL], the cluster's dashboard: http://127.0.0.1:8265.
Overrides are Hydra's: `masksweep run strategy=weight_mask,projection pattern.sparsity=.5,.9`.
A comma list sweeps. Named sweeps: `masksweep run +experiment=quickstart`.
All keys: `masksweep run --cfg job`.
"""
COMMANDS = (
    "run, plan, list, ui, report, audit, reproduce, sync, verify, bench, selftest, doctor, submit,"
    " status or stop"
)

PLUGIN_COMMANDS = ("run", "plan", "list", "report", "reproduce", "verify", "doctor", "submit")
"""Commands that take `--plugin`: those that build trials from configs, and `list`."""

MACHINE_ERRORS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EIO, errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOTDIR),
    *(errno.EISDIR, errno.EEXIST),
}
"""Errors that the user has to fix on the machine, such as a full disk. They are shown as one line,
without a traceback."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: The command and its arguments; None takes those of this process.

    Returns:
        The exit code: 0 success; 1 a trial failed, or an audit found a violation; 2 bad input;
        130 or 143 stopped by a signal; 141 the reader of the output has closed the pipe.
    """
    command, *arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    with SignalHandler():
        try:
            if argv is None:
                streams.prepare()
            if command not in ("list", "--version", "--help", "-h", "help"):
                _require_folder()
            try:
                code = _run(command, arguments)
            except SystemExit as exiting:  # argparse, Hydra: --help; rich: BrokenPipeError
                if isinstance(exiting.__context__, BrokenPipeError):
                    raise exiting.__context__ from None
                code = int(exiting.code or 0)
            sys.stdout.flush()  # here, so that the handlers below catch a failure
            return code
        except Invalid as error:
            from masksweep.sweeps.config.validation import single_faults

            for fault in single_faults(error):
                _print_error(str(fault))
            return 2
        except BrokenPipeError:  # the reader has closed the pipe, as `head` does
            streams.redirect_to_null(1)
            return 141
        except OSError as error:
            if error.errno not in MACHINE_ERRORS:
                raise
            streams.redirect_to_null(1)  # stdout may be what cannot be written
            _print_error(f"{error.strerror}{f': {error.filename}' if error.filename else ''}")
            return 1
        except SweepFailed as error:
            _print_error(str(error))
            return 1
        except Exception as error:
            from masksweep.sweeps.tracking.store import StoreUnavailable

            if not isinstance(error, StoreUnavailable):
                raise
            _print_error(f"the tracking store cannot be reached: {error}")
            return 1
        except KeyboardInterrupt as stopped:
            end_children()
            return int(getattr(stopped, "exit_code", 130))


def _require_folder() -> None:
    """Raises `Invalid` if the current folder was deleted: relative paths do not work there."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise Invalid("current folder", "", "was deleted; change to another") from error


def _print_error(message: str) -> None:
    from masksweep.sweeps.common.redact import (
        redact,  # a mistyped key may leave an address with a password in the message
    )
    from masksweep.sweeps.common.text import printable

    print(f"masksweep: {printable(redact(message))}", file=sys.stderr)


def _run(command: str, arguments: list[str]) -> int:
    if command in PLUGIN_COMMANDS:
        arguments = _load_plugins(arguments)
    match command:
        case "run":
            return _sweep(arguments)
        case "plan":
            return _plan(arguments)
        case "list":
            from masksweep.sweeps.cli.listing import list_all

            return list_all(arguments)
        case "ui":
            from masksweep.sweeps.cli.ui import ui

            return ui(arguments)
        case "report":
            from masksweep.sweeps.cli.report import report

            return report(arguments)
        case "audit":
            from masksweep.sweeps.cli.audit import audit

            return audit(arguments)
        case "reproduce":
            from masksweep.sweeps.driver.reproduce import reproduce

            return reproduce(arguments)
        case "sync":
            from masksweep.sweeps.cli.sync import sync

            return sync(arguments)
        case "verify":
            from masksweep.sweeps.cli.verify import verify

            return verify(arguments)
        case "bench":
            from masksweep.sweeps.cli.bench import bench

            return bench(arguments)
        case "selftest":
            from masksweep.sweeps.cli.selftest import selftest

            return selftest(arguments)
        case "doctor":
            from masksweep.sweeps.cli.doctor import doctor

            return doctor(arguments)
        case "submit" | "status" | "stop":
            from masksweep.sweeps.cli import submit

            commands = {"submit": submit.submit, "status": submit.status, "stop": submit.stop}
            return commands[command](arguments)
        case "--version" if not arguments:
            print(f"masksweep {__version__}")
            return 0
        case "--help" | "-h" | "help":
            print(USAGE, end="")
            return 0
    raise Invalid("command", " ".join([command, *arguments]), f"{COMMANDS}; see masksweep --help")


def _load_plugins(arguments: list[str]) -> list[str]:
    """Loads the files that `--plugin` names, and returns the other arguments."""
    if not any(argument.startswith("--plugin") for argument in arguments):
        return arguments
    from masksweep.sweeps.components import plugins

    paths, others = plugins.split_flags(arguments)
    plugins.load_files(paths)
    return others


def _sweep(arguments: list[str]) -> int:
    """Runs `masksweep run`: every trial that is not done yet. Returns the exit code."""
    from masksweep.sweeps.composing.command_line import RUN_FLAGS, compose_plan

    flags, overrides = _split_flags(arguments, RUN_FLAGS)
    trials = compose_plan(overrides)
    if not trials:
        return 0
    from masksweep.sweeps.driver import run_sweep

    return run_sweep.run(trials, overrides, rerun="--rerun" in flags).exit_code


def _plan(arguments: list[str]) -> int:
    """Runs `masksweep plan`: shows what `run` would do. Returns the exit code."""
    from masksweep.sweeps.composing import command_line
    from masksweep.sweeps.config import plan
    from masksweep.sweeps.tracking import resume

    flags, overrides = _split_flags(arguments, (*command_line.RUN_FLAGS, "--json", "--check"))
    planned = command_line.compose_plan(overrides)
    if planned and "--rerun" not in flags:
        name = plan.sweep_name(planned[0].trial, overrides)
        planned, reason = resume.find_done(planned, name)
        if reason:
            print(f"The tracking store cannot be reached ({reason}).", file=sys.stderr)
            print("So trials that have finished are shown as trials to run.", file=sys.stderr)
    if planned and "--check" in flags:
        from masksweep.sweeps.cli import plan_check

        plan_check.check_and_print(planned, "--json" in flags)
    elif planned:
        plan.print_plan(planned, "--json" in flags)
    return 0


def _split_flags(arguments: Sequence[str], own_flags: Sequence[str]) -> tuple[set[str], list[str]]:
    """Splits arguments into (those in `own_flags`, all others in order, for Hydra)."""
    return {a for a in arguments if a in own_flags}, [a for a in arguments if a not in own_flags]
