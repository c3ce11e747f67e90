"""What some tests need and others can do without: the extra `system`, PostgreSQL, a browser."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Skip a test because of something that is not here; where CI is set, fail."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def module(name: str) -> ModuleType:
    """A module of the extra `system`."""
    try:
        return import_module(name)
    except ModuleNotFoundError:
        missing(f"no {name} here: pip install -e '.[system]'")


def command(name: str) -> Path:
    """A command of the extra `system`."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        missing(f"no {name} here: pip install -e '.[system]'")
    return path
