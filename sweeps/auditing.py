"""`masksweep audit`: whether a saved model holds what its masks say, bit for bit."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import yaml
from rich.text import Text

from strategies.base import Array, Invalid, MaskedWeight, Plan, Weight, require
from strategies.files import read_arrays
from strategies.held import Constant, File, Held, Zero
from strategies.patterns.explicit import to_mask
from sweeps import escape, keras_file
from sweeps.arguments import Parser
from sweeps.findings import Finding, described, findings, holds, table, verdict
from sweeps.progress import doing
from sweeps.store import RUN_ID, Away, store_uri
from sweeps.uri import shown

USAGE = """masksweep audit MODEL MASKS [--held H] [--json]
       masksweep audit RUN_ID [--uri URI] [--json]"""
NAMED = 20
"""How many weights a complaint names."""
FILES = ("config.yaml", "model.keras", "masks.npz", "held.npz")
"""The artifacts of a trial's run that an audit reads."""


@dataclass(frozen=True)
class Saved(Held):
    """What the weights are in another saved model."""

    name: ClassVar[str] = "model"
    path: str

    def __post_init__(self) -> None:
        keras_file.check(self.path)

    def values(self, initial: Mapping[str, Array]) -> dict[str, Array]:
        from strategies.weights import values

        found = values(keras_file.load(self.path))
        _known(self.path, "is without", [n for n in initial if n not in found], list(found))
        return {name: found[name] for name in initial}


def audit(arguments: Sequence[str]) -> int:
    """`masksweep audit MODEL MASKS` or `masksweep audit RUN_ID`: 0 if it holds, 1 if not.

    Raises `Invalid` where there is nothing to audit, or it cannot be read.
    """
    parser = Parser("masksweep audit", USAGE, "Whether masked weights are held, bit for bit.")
    parser.add_argument("model", metavar="MODEL", help="a .keras file, or a trial's run in MLflow")
    parser.add_argument(
        "masks", metavar="MASKS", nargs="?", help=".npz of masks by weight name; False or 0 is held"
    )
    parser.add_argument(
        "--held", metavar="H", help="zero (default), a number, or what a .npz or .keras file holds"
    )
    parser.add_argument("--uri", help="the run's store, as tracking.uri")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(arguments)
    # MLflow names folders by their run's id, and somebody may stand beside one
    if RUN_ID.fullmatch(given.model) and not Path(given.model).is_file():
        unused = given.masks or given.held
        require(unused is None, "audit", unused, "left out: a run has its own masks")
        found = _of_run(given.model, given.uri)
    elif Path(given.model).exists():
        require(given.masks is not None, "MASKS", "", "given: a .npz file of masks by weight name")
        require(given.uri is None, "--uri", given.uri, "left out: the model is a file")
        found = _of_files(given.model, given.masks, _held(given.held or "zero"))
    else:
        raise Invalid("audit", given.model, "no such file, and no run's id, which is 32 hex digits")
    if given.json:
        print(json.dumps(described(found), indent=2, allow_nan=False))
    else:
        console, good = escape.console(), holds(found)
        console.print(table(found))
        # a line whatever the terminal's width
        line = Text(f"\n{verdict(found)}", "green" if good else "bold red")
        console.print(line, soft_wrap=True)
    return int(not holds(found))


def _held(given: str) -> Held:
    match Path(given).suffix:
        case ".npz":
            return File(given)
        case ".keras":
            return Saved(given)
    if given == "zero":
        return Zero()
    try:
        number = float(given)
    except ValueError:
        allowed = "must be zero, a number, a .npz or a .keras file"
        raise Invalid("--held", given, allowed) from None
    return Constant(number)


def _of_run(run_id: str, uri: str | None) -> list[Finding]:
    from sweeps import reader

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
            held = File(path["held.npz"]) if "held.npz" in found else Zero()
            return _of_files(path["model.keras"], path["masks.npz"], held)
        except Invalid as error:
            raise Invalid("run", run_id, str(error).replace(f"{folder}/", "")) from error


def _holds_zero(config: Path) -> bool:
    try:
        return bool(yaml.safe_load(config.read_text())["held"]["name"] == "zero")
    except (OSError, yaml.YAMLError, TypeError, KeyError):
        return False


def _of_files(model: str, masks: str, held: Held) -> list[Finding]:
    keras_file.check(model)
    arrays = read_arrays(masks)
    require(bool(arrays), "path", masks, "a file with masks by weight name; it has none")
    from sweeps.prepare import prepare_process

    with doing(f"Auditing {Path(model).name}"):
        with _quiet():
            prepare_process(threads=1)
        from strategies.weights import describe, values

        loaded = keras_file.load(model)
        weights = {w.name: w for w in describe(loaded)}
        _known(masks, "names", [n for n in arrays if n not in weights], list(weights))
        found = values(loaded)
        return findings(found, _plan([weights[n] for n in arrays], found, arrays, held))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without stderr: TensorFlow greets there, past every setting."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _known(path: str, what: str, wrong: Sequence[str], names: Sequence[str]) -> None:
    """Raise `Invalid` if there are wrong names, with the right ones."""
    if wrong:
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        said = f"{what} {', '.join(wrong[:NAMED])}; the model's weights are "
        raise Invalid("path", path, f"{said}{', '.join(names[:NAMED])}{more}")


def _plan(
    weights: Sequence[Weight], found: Mapping[str, Array], masks: Mapping[str, Array], held: Held
) -> Plan:
    made = {w.name: to_mask(masks[w.name], w.shape, f"mask of {w.name}") for w in weights}
    if all(mask.all() for mask in made.values()):
        raise Invalid("masks", ", ".join(made), "nothing is masked, so there is nothing to audit")
    values = held.values({name: found[name] for name in made})
    for name, mask in made.items():
        finite = bool(np.isfinite(values[name][~mask]).all())
        require(finite, name, "NaN or infinite", "held at finite numbers")
    return Plan(tuple(MaskedWeight(w, made[w.name], values[w.name]) for w in weights))
