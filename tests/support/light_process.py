"""Runs many commands in one child process, and reports whether one has loaded a heavy package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HEAVY = ("tensorflow", "ray", "mlflow")
"""Packages that a command must not load if it only answers, plans or refuses."""
LEFT_OUT = ("HYDRA_", "MLFLOW_", "COLUMNS", "LINES")
"""Environment variables that a command must not get from the tests, by their first letters."""
SERVE = f"""
import io, json, os, sys, traceback
from contextlib import redirect_stderr, redirect_stdout
from masksweep.sweeps.cli.main import main
for line in sys.stdin:
    folder, arguments = json.loads(line)
    os.chdir(folder)
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        try:
            code = main(arguments)
        except BaseException:
            code = traceback.print_exc() or 1
    loaded = sorted(set({HEAVY}) & set(sys.modules))
    print(json.dumps([code, out.getvalue(), err.getvalue(), loaded]), flush=True)
"""


@dataclass(frozen=True)
class Answer:
    """The result of a command."""

    code: int
    out: str
    err: str
    loaded: list[str]
    """Heavy packages that the process has loaded, in this command or an earlier one."""

    @property
    def complaints(self) -> list[str]:
        """The messages of a refusal. Fails if there is none, or if a heavy package was loaded."""
        assert (self.code, self.out, self.loaded) == (2, "", []), self.err
        lines = self.err.splitlines()
        assert all(line.startswith("masksweep: ") for line in lines)
        return [line.removeprefix("masksweep: ") for line in lines]


class Light:
    """Runs commands in the child process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, folder: Path, *arguments: str) -> Answer:
        """Runs one command with `folder` as its current folder."""
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps([str(folder), arguments]), file=self._process.stdin, flush=True)
        return Answer(*json.loads(self._process.stdout.readline()))


@contextmanager
def light() -> Iterator[Light]:
    """Starts the child process, and ends it with the context."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(LEFT_OUT)}
    pipe = subprocess.PIPE
    command = [sys.executable, "-P", "-c", SERVE]  # -P: its current folder is not trusted
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env) as process:
        try:
            yield Light(process)
        finally:
            process.kill()
