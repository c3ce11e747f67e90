"""The command `masksweep selftest`: does what was promised hold on this CPU or GPU?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.cli import json_file
from masksweep.sweeps.common import escape, provenance
from masksweep.sweeps.common.parser import Parser

if TYPE_CHECKING:
    from masksweep.sweeps.bench.selftest import Finding

COLORS = {"ok": "green", "off": "yellow", "failed": "bold red"}


def selftest(arguments: Sequence[str]) -> int:
    """Runs `masksweep selftest`: checks the machine, and writes a table and a file.

    The file is rewritten after each check, so it has all that was found before an interruption.

    Args:
        arguments: The command's arguments, without the word `selftest`.

    Returns:
        The exit code: 1 if a check failed.

    Raises:
        Invalid: An argument is wrong, or there is no such device.
    """
    parser = Parser(prog="masksweep selftest", allow_abbrev=False)
    parser.add_argument("--device", default="cpu", help="cpu or gpu; default: cpu")
    parser.add_argument(
        "--json", default="selftest.json", metavar="FILE", help="where the results are written"
    )
    options = parser.parse_args(arguments)
    device, path = options.device, json_file.checked_path(options.json)
    if device not in ("cpu", "gpu"):
        raise Invalid("--device", device, "cpu or gpu")
    if device == "gpu":
        _require_gpu()

    from masksweep.sweeps.training.process import prepare_process

    prepare_process(1, float(device == "gpu"))
    import tensorflow as tf

    if device == "gpu" and not tf.config.list_physical_devices("GPU"):
        allowed = "needs a GPU that TensorFlow sees; pip install 'tensorflow[and-cuda]' brings CUDA"
        raise Invalid("--device", device, allowed)
    found = _check(device, path)
    failed = sum(finding.outcome == "failed" for finding in found)
    console = escape.console()
    console.print(_table(found))
    console.print(f"{len(found)} checks, {failed} failed. Written: {path}", highlight=False)
    return int(failed > 0)


def _require_gpu() -> None:
    """Raises `Invalid` if NVIDIA's driver finds no GPU. Does not load TensorFlow."""
    try:
        import pynvml
    except ImportError:
        raise Invalid("--device", "gpu", "needs a GPU and pip install 'masksweep[gpu]'") from None
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        count = 0
    if not count:
        raise Invalid("--device", "gpu", "needs a GPU; NVIDIA's driver finds none on this machine")


def _check(device: str, path: Path) -> list[Finding]:
    """Checks the machine, shows what is checked, and writes the file."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    from masksweep.sweeps.bench import selftest

    found: list[Finding] = []
    environment = provenance.environment() | {"code": provenance.code_version()}
    checks = selftest.checks("gpu" if device == "gpu" else "cpu")
    console = escape.console(stderr=True)
    columns = (
        BarColumn(20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(checks))
        for check in checks:
            progress.update(task, description=f"{check.part}: {check.subject}")
            found.append(finding := check.run())
            progress.advance(task)
            results = [asdict(f) for f in found]
            content = {"device": device, "environment": environment, "findings": results}
            json_file.write(path, json.dumps(content, indent=1))
            if not console.is_terminal:
                line = f"{finding.part}: {finding.subject}: {finding.outcome}: {finding.says}"
                console.out(line, highlight=False)
    return found


def _table(found: Sequence[Finding]) -> Table:
    table = Table("part", "subject", "outcome", "", box=None, pad_edge=False)
    for finding in found:
        outcome = Text(finding.outcome, COLORS[finding.outcome])
        table.add_row(finding.part, Text(finding.subject), outcome, Text(finding.says))
    return table
