"""Runs the command `masksweep` in a child process."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from tests.support.light_process import HEAVY, LEFT_OUT

WITHOUT_HEAVY = f"""
import sys
from masksweep.sweeps.cli.main import main
code = main(sys.argv[1:])
loaded = set({HEAVY}) & set(sys.modules)
assert not loaded, f"loaded {{loaded}}"
sys.exit(code)
"""
FORKS = f"""
import json, os, sys, traceback
import masksweep.sweeps.composing.command_line, masksweep.sweeps.config.plan
from masksweep.sweeps.cli.main import main

def run(request):
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    for descriptor, name, flags in (
        (0, os.devnull, os.O_RDONLY), (1, request["stdout"], os.O_WRONLY),
        (2, request["stderr"], os.O_WRONLY),
    ):
        os.dup2(os.open(name, flags), descriptor)
    try:
        code = main(request["arguments"])
        loaded = set({HEAVY}) & set(sys.modules)
        assert not loaded, f"loaded {{loaded}}"
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        code = traceback.print_exc() or 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code

for line in sys.stdin:
    if not (child := os.fork()):
        os._exit(run(json.loads(line)))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Runs each command in a process of its own, forked from one that has imported what most load."""


def masksweep(
    *arguments: str, cwd: Path, light: bool = False, **more: str
) -> subprocess.CompletedProcess[str]:
    """Runs the command and waits for its end.

    Args:
        *arguments: The command's arguments.
        cwd: Its current folder.
        light: Whether to fail if it loads TensorFlow, Ray or MLflow. Such a command is forked from
            a process that is ready for it, which takes a tenth of the time. With a PYTHONPATH of
            its own, it needs a new process.
        **more: Additional environment variables.
    """
    env = {k: v for k, v in os.environ.items() if not k.startswith(LEFT_OUT)} | more
    if light and "PYTHONPATH" not in more:
        return _forked(arguments, cwd, env)
    program = ["-c", WITHOUT_HEAVY] if light else ["-m", "masksweep.sweeps.cli"]
    return subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        encoding=more.get("PYTHONIOENCODING"),
        env=env,
    )


def _forked(
    arguments: tuple[str, ...], cwd: Path, env: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    server = _server()
    assert server.stdin
    assert server.stdout
    with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
        request = {"arguments": arguments, "cwd": str(cwd), "env": env}
        request |= {"stdout": out.name, "stderr": err.name}
        print(json.dumps(request), file=server.stdin, flush=True)
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(arguments, code, out.read(), err.read())


@cache
def _server() -> subprocess.Popen[str]:
    """The process that forks; it lives until the end of the tests."""
    pipe = subprocess.PIPE
    # -P: the folder in which the tests run is not on its path
    command = [sys.executable, "-P", "-c", FORKS]
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    atexit.register(process.kill)
    return process


def complaint(process: subprocess.CompletedProcess[str]) -> str:
    """Checks that the command refused bad input, and returns its message."""
    assert process.returncode == 2, process.stderr
    assert "Traceback" not in process.stderr
    lines = process.stderr.splitlines()
    assert lines[-1].startswith("masksweep: ")
    assert all(line.endswith("...") for line in lines[:-1])
    return lines[-1].removeprefix("masksweep: ")
