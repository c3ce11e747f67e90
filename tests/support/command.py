"""Runs the command `masksweep` in a child process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.light_process import HEAVY

WITHOUT_HEAVY = f"""
import sys
from masksweep.sweeps.cli.main import main
code = main(sys.argv[1:])
loaded = set({HEAVY}) & set(sys.modules)
assert not loaded, f"loaded {{loaded}}"
sys.exit(code)
"""


def masksweep(
    *arguments: str, cwd: Path, light: bool = False, **more: str
) -> subprocess.CompletedProcess[str]:
    """Runs the command and waits for its end.

    Args:
        *arguments: The command's arguments.
        cwd: Its current folder.
        light: Whether to fail if it loads TensorFlow, Ray or MLflow.
        **more: Additional environment variables.
    """
    program = ["-c", WITHOUT_HEAVY] if light else ["-m", "masksweep.sweeps.cli"]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HYDRA_", "MLFLOW_"))} | more
    return subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        encoding=more.get("PYTHONIOENCODING"),
        env=env,
    )


def complaint(process: subprocess.CompletedProcess[str]) -> str:
    """Checks that the command refused bad input, and returns its message."""
    assert process.returncode == 2, process.stderr
    assert "Traceback" not in process.stderr
    lines = process.stderr.splitlines()
    assert lines[-1].startswith("masksweep: ")
    assert all(line.endswith("...") for line in lines[:-1])
    return lines[-1].removeprefix("masksweep: ")
