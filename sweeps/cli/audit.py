"""`masksweep audit`: whether a saved model holds what its masks say, bit for bit."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.text import Text

from masksweep.strategies.base import Invalid, require
from masksweep.strategies.held.constant import Constant
from masksweep.strategies.held.zero import Zero
from masksweep.sweeps.audit import mask_files, stored
from masksweep.sweeps.audit.files import Arrays, Saved, of_files
from masksweep.sweeps.audit.findings import Finding, described, holds, note, table, verdict
from masksweep.sweeps.audit.opening import SUFFIXES, exists
from masksweep.sweeps.common import escape, safe_yaml
from masksweep.sweeps.common.parser import Parser
from masksweep.sweeps.common.redact import shown
from masksweep.sweeps.common.spinner import doing
from masksweep.sweeps.common.text import printable
from masksweep.sweeps.tracking import run_config
from masksweep.sweeps.tracking.store import RUN_ID, Away, store_uri

USAGE = """masksweep audit MODEL MASKS [--weight NAME] [--held H] [--json]
       masksweep audit RUN_ID [--uri URI] [--json]"""
FILES = ("config.yaml", "model.keras", "masks.npz", "held.npz")
"""The artifacts of a trial's run that an audit reads."""


def audit(arguments: Sequence[str]) -> int:
    """`masksweep audit MODEL MASKS` or `masksweep audit RUN_ID`: 0 if it holds, 1 if not.

    Raises `Invalid` where there is nothing to audit, or it cannot be read.
    """
    parser = Parser("masksweep audit", USAGE, "Whether masked weights are held, bit for bit.")
    parser.add_argument(
        "model", metavar="MODEL", help=f"{stored.FORMATS}; or a trial's run in MLflow, by its id"
    )
    parser.add_argument(
        "masks",
        metavar="MASKS",
        nargs="?",
        help=f"{mask_files.FORMATS}; 0, False and what a sparse matrix does not store are held",
    )
    parser.add_argument(
        "--weight", metavar="NAME", help="the weight of a mask without a name, if more fit it"
    )
    parser.add_argument(
        "--held",
        metavar="H",
        help="zero (default), a number, a .npz file by weight name, or a model as MODEL",
    )
    parser.add_argument("--uri", help="the run's store, as tracking.uri")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(arguments)
    # MLflow names folders by their run's id, and somebody may stand beside one
    there = exists("audit", given.model)
    if RUN_ID.fullmatch(given.model) and not Path(given.model).is_file():
        unused = given.masks or given.held or given.weight
        require(unused is None, "audit", unused, "left out: a run has its own masks")
        found = _of_run(given.model, given.uri)
    elif there:
        require(given.masks is not None, "MASKS", "", f"given: {mask_files.FORMATS}")
        require(given.uri is None, "--uri", given.uri, "left out: the model is a file")
        held = _held(given.held or "zero")
        found = of_files(given.model, given.masks, held, given.weight)
    else:
        raise Invalid("audit", given.model, "no such file, and no run's id, which is 32 hex digits")
    if given.json:
        print(json.dumps(described(found), indent=2, allow_nan=False))
    else:
        console, good = escape.console(), holds(found)
        console.print(table(found))
        if note(found):
            console.print(Text(f"\n{printable(note(found))}"), soft_wrap=True)
        # a line whatever the terminal's width
        line = Text(f"\n{verdict(found)}", "green" if good else "bold red")
        console.print(line, soft_wrap=True)
    return int(not holds(found))


def _held(given: str) -> Zero | Constant | Arrays | Saved:
    if given == "zero":
        return Zero()
    number = None
    with suppress(ValueError):
        number = float(given)
    if number is not None:
        return Constant(number)
    if Path(given).suffix == ".npz":
        return Arrays(given)
    if exists("--held", given) or Path(given).suffix in SUFFIXES:
        return Saved(given)
    raise Invalid("--held", given, f"must be zero, a number, a .npz file, or {stored.FORMATS}")


def _of_run(run_id: str, uri: str | None) -> list[Finding]:
    from masksweep.sweeps.tracking import reader

    with tempfile.TemporaryDirectory() as folder:
        large = [f"{name}.json" for name in FILES]
        try:
            with doing(f"Fetching run {run_id}"):
                found = reader.download(uri, run_id, [*FILES, *large], Path(folder))
        except Away as error:
            raise Invalid("tracking.uri", shown(store_uri(uri)), f"is away: {error}") from error
        path = {name: str(Path(folder, name)) for name in found}
        for name in set(large) & set(found):
            raise Invalid("run", run_id, f"too large for its store; {name} says where the file is")
        if "model.keras" not in found:
            raise Invalid(
                "run", run_id, "has no model.keras: no trial's run, or of one that did not end well"
            )
        if "masks.npz" not in found:
            raise Invalid("run", run_id, "has no masks: the dense control holds nothing")
        if "held.npz" not in found and not _holds_zero(Path(folder, "config.yaml")):
            raise Invalid("run", run_id, "has no held values: it was made before they were kept")
        try:
            held = Arrays(path["held.npz"]) if "held.npz" in found else Zero()
            return of_files(path["model.keras"], path["masks.npz"], held)
        except Invalid as error:
            raise Invalid("run", run_id, str(error).replace(f"{folder}/", "")) from error


def _holds_zero(config: Path) -> bool:
    try:
        _, values = safe_yaml.read(config, run_config.LONG, run_config.VALUES)
        return bool(values["held"]["name"] == "zero")
    except (ValueError, TypeError, KeyError):
        return False
