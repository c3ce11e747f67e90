"""Access to things that only some tests need: the extra `system`, PostgreSQL, a browser."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Skips the test because something is not installed; fails it if `CI` is set."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def module(name: str) -> ModuleType:
    """Imports a module of the extra `system`; skips the test if it is missing."""
    try:
        return import_module(name)
    except ModuleNotFoundError:
        missing(f"no {name} here: pip install -e '.[system]'")


def command(name: str) -> Path:
    """The path of a command of the extra `system`; skips the test if it is missing."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        missing(f"no {name} here: pip install -e '.[system]'")
    return path
