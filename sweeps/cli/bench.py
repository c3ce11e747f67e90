"""The command: what to time, and where the results go."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from masksweep.strategies.base import Invalid, Strategy
from masksweep.sweeps.bench import cases, peers
from masksweep.sweeps.bench.cases import SIZES, SPARSITIES, Case, Size
from masksweep.sweeps.bench.peers import PeerCase
from masksweep.sweeps.common import escape
from masksweep.sweeps.common.parser import Parser

if TYPE_CHECKING:
    from masksweep.sweeps.bench.report import Found
    from masksweep.sweeps.bench.timing import Row, Untimed
    from masksweep.sweeps.tracking.writer import Tracker


@dataclass(frozen=True)
class Asked:
    """What is to be timed."""

    sizes: tuple[Size, ...]
    strategies: tuple[type[Strategy], ...]
    sparsities: tuple[float, ...]
    peers: bool
    trials: bool
    threads: int
    path: Path
    """Of the JSON file; the plot is beside it."""
    uri: str | None

    @property
    def files(self) -> dict[str, Path]:
        """What is written, by its name in the MLflow run."""
        return {"bench.json": self.path, "bench.png": self.path.with_suffix(".png")}


def bench(arguments: Sequence[str]) -> int:
    """`bench`: time the strategies' steps, and write table, plot, file and MLflow run.

    The file is written anew after each row: what was measured before an interruption is in it. The
    exit code is 1 if a case failed, or the results could not be recorded in MLflow.
    """
    asked = parsed(arguments)

    from masksweep.sweeps.config.sections import Tracking
    from masksweep.sweeps.tracking.writable import require_store
    from masksweep.sweeps.tracking.writer import Tracker
    from masksweep.sweeps.training import setup

    require_store(asked.uri)
    tracker = Tracker(Tracking(uri=asked.uri), "bench")  # before the time is spent
    setup.prepare_process(asked.threads)
    from masksweep.sweeps.bench import report

    if asked.trials:
        return _trials(asked, tracker)
    found = _measured(asked)
    asked.files["bench.png"].write_bytes(report.plot(found))
    files = {name: path.read_bytes() for name, path in asked.files.items()}
    params = found.environment | {"sizes": ",".join(found.sizes)}
    recorded = _recorded(tracker, params, report.metrics(found), files, report.note(found))
    escape.console().print(report.all_tables(found))  # last, since whoever reads it may leave
    print(f"Written: {', '.join(map(str, asked.files.values()))}")
    return int(not recorded or any(u.failed for u in found.untimed))


def parsed(arguments: Sequence[str]) -> Asked:
    """What the arguments ask for. Raises `Invalid`; loads no TensorFlow."""
    parser = Parser(prog="masksweep bench", allow_abbrev=False)
    known = cases.known()
    parser.add_argument("--sizes", help="default: S,M,L")
    parser.add_argument("--strategies", help="default: all")
    parser.add_argument("--sparsities", help=f"default: {','.join(map(str, SPARSITIES))}")
    parser.add_argument("--peers", action="store_true", help="PyTorch and JAX, where installed")
    parser.add_argument("--trials", action="store_true", help="instead: trials beside keras.fit")
    parser.add_argument("--threads", type=int, default=1, help="of an operation; default: 1")
    parser.add_argument("--json", default="bench.json", metavar="FILE", help="the plot is beside")
    parser.add_argument("--uri", help="as tracking.uri; default: the store that run uses")
    given = parser.parse_args(arguments)
    path = Path(given.json)
    if path.suffix != ".json" or not path.absolute().parent.is_dir():
        raise Invalid("--json", given.json, "a file.json in a folder that is there")
    steps = (given.sizes, given.strategies, given.sparsities, given.peers or None)
    if given.trials and steps != (None,) * 4:
        raise Invalid("--trials", True, "without --sizes, --strategies, --sparsities and --peers")
    if given.peers and len(peers.missing()) == len(peers.FORMATS):
        raise Invalid("--peers", True, f"none is installed: {', '.join(peers.missing())}")
    if given.threads < 1:
        raise Invalid("--threads", given.threads, "must be 1 or more")
    return Asked(
        sizes=tuple(SIZES[s] for s in _chosen("--sizes", given.sizes, SIZES)),
        strategies=tuple(known[s] for s in _chosen("--strategies", given.strategies, known)),
        sparsities=SPARSITIES if given.sparsities is None else _fractions(given.sparsities),
        peers=given.peers,
        trials=given.trials,
        threads=given.threads,
        path=path,
        uri=given.uri,
    )


def _chosen(flag: str, given: str | None, known: Collection[str]) -> list[str]:
    if given is None:
        return list(known)
    names = list(dict.fromkeys(filter(None, given.split(","))))
    wrong = next((name for name in names if name not in known), None)
    if wrong is not None or not names:
        raise Invalid(flag, given if wrong is None else wrong, f"of {', '.join(known)}")
    return names


def _fractions(given: str) -> tuple[float, ...]:
    try:
        found = tuple(sorted({float(part) for part in given.split(",")}))
    except ValueError:
        found = ()
    if not found or not all(0 < s < 1 for s in found):
        raise Invalid("--sparsities", given, "numbers in (0, 1), with commas between")
    return found


def _measured(asked: Asked) -> Found:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from masksweep.sweeps.bench.report import Found
    from masksweep.sweeps.bench.timing import CONTROLS, Bed, measure
    from masksweep.sweeps.common import provenance

    found = Found(provenance.known() | {"code": provenance.code_version()})
    todo: dict[Size, list[Case | PeerCase]] = {}
    for size in asked.sizes:
        theirs = peers.cases(size, asked.sparsities, asked.threads) if asked.peers else []
        # theirs first: TensorFlow keeps the most memory that it ever took
        todo[size] = [*theirs, *cases.cases(size, asked.strategies, asked.sparsities)]
    columns = (
        BarColumn(20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    console = escape.console(stderr=True)
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=sum(len(listed) for listed in todo.values()))

        def keep(result: Row | Untimed) -> None:
            found.add(result)
            write(asked.path, found.as_json())
            progress.advance(task)
            if not console.is_terminal:
                console.out(result.said, highlight=False)

        for size, listed in todo.items():
            progress.update(task, description=f"{size.name} dense")
            bed = Bed(size)
            found.controls[size.name] = dict(zip(CONTROLS, bed.control_ms, strict=True))
            for case in listed:
                progress.update(task, description=" ".join(map(str, case.label.values())))
                keep(measure(bed, case))
    return found


def _trials(asked: Asked, tracker: Tracker) -> int:
    """Whole trials, as a table, a file and an MLflow run."""

    from masksweep.sweeps.bench import trials
    from masksweep.sweeps.bench.report import as_note
    from masksweep.sweeps.common import provenance
    from masksweep.sweeps.common.spinner import doing

    costs: list[trials.Cost] = []
    with doing("Timing whole trials beside keras.fit"):
        for cost in trials.all_costs():
            costs.append(cost)
            told = {"environment": provenance.known(), "trials": [asdict(c) for c in costs]}
            write(asked.path, json.dumps(told, indent=1))
    note, files = as_note(trials.table(costs)), {"bench.json": asked.path.read_bytes()}
    params = provenance.known() | {"code": provenance.code_version()}
    recorded = _recorded(tracker, params, trials.metrics(costs), files, note)
    escape.console().print(trials.table(costs))
    print(f"Written: {asked.path}")
    return int(not recorded)


def write(path: Path, text: str) -> None:
    """Write a file so that no half of it has its name."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def _recorded(
    tracker: Tracker,
    params: Mapping[str, str],
    metrics: Sequence[tuple[str, float, int]],
    files: Mapping[str, bytes],
    note: str,
) -> bool:
    from masksweep.sweeps.common.spinner import doing
    from masksweep.sweeps.tracking.store import Away, Refused

    try:
        with doing("Recording in MLflow"):
            tracker.record(params, metrics, files, note)
    except (Away, Refused, Invalid) as error:
        print(f"masksweep: not recorded in MLflow: {error}", file=sys.stderr)
        return False
    return True
