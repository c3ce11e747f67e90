"""The command `masksweep bench`: its options, and where the results are written."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from masksweep.strategies.base import Strategy
from masksweep.strategies.errors import Invalid
from masksweep.sweeps.bench import cases, peers
from masksweep.sweeps.bench.cases import SIZES, SPARSITIES, Case, Size
from masksweep.sweeps.bench.peers import PeerCase
from masksweep.sweeps.cli import json_file
from masksweep.sweeps.common import escape
from masksweep.sweeps.common.parser import Parser

if TYPE_CHECKING:
    from masksweep.sweeps.bench.report import BenchResults
    from masksweep.sweeps.bench.timing import Row, Untimed
    from masksweep.sweeps.tracking.experiment import Experiment


@dataclass(frozen=True)
class BenchOptions:
    """The options of a bench: what to time, and where to write the results."""

    sizes: tuple[Size, ...]
    strategies: tuple[type[Strategy], ...]
    sparsities: tuple[float, ...]
    peers: bool
    trials: bool
    fit: bool
    threads: int
    path: Path
    """Path of the JSON file. The plot is written beside it, with the suffix `.png`."""
    uri: str | None

    @property
    def files(self) -> dict[str, Path]:
        """Paths of the written files by their artifact name in the MLflow run."""
        return {"bench.json": self.path, "bench.png": self.path.with_suffix(".png")}


def bench(arguments: Sequence[str]) -> int:
    """Runs `masksweep bench`: times steps, and writes a table, a plot, a file and an MLflow run.

    The file is rewritten after each row, so it has all that was measured before an interruption.

    Args:
        arguments: The command's arguments, without the word `bench`.

    Returns:
        The exit code: 1 if a case failed, or if MLflow did not take the results.

    Raises:
        Invalid: An argument is wrong, or the tracking store cannot be opened.
    """
    options = parse_options(arguments)

    from masksweep.sweeps.config.sections import Tracking
    from masksweep.sweeps.tracking.experiment import Experiment
    from masksweep.sweeps.tracking.writable import require_store
    from masksweep.sweeps.training import process

    require_store(options.uri)
    experiment = Experiment(Tracking(uri=options.uri))  # fail here, before the timing starts
    process.prepare_process(options.threads)
    from masksweep.sweeps.bench import report

    if options.trials or options.fit:
        return _time_costs(options, experiment)
    results = _time_steps(options)
    options.files["bench.png"].write_bytes(report.plot(results))
    files = {name: path.read_bytes() for name, path in options.files.items()}
    params = results.environment | {"sizes": ",".join(results.sizes)}
    recorded = _record(experiment, params, report.metrics(results), files, report.note(results))
    # last: if the reader has closed the pipe, printing raises
    escape.console().print(report.all_tables(results))
    print(f"Written: {', '.join(map(str, options.files.values()))}")
    return int(not recorded or any(u.failed for u in results.untimed))


def parse_options(arguments: Sequence[str]) -> BenchOptions:
    """Parses the arguments. Raises `Invalid` if one is wrong. Does not load TensorFlow."""
    parser = Parser(prog="masksweep bench", allow_abbrev=False)
    known = cases.timed_strategies()
    parser.add_argument("--sizes", help="default: S,M,L")
    parser.add_argument("--strategies", help="default: all")
    parser.add_argument("--sparsities", help=f"default: {','.join(map(str, SPARSITIES))}")
    parser.add_argument("--peers", action="store_true", help="also PyTorch, SparseLab and JAX")
    parser.add_argument("--trials", action="store_true", help="time whole trials against keras.fit")
    parser.add_argument("--fit", action="store_true", help="time an epoch of masked models")
    parser.add_argument("--threads", type=int, default=1, help="of an operation; default: 1")
    parser.add_argument(
        "--json", default="bench.json", metavar="FILE", help="results; the plot is beside it"
    )
    parser.add_argument("--uri", help="as tracking.uri; default: the store that run uses")
    options = parser.parse_args(arguments)
    path = json_file.checked_path(options.json)
    step_options = (options.sizes, options.strategies, options.sparsities, options.peers or None)
    for flag, chosen in (("--trials", options.trials), ("--fit", options.fit)):
        if chosen and step_options != (None,) * 4:
            raise Invalid(flag, True, "without --sizes, --strategies, --sparsities and --peers")
    if options.trials and options.fit:
        raise Invalid("--fit", True, "without --trials")
    if options.peers and len(peers.missing_libraries()) == len(peers.FORMATS):
        raise Invalid("--peers", True, f"none is installed: {', '.join(peers.missing_libraries())}")
    if options.threads < 1:
        raise Invalid("--threads", options.threads, "must be 1 or more")
    sizes = _select_names("--sizes", options.sizes, SIZES)
    strategies = _select_names("--strategies", options.strategies, known)
    sparsities: tuple[float, ...] = SPARSITIES
    if options.sparsities is not None:
        sparsities = _parse_sparsities(options.sparsities)
    return BenchOptions(
        sizes=tuple(SIZES[s] for s in sizes),
        strategies=tuple(known[s] for s in strategies),
        sparsities=sparsities,
        peers=options.peers,
        trials=options.trials,
        fit=options.fit,
        threads=options.threads,
        path=path,
        uri=options.uri,
    )


def _select_names(flag: str, text: str | None, known: Collection[str]) -> list[str]:
    if text is None:
        return list(known)
    names = list(dict.fromkeys(filter(None, text.split(","))))
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None or not names:
        raise Invalid(flag, text if unknown is None else unknown, f"must be of {', '.join(known)}")
    return names


def _parse_sparsities(text: str) -> tuple[float, ...]:
    try:
        fractions = tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError:
        fractions = ()
    if not fractions or not all(0 < s < 1 for s in fractions):
        raise Invalid("--sparsities", text, "numbers in (0, 1), with commas between")
    return fractions


def _time_steps(options: BenchOptions) -> BenchResults:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from masksweep.sweeps.bench.report import BenchResults
    from masksweep.sweeps.bench.timing import CONTROL_NAMES, BenchSetup, measure
    from masksweep.sweeps.common import provenance

    results = BenchResults(provenance.environment() | {"code": provenance.code_version()})
    todo: dict[Size, list[Case | PeerCase]] = {}
    for size in options.sizes:
        peer_cases = peers.cases(size, options.sparsities, options.threads) if options.peers else []
        # peers first: TensorFlow never gives memory back, so they would have less later
        todo[size] = [*peer_cases, *cases.cases(size, options.strategies, options.sparsities)]
    columns = (
        BarColumn(20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    console = escape.console(stderr=True)
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=sum(len(group) for group in todo.values()))

        def add_result(result: Row | Untimed) -> None:
            results.add(result)
            json_file.write(options.path, results.as_json())
            progress.advance(task)
            if not console.is_terminal:
                console.out(result.summary, highlight=False)

        for size, group in todo.items():
            progress.update(task, description=f"{size.name} dense")
            bench_setup = BenchSetup(size)
            control_ms = zip(CONTROL_NAMES, bench_setup.control_ms, strict=True)
            results.controls[size.name] = dict(control_ms)
            for case in group:
                progress.update(task, description=" ".join(map(str, case.label.values())))
                add_result(measure(bench_setup, case))
    return results


def _time_costs(options: BenchOptions, experiment: Experiment) -> int:
    """Times whole trials, or `fit`; writes a table, a file and an MLflow run.

    Returns:
        The exit code.
    """
    from masksweep.sweeps.bench import fits, trials
    from masksweep.sweeps.bench.report import to_markdown
    from masksweep.sweeps.common import provenance
    from masksweep.sweeps.common.spinner import show_status

    what, title, measured = "trials", "whole trials beside keras.fit", trials.all_costs
    if options.fit:
        what, title, measured = "fit", "fit of masked models beside plain ones", fits.costs
    costs: list[trials.Cost] = []
    with show_status(f"Timing {title}"):
        for cost in measured():
            costs.append(cost)
            rows = [asdict(c) for c in costs]
            content = {"environment": provenance.environment(), what: rows}
            json_file.write(options.path, json.dumps(content, indent=1))
    note, files = to_markdown(trials.table(costs)), {"bench.json": options.path.read_bytes()}
    params = provenance.environment() | {"code": provenance.code_version()}
    recorded = _record(experiment, params, trials.metrics(costs), files, note)
    escape.console().print(trials.table(costs))
    print(f"Written: {options.path}")
    return int(not recorded)


def _record(
    experiment: Experiment,
    params: Mapping[str, str],
    metrics: Sequence[tuple[str, float, int]],
    files: Mapping[str, bytes],
    note: str,
) -> bool:
    from masksweep.sweeps.common.spinner import show_status
    from masksweep.sweeps.tracking.store import StoreRefused, StoreUnavailable

    try:
        with show_status("Recording in MLflow"):
            experiment.record_run("bench", params, metrics, files, note)
    except (StoreUnavailable, StoreRefused, Invalid) as error:
        print(f"masksweep: not recorded in MLflow: {error}", file=sys.stderr)
        return False
    return True
