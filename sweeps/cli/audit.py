"""The command `masksweep audit`: checks a saved model's masked weights bit for bit."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.text import Text

from masksweep.strategies.errors import Invalid, require
from masksweep.strategies.held.constant import Constant
from masksweep.strategies.held.zero import Zero
from masksweep.sweeps.audit import mask_files, stored
from masksweep.sweeps.audit.files import HeldArrays, HeldModel, audit_files
from masksweep.sweeps.audit.findings import Finding, describe, holds, naming_note, table, verdict
from masksweep.sweeps.audit.opening import SUFFIXES, exists
from masksweep.sweeps.common import escape, safe_yaml
from masksweep.sweeps.common.parser import Parser
from masksweep.sweeps.common.redact import redact
from masksweep.sweeps.common.spinner import show_status
from masksweep.sweeps.common.text import printable
from masksweep.sweeps.tracking import run_config
from masksweep.sweeps.tracking.store import RUN_ID, StoreUnavailable, store_uri

USAGE = """masksweep audit MODEL MASKS [--weight NAME] [--held H] [--json]
       masksweep audit RUN_ID [--uri URI] [--json]"""
RUN_FILES = ("config.yaml", "model.keras", "masks.npz", "held.npz")
"""Artifacts of a trial's MLflow run that an audit reads."""


def audit(arguments: Sequence[str]) -> int:
    """Runs `masksweep audit MODEL MASKS` or `masksweep audit RUN_ID`, and prints the findings.

    Args:
        arguments: The command's arguments, without the word `audit`.

    Returns:
        The exit code: 0 if every masked entry has its held value, 1 if not.

    Raises:
        Invalid: There is nothing to audit, or a file cannot be read.
    """
    parser = Parser("masksweep audit", USAGE, "Whether masked weights are held, bit for bit.")
    parser.add_argument(
        "model",
        metavar="MODEL",
        help=f"{stored.MODEL_FORMATS}; or a trial's run in MLflow, by its id",
    )
    parser.add_argument(
        "masks",
        metavar="MASKS",
        nargs="?",
        help=f"{mask_files.MASK_FORMATS}; 0, False and what a sparse matrix does not store"
        " are held",
    )
    parser.add_argument(
        "--weight", metavar="NAME", help="the weight that a mask without a name is for"
    )
    parser.add_argument(
        "--held",
        metavar="H",
        help="zero (default), a number, a .npz file by weight name, or a model as MODEL",
    )
    parser.add_argument("--uri", help="the run's store, as tracking.uri")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(arguments)
    # MLflow names folders by run ids, so a run id may name a folder in the current folder too
    is_file = exists("audit", args.model)
    if RUN_ID.fullmatch(args.model) and not Path(args.model).is_file():
        unused_option = args.masks or args.held or args.weight
        require(unused_option is None, "audit", unused_option, "left out: a run has its own masks")
        findings = _audit_run(args.model, args.uri)
    elif is_file:
        require(args.masks is not None, "MASKS", "", f"given: {mask_files.MASK_FORMATS}")
        require(args.uri is None, "--uri", args.uri, "left out: the model is a file")
        held = _parse_held(args.held or "zero")
        findings = audit_files(args.model, args.masks, held, args.weight)
    else:
        raise Invalid("audit", args.model, "neither a file nor the id of a run (32 hex digits)")
    if args.json:
        print(json.dumps(describe(findings), indent=2, allow_nan=False))
    else:
        console, all_hold = escape.console(), holds(findings)
        console.print(table(findings))
        if naming_note(findings):
            console.print(Text(f"\n{printable(naming_note(findings))}"), soft_wrap=True)
        # the verdict stays on one line, however narrow the terminal is
        verdict_line = Text(f"\n{verdict(findings)}", "green" if all_hold else "bold red")
        console.print(verdict_line, soft_wrap=True)
    return int(not holds(findings))


def _parse_held(text: str) -> Zero | Constant | HeldArrays | HeldModel:
    if text == "zero":
        return Zero()
    number = None
    with suppress(ValueError):
        number = float(text)
    if number is not None:
        return Constant(number)
    if Path(text).suffix == ".npz":
        return HeldArrays(text)
    if exists("--held", text) or Path(text).suffix in SUFFIXES:
        return HeldModel(text)
    raise Invalid("--held", text, f"must be zero, a number, a .npz file, or {stored.MODEL_FORMATS}")


def _audit_run(run_id: str, uri: str | None) -> list[Finding]:
    from masksweep.sweeps.tracking import stored_runs

    with tempfile.TemporaryDirectory() as folder:
        reference_files = [f"{name}.json" for name in RUN_FILES]
        try:
            with show_status(f"Fetching run {run_id}"):
                wanted = {*RUN_FILES, *reference_files}
                downloaded = stored_runs.download(uri, run_id, wanted.__contains__, Path(folder))
        except StoreUnavailable as error:
            raise Invalid(
                "tracking.uri", redact(store_uri(uri)), f"cannot be reached: {error}"
            ) from error
        paths = {name: str(Path(folder, name)) for name in downloaded}
        for name in set(reference_files) & set(downloaded):
            raise Invalid("run", run_id, f"too large for its store; {name} says where the file is")
        if "model.keras" not in downloaded:
            raise Invalid(
                "run", run_id, "has no model.keras: no trial's run, or of one that did not end well"
            )
        if "masks.npz" not in downloaded:
            raise Invalid("run", run_id, "has no masks: the dense control holds nothing")
        if "held.npz" not in downloaded and not _holds_zero(Path(folder, "config.yaml")):
            raise Invalid("run", run_id, "has no held values: it was made before they were kept")
        try:
            held = HeldArrays(paths["held.npz"]) if "held.npz" in downloaded else Zero()
            return audit_files(paths["model.keras"], paths["masks.npz"], held)
        except Invalid as error:
            raise Invalid("run", run_id, str(error).replace(f"{folder}/", "")) from error


def _holds_zero(config: Path) -> bool:
    try:
        _, values = safe_yaml.read(config, run_config.MAX_FILE_BYTES, run_config.MAX_FILE_VALUES)
        return bool(values["held"]["name"] == "zero")
    except (ValueError, TypeError, KeyError):
        return False
