"""The command `masksweep report`: an HTML page, images, tables and a recommendation."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.common import escape
from masksweep.sweeps.common.parser import Parser
from masksweep.sweeps.common.redact import redact
from masksweep.sweeps.common.spinner import show_status
from masksweep.sweeps.components import plugins
from masksweep.sweeps.tracking.store import StoreRefused, StoreUnavailable, store_uri

if TYPE_CHECKING:
    from masksweep.sweeps.tracking.stored_sweep import StoredSweep


def report(arguments: Sequence[str]) -> int:
    """Runs `masksweep report [SWEEP ...]`: writes a report of sweeps, and logs it to their runs.

    Args:
        arguments: The command's arguments, without the word `report`.

    Returns:
        The exit code: 1 if the report could not be logged in MLflow.

    Raises:
        Invalid: There is no such sweep, it has no ended trial, or there is no such baseline.
    """
    about = "What came out of sweeps, as one page."
    parser = Parser("masksweep report", description=about, epilog=plugins.HELP)
    parser.add_argument("sweep", nargs="*", help="names or run ids; default: the latest")
    parser.add_argument("--baseline", metavar="LABEL", help="what to compare with; default: dense")
    parser.add_argument("--out", default="report", metavar="FOLDER", help="default: report")
    parser.add_argument("--uri", help="as tracking.uri; default: the store that run uses")
    options = parser.parse_intermixed_args(arguments)
    folder = Path(options.out)
    if not folder.absolute().parent.is_dir() or (folder.exists() and not folder.is_dir()):
        raise Invalid("--out", options.out, "must be a folder whose parent exists")
    from masksweep.sweeps.report import recommendation
    from masksweep.sweeps.tracking import experiment

    try:
        sweep, files, sentences = _build_report(options)
    except (StoreUnavailable, StoreRefused) as error:
        raise Invalid("tracking.uri", redact(store_uri(options.uri)), str(error)) from error
    try:
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise Invalid("--out", options.out, f"cannot be written: {error.strerror}") from error
    logged = True
    try:
        with show_status("Logging it to the sweep's run"):
            for part in sweep.single_sweeps:
                experiment.log_files(options.uri, part.run_id, files, "report")
    except (StoreUnavailable, StoreRefused) as error:
        print(f"masksweep: not logged in MLflow: {error}", file=sys.stderr)
        logged = False
    # last: if its reader closes the pipe, printing raises
    recommendation.print_sentences(sentences, escape.console())
    print(f"\nWritten: {folder / 'report.html'}, and {len(files) - 1} files beside it")
    return int(not logged)


def _reasons(left_out: Sequence[str]) -> str:
    """Returns why trials were left out, each reason once, with the number of trials."""
    counts = Counter(text.partition(": ")[2] or text for text in left_out)
    return "; ".join(f"{reason} ({count} trials)" for reason, count in counts.items())


def _build_report(
    options: argparse.Namespace,
) -> tuple[StoredSweep, dict[str, bytes], list[tuple[str, str]]]:
    """Returns (the sweep, the content of the report's files by name, the recommendation).

    Everything is built inside the temporary folder's context: the trials refer to files of masks
    and held values in it.
    """
    from masksweep.sweeps.report import export, html_page, plots, recommendation
    from masksweep.sweeps.report.baseline import DEFAULT_BASELINE
    from masksweep.sweeps.report.merge import combine
    from masksweep.sweeps.tracking.frames import load
    from masksweep.sweeps.tracking.stored_sweep import load_sweeps

    with TemporaryDirectory() as folder:
        with show_status("Reading the sweep"):
            sweep = combine(load_sweeps(options.sweep or None, options.uri, Path(folder)))
            loaded = load([part.run_id for part in sweep.single_sweeps], options.uri)
        if not sweep.outcomes:
            raise Invalid("sweep", sweep.name, _reasons(sweep.left_out) or "no trial has ended")
        labels = dict.fromkeys(o.trial.label for o in sweep.outcomes)
        if options.baseline is not None and options.baseline not in labels:
            raise Invalid("--baseline", options.baseline, f"one of {', '.join(labels)}")
        with show_status("Drawing"):
            images = plots.draw_plots(sweep.outcomes)
            html = html_page.page(sweep, images, options.baseline or DEFAULT_BASELINE)
            files = {"report.html": html.encode()}
            images = plots.draw_plots(sweep.outcomes, "png")
            sentences = recommendation.sentences(sweep.outcomes)
    files |= {f"{name}.png": content for name, content in images.items()}
    for name, frame in loaded._asdict().items():
        files |= export.files(name, frame[frame["run_id"].isin(sweep.runs)])
    return sweep, files, sentences
