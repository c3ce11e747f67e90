"""The command `report`: a sweep as a page, pictures, tables, and a few sentences."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.text import Text

from strategies.base import Invalid
from sweeps.progress import doing
from sweeps.store import Away, Refused, store_uri
from sweeps.uri import shown


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Invalid("report", "", f"{message}; see masksweep report --help")


def report(arguments: Sequence[str]) -> int:
    """`masksweep report [SWEEP]`: write what came out of a sweep, and log it to the sweep's run.

    Raises `Invalid` where there is no such sweep, or nothing in it to tell.
    """
    parser = _Parser("masksweep report", description="What came out of a sweep, as a page.")
    parser.add_argument("sweep", nargs="?", help="name or run id; default: the latest")
    parser.add_argument("--out", default="report", metavar="FOLDER", help="default: report")
    parser.add_argument("--uri", help="as tracking.uri; default: the store that run uses")
    given = parser.parse_args(arguments)
    folder = Path(given.out)
    if not folder.absolute().parent.is_dir() or (folder.exists() and not folder.is_dir()):
        raise Invalid("--out", given.out, "a folder, in one that is there")
    from sweeps import advice, figures, page, reader, tracker

    try:
        with doing("Reading the sweep"):
            sweep = reader.outcomes(given.sweep, given.uri)
            trials, curves = reader.load(sweep.run_id, given.uri)
        if not sweep.outcomes:
            raise Invalid("sweep", sweep.name, "; ".join(sweep.left_out) or "no trial has ended")
        with doing("Drawing"):
            files = {"report.html": page.page(sweep, figures.all_of(sweep.outcomes)).encode()}
            drawn = figures.all_of(sweep.outcomes, "png")
        files |= {f"{name}.png": content for name, content in drawn.items()}
        files["trials.csv"] = trials.to_csv(index=False).encode()
        files["curves.csv"] = curves.to_csv(index=False).encode()
    except (Away, Refused) as error:
        raise Invalid("tracking.uri", shown(store_uri(given.uri)), str(error)) from error
    try:
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise Invalid("--out", given.out, f"cannot be written: {error.strerror}") from error
    console = Console()
    for about, told in advice.sentences(sweep.outcomes):
        console.print(Text.assemble((f"{about}: ", "bold"), told))
    print(f"\nWritten: {folder / 'report.html'}, and {len(files) - 1} files beside it")
    try:
        with doing("Logging it to the sweep's run"):
            tracker.attach(given.uri, sweep.run_id, files, "report")
    except (Away, Refused) as error:
        print(f"masksweep: not logged in MLflow: {error}", file=sys.stderr)
        return 1
    return 0
