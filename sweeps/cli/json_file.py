"""The JSON file that a command writes while it measures, with all that it has so far."""

from __future__ import annotations

from pathlib import Path

from masksweep.strategies.errors import Invalid


def checked_path(text: str) -> Path:
    """Returns the path that `--json` names.

    Raises:
        Invalid: It is no `.json` file, or its folder does not exist.
    """
    path = Path(text)
    if path.suffix != ".json" or not path.absolute().parent.is_dir():
        raise Invalid("--json", text, "must be a .json file in an existing folder")
    return path


def write(path: Path, text: str) -> None:
    """Replaces a file atomically: a file of this name is never half written."""
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.replace(path)
