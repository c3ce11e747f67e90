"""Finds the git commit of this code, if the code is in a git work tree."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

TIMEOUT_SECONDS = 3.0
"""Seconds that git may take."""


@cache
def commit() -> str:
    """Returns `commit_of` for this code. Cached: git takes longer than many small steps."""
    return commit_of(Path(__file__).resolve().parents[1])


def commit_of(package: Path) -> str:
    """Returns the commit of a package, and whether its code has changed since then.

    Args:
        package: Folder of the package, next to the folders of the other packages.

    Returns:
        The hash of the commit, followed by " with changes" if there are any. It names no path,
        branch or person. Empty if the package is in no commit, or git does not answer in time.
    """
    try:
        # the package may be installed within the work tree of another project: then it is not in
        # that project's commit, and this fails
        head = _git(package, "rev-parse", "HEAD", "HEAD:./__init__.py").split()[0]
        # other files in the work tree, such as results, do not change the code
        code = (f"../{name}" for name in ("sweeps", "strategies", "conf"))
        status = _git(package, "status", "--porcelain", "--", *code)
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    return f"{head} with changes" if status else head


def _git(folder: Path, *arguments: str) -> str:
    # in a git hook of another repository, GIT_DIR would point to that repository
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    # without optional locks, because `git status` would otherwise write to the repository
    process = subprocess.run(
        ["git", "--no-optional-locks", "-C", str(folder), *arguments],
        env=env,
        check=True,
        timeout=TIMEOUT_SECONDS,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    return process.stdout
