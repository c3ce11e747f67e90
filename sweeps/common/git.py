"""The git commit that this code is of, where it lies in a work tree."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

PATIENCE_S = 3.0
"""How long git may take for an answer."""


@cache
def commit() -> str:
    """`of` this code, found once in a process: git takes longer than a small trial's step."""
    return of(Path(__file__).resolve().parents[1])


def of(package: Path) -> str:
    """The commit of a package's folder, and whether the code was changed since.

    It names no path, branch or person. Empty where the package is in no commit, or git does not
    answer.
    """
    try:
        # the tree around a virtual environment is of something else: this must be in its commit
        found = _git(package, "rev-parse", "HEAD", "HEAD:./__init__.py").split()[0]
        # what else lies in the tree, as results do, changes no bit
        code = (f"../{name}" for name in ("sweeps", "strategies", "conf"))
        status = _git(package, "status", "--porcelain", "--", *code)
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    return f"{found} with changes" if status else found


def _git(folder: Path, *arguments: str) -> str:
    # in a hook of another repository GIT_DIR says which one that is
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    # status would write to the tree else, where others look at it too
    done = subprocess.run(
        ["git", "--no-optional-locks", "-C", str(folder), *arguments],
        env=env,
        check=True,
        timeout=PATIENCE_S,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    return done.stdout
