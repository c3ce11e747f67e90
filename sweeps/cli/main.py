"""The command `masksweep`. Light to import: `--help` answers at once."""

from __future__ import annotations

from masksweep.sweeps.common import safe_path  # noqa: F401  first: the others must not come from this folder

# isort: split
import errno
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from masksweep.strategies.base import Invalid
from masksweep.sweeps._version import __version__
from masksweep.sweeps.common import streams
from masksweep.sweeps.common.broken import Broken
from masksweep.sweeps.common.signals import Stop, end_children

USAGE = """\
masksweep settles by experiment how to hold masked weights in TensorFlow.

  masksweep run [OVERRIDES]            train every trial of a sweep, and show which strategies hold
  masksweep plan [OVERRIDES]           show the trials; [--json], [--check] with refusals
  masksweep list                       strategies, patterns, held values, models, data, experiments
  masksweep ui [--port N] [--uri URI]  open MLflow's page on the results, on 127.0.0.1
  masksweep report [SWEEP ...]         what came out: a page, pictures, tables; [--baseline LABEL]
  masksweep audit MODEL MASKS          whether a saved model holds its masked weights; [--held H]
  masksweep audit RUN_ID [--uri URI]   the same of a trial's run; both take [--json]
  masksweep reproduce RUN_ID | FILE    run a trial again from its config.yaml; [--sweep] all of one
  masksweep sync [--uri URI]           send results to a store that was away
  masksweep verify [--only NAME]       check every claim: experiments, figures, PASS or FAIL
  masksweep bench [--sizes S,M,L]      time every strategy's step beside dense; see bench --help
  masksweep doctor [OVERRIDES]         what would stop that sweep here; [--address A] of a cluster
  masksweep submit [OVERRIDES]         run the sweep as a job of a Ray cluster; [--follow] its log
  masksweep status [ID]                the cluster's sweeps, or one
  masksweep stop ID                    end a sweep in order
  masksweep --version

run and plan take [--rerun]: what is done already counts as not done.
submit, status and stop take [--address URL], the cluster's dashboard: http://127.0.0.1:8265.
Overrides are Hydra's: `masksweep run strategy=weight_mask,projection pattern.sparsity=.5,.9`.
A comma list sweeps. Named sweeps: `masksweep run +experiment=quickstart`.
All keys: `masksweep run --cfg job`.
"""
COMMANDS = (
    "run, plan, list, ui, report, audit, reproduce, sync, verify, bench, doctor, submit, status"
    " or stop"
)

SERVER_SECONDS = 5.0
"""How long MLflow's server may take to end in order."""

MACHINE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EIO, errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOTDIR),
    *(errno.EISDIR, errno.EEXIST),
}
"""Errors that are the machine's or its user's to mend: a line says more than a traceback."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit code.

    0 well, 1 a trial failed or an audit found what does not hold, 2 bad input, 130 or 143 stopped,
    141 nobody reads its output any more.
    """
    command, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    with Stop():
        try:
            if argv is None:
                streams.prepare()
            if command not in ("list", "--version", "--help", "-h", "help"):
                _require_folder()
            try:
                code = _run(command, rest)
            except SystemExit as left:  # argparse and Hydra after --help, rich if nobody reads
                if isinstance(left.__context__, BrokenPipeError):
                    raise left.__context__ from None
                code = int(left.code or 0)
            sys.stdout.flush()  # here, where what fails is caught
            return code
        except Invalid as error:
            from masksweep.sweeps.config.validation import all_of

            for fault in all_of(error):
                _complain(str(fault))
            return 2
        except BrokenPipeError:  # who reads it has seen enough, as `head`
            streams.discard(1)
            return 141
        except OSError as error:
            if error.errno not in MACHINE:
                raise
            streams.discard(1)  # it may be what cannot be written
            _complain(f"{error.strerror}{f': {error.filename}' if error.filename else ''}")
            return 1
        except Broken as error:
            _complain(str(error))
            return 1
        except Exception as error:
            from masksweep.sweeps.tracking.store import Away

            if not isinstance(error, Away):
                raise
            _complain(f"the store is away: {error}")
            return 1
        except KeyboardInterrupt as stopped:
            end_children()
            return int(getattr(stopped, "exit_code", 130))


def _require_folder() -> None:
    """Raise `Invalid` if the current folder was deleted: no relative path means anything there."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise Invalid("current folder", "", "was deleted; change to another") from error


def _complain(said: str) -> None:
    from masksweep.sweeps.common.redact import (
        shown,  # or an address with a password, where a key was mistyped
    )
    from masksweep.sweeps.common.text import printable

    print(f"masksweep: {printable(shown(said))}", file=sys.stderr)


def _run(command: str, rest: list[str]) -> int:
    match command:
        case "run":
            return _sweep(rest)
        case "plan":
            return _plan(rest)
        case "list" if not rest:
            return _list()
        case "ui":
            return _ui(rest)
        case "report":
            from masksweep.sweeps.cli.report import report

            return report(rest)
        case "audit":
            from masksweep.sweeps.cli.audit import audit

            return audit(rest)
        case "reproduce":
            from masksweep.sweeps.driver.reproduce import reproduce

            return reproduce(rest)
        case "sync":
            from masksweep.sweeps.cli.sync import sync

            return sync(rest)
        case "verify":
            from masksweep.sweeps.cli.verify import verify

            return verify(rest)
        case "bench":
            from masksweep.sweeps.cli.bench import bench

            return bench(rest)
        case "doctor":
            from masksweep.sweeps.cli.doctor import doctor

            return doctor(rest)
        case "submit" | "status" | "stop":
            from masksweep.sweeps.cli import submit

            found = {"submit": submit.submit, "status": submit.status, "stop": submit.stop}
            return found[command](rest)
        case "--version" if not rest:
            print(f"masksweep {__version__}")
            return 0
        case "--help" | "-h" | "help":
            print(USAGE, end="")
            return 0
    raise Invalid("command", " ".join([command, *rest]), f"{COMMANDS}; see masksweep --help")


def _sweep(arguments: list[str]) -> int:
    """`run`: every trial that is not done yet."""
    from masksweep.sweeps.composing.command_line import RUN_FLAGS, planned

    flags, asked = _apart(arguments, RUN_FLAGS)
    trials = planned(asked)
    if not trials:
        return 0
    from masksweep.sweeps.driver import run_sweep

    return run_sweep.run(trials, asked, rerun="--rerun" in flags).exit_code


def _plan(arguments: list[str]) -> int:
    """`plan`: what `run` would do."""
    from masksweep.sweeps.common import spinner
    from masksweep.sweeps.composing import command_line
    from masksweep.sweeps.config import feasible, plan
    from masksweep.sweeps.tracking import resume
    from masksweep.sweeps.training.preflight import Preflight, check

    flags, asked = _apart(arguments, (*command_line.RUN_FLAGS, "--json", "--check"))
    planned = command_line.planned(asked)
    if planned and "--rerun" not in flags:
        name = plan.sweep_name(planned[0].trial, asked)
        planned, away = resume.look(planned, name)
        if away:
            print(f"The store is away ({away}); what is done cannot be seen.", file=sys.stderr)
    if planned and "--check" in flags:
        feasible.check([p.trial for p in planned])
        with spinner.doing(f"Checking {plan.trials(len(planned))}"):
            new = [p.trial for p in planned if not p.found]
            with Preflight() as child:
                planned = plan.refused(planned, check(new, child.ask) if new else {})
    if planned:
        plan.show(planned, "--json" in flags)
    return 0


def _apart(arguments: Sequence[str], ours: Sequence[str]) -> tuple[set[str], list[str]]:
    """(our own flags among the arguments, the rest of them, for Hydra)."""
    return {a for a in arguments if a in ours}, [a for a in arguments if a not in ours]


def _list() -> int:
    """Everything that a config can name, one line each, and where it comes from."""
    from masksweep.sweeps.cli.listing import print_all

    print_all()
    return 0


def _ui(arguments: Sequence[str]) -> int:
    """MLflow's page on the store that `run` writes to."""
    from masksweep.sweeps.common.parser import Parser
    from masksweep.sweeps.common.redact import shown
    from masksweep.sweeps.tracking.reader import latest_page
    from masksweep.sweeps.tracking.store import Away, is_local, store_uri

    parser = Parser(prog="masksweep ui")
    parser.add_argument("--port", type=int, help="default: 5000, or the next free one")
    parser.add_argument("--uri", help="as tracking.uri; default: the one that run uses")
    given = parser.parse_args(arguments)
    uri = store_uri(given.uri)
    if not is_local(uri):
        print(f"The results are on a server already: {shown(uri)}")
        return 0
    port = _free_port(5000) if given.port is None else _checked_port(given.port)
    try:
        page = f"http://127.0.0.1:{port}/{latest_page(uri)}"
    except Away as error:
        raise Invalid("tracking.uri", shown(uri), f"is away: {error}") from error
    print(f"MLflow on {page}   (Ctrl-C ends it)", flush=True)
    where = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # not among its arguments, which everybody on this machine can read
    # its runner of evaluations is eight processes that no sweep needs, and half a minute
    env = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | os.environ
    env |= {"MLFLOW_BACKEND_STORE_URI": uri}
    # uvicorn puts a folder first on its path, by default the current one: be it Python's own
    where += ["--uvicorn-opts", shlex.join(["--app-dir", str(Path(os.__file__).parent)])]
    # not subprocess.call, which kills MLflow's command at a signal and leaves the server it started
    server = subprocess.Popen([sys.executable, "-m", "mlflow", "server", *where], env=env)
    try:
        return server.wait()
    except KeyboardInterrupt:
        end_children(SERVER_SECONDS)
        raise


def _checked_port(port: int) -> int:
    """The port. Raises `Invalid` if no server can listen on it."""
    if not 0 < port < 2**16:
        raise Invalid("--port", port, "must be from 1 to 65535")
    if reason := _taken(port):
        raise Invalid("--port", port, f"{reason}; without --port a free one is taken")
    return port


def _free_port(first: int) -> int:
    for port in range(first, first + 100):
        if not _taken(port):
            return port
    raise Invalid("--port", first, "a free port")


def _taken(port: int) -> str:
    """Why no server can listen on a port of 127.0.0.1; empty if one can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.strerror or "cannot be had"
    return ""
