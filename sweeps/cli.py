"""The command `masksweep`. Light to import: `--help` answers at once."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from importlib import resources

from strategies.base import Invalid
from sweeps import __version__

USAGE = """\
masksweep settles by experiment how to hold masked weights in TensorFlow.

  masksweep run [OVERRIDES]            train every trial of a sweep, and show which strategies hold
  masksweep plan [OVERRIDES]           show the trials; [--json], [--check] with refusals
  masksweep list                       strategies, patterns, held values, models, data, experiments
  masksweep ui [--port N] [--uri URI]  open MLflow's page on the results, on 127.0.0.1
  masksweep --version

Overrides are Hydra's: `masksweep run strategy=weight_mask,projection pattern.sparsity=.5,.9`.
A comma list sweeps. Named sweeps: `masksweep run +experiment=quickstart`.
All keys: `masksweep run --cfg job`.
"""


# argparse takes any beginning of a flag
PICKLED = re.compile(r"--e[a-z-]*(=|$)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit code: 0 well, 1 a trial failed, 2 bad input, 130 interrupted."""
    command, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        match command:
            case "run":
                return _sweep("run", rest)
            case "plan":
                return _sweep("plan", rest)
            case "list" if not rest:
                return _list()
            case "ui":
                return _ui(rest)
            case "--version" if not rest:
                print(f"masksweep {__version__}")
                return 0
            case "--help" | "-h" | "help":
                print(USAGE, end="")
                return 0
        raise Invalid(
            "command", " ".join([command, *rest]), "run, plan, list or ui; see masksweep --help"
        )
    except Invalid as error:
        print(f"masksweep: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _sweep(command: str, arguments: list[str]) -> int:
    """`run` and `plan`: both compose with Hydra, whose own flags work too."""
    as_json, check = "--json" in arguments, "--check" in arguments
    if command == "plan":
        arguments = [a for a in arguments if a not in ("--json", "--check")]
    for argument in arguments:
        key, _, value = argument.partition("=")
        if PICKLED.match(argument):
            raise Invalid(key, value, "not offered: --experimental-rerun would load a pickle")
        if key.lstrip("+~").startswith(("hydra.", "hydra/")):
            raise Invalid(key, value, "Hydra's own config is fixed here")
    # Hydra prints and exits on errors by itself unless asked for them in full
    os.environ["HYDRA_FULL_ERROR"] = "1"
    import hydra
    from hydra.core.utils import JobReturn

    from sweeps import launcher, plan, sweep
    from sweeps.report import Outcome

    exit_code, composed = 0, False

    def launch(jobs: Sequence[launcher.Composed]) -> list[JobReturn]:
        nonlocal exit_code, composed
        composed = True
        trials = [plan.trial_of(job) for job in jobs]
        planned = plan.plan(jobs, trials)
        outcomes: list[Outcome] = []
        if command == "run" or check:
            planned = plan.preflight(planned)
        if command == "run":
            outcomes, exit_code = sweep.run(planned, arguments)
        else:
            plan.show(planned, as_json)
        by_id = {outcome.trial.id: outcome for outcome in outcomes}
        return [sweep.returned(j, t, by_id.get(t.id)) for j, t in zip(jobs, trials, strict=True)]

    launcher.register()
    sys.argv = [f"masksweep {command}", *arguments]
    try:
        with launcher.taking_over(launch):
            hydra.main(version_base="1.3", config_path="pkg://conf", config_name="config")(_task)()
    except Invalid:
        raise
    except Exception as error:
        if composed:
            raise
        # a config that cannot be composed: Hydra, OmegaConf and YAML each have errors of their own
        overrides = [a for a in arguments if "=" in a and not a.startswith("-")]
        raise explain(error, overrides) from error
    return exit_code


def _task(config: object) -> None:
    raise AssertionError("jobs go to the sweep, never here")


def explain(error: Exception, overrides: Sequence[str]) -> Invalid:
    """Hydra's complaint as one line with key, value and what is allowed."""
    from hydra.errors import MissingConfigException, OverrideParseException

    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        if not error.options:
            return Invalid("config", error.missing_cfg_file, "no such config")
        return Invalid(group, name, f"unknown; one of {', '.join(error.options)}")
    if found := re.search(r"Could not override '([^']*)'", text):
        key = found.group(1)
        value = next((o.partition("=")[2] for o in overrides if o.split("=")[0] == key), "")
        return Invalid(key, value, _siblings(key))
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        return Invalid(key, value, f"not an override that Hydra reads: {text.splitlines()[0]}")
    said = " ".join(text.split()) or type(error).__name__
    if error.__cause__ is not None:
        said += f": {' '.join(str(error.__cause__).split())}"
    named = [o for o in overrides if o in text]
    if "group override must be" in text:  # Hydra does not say which
        named = [o for o in overrides if o.endswith("=null")]
    key, _, value = (named or ["config"])[0].partition("=")
    return Invalid(key, value, said[:300])


def _siblings(key: str) -> str:
    """Why a key is not known: the keys that are, in its place."""
    from hydra import compose, initialize_config_module
    from omegaconf import DictConfig, OmegaConf

    with initialize_config_module("conf", version_base="1.3"):
        config = compose("config")
    if key.startswith("sweep.parts"):
        return "parts are added, as +sweep.parts.NAME.KEY=[...]"
    parent = key.rpartition(".")[0]
    node = OmegaConf.select(config, parent) if parent else config
    if not isinstance(node, DictConfig):
        return f"unknown key; there is no {parent}"
    if key.rpartition(".")[2] in node:
        return f"not a key of every {parent} in this sweep; give each its own in sweep.parts"
    return f"unknown key; one of {', '.join(str(k) for k in node)}"


def _list() -> int:
    """Everything that a config can name, one line each: the first line of its file's comment."""
    folder = resources.files("conf")
    groups = ("strategy", "pattern", "held", "model", "data", "optimizer", "experiment")
    for group in groups:
        print(f"{group}:")
        entries = sorted(folder.joinpath(group).iterdir(), key=lambda e: e.name)
        for entry in entries:
            if entry.name.endswith(".yaml"):
                comments = [x for x in entry.read_text().splitlines() if x.startswith("# ")]
                said = next((x for x in comments if "@package" not in x), "#")
                print(f"  {entry.name.removesuffix('.yaml'):<16}{said.removeprefix('# ')}")
    return 0


def _ui(arguments: Sequence[str]) -> int:
    """MLflow's page on the store that `run` writes to."""
    import argparse

    from sweeps.tracker import is_local, store_uri

    parser = argparse.ArgumentParser(prog="masksweep ui")
    parser.add_argument("--port", type=int, help="default: 5000, or the next free one")
    parser.add_argument("--uri", help="as tracking.uri; default: the one that run uses")
    given = parser.parse_args(arguments)
    uri = store_uri(given.uri)
    if not is_local(uri):
        print(f"The results are on a server already: {uri}")
        return 0
    port = given.port or _free_port(5000)
    page = f"http://127.0.0.1:{port}/#/experiments?workflowType=machine_learning"
    print(f"MLflow on {page}   (Ctrl-C ends it)", flush=True)
    server = ["-m", "mlflow", "server", "--backend-store-uri", uri]
    where = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return subprocess.call([sys.executable, *server, *where])


def _free_port(first: int) -> int:
    for port in range(first, first + 100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise Invalid("--port", first, "a free port")


if __name__ == "__main__":
    sys.exit(main())
