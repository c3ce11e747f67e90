"""Which configs a folder's configs lead to by their defaults, and how many that comes to.

Names are compared as a file system may that knows no case: there `Zoo/a` is `zoo/a` too, in any of
Unicode's spellings of an accent.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from math import inf
from pathlib import Path
from typing import Any


def folded(name: str) -> str:
    """What names of one file have in common where the file system knows no case.

    Example:
        >>> folded("Zoo/A.yaml")
        'zoo/a.yaml'
    """
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def count(said: Mapping[Path, Mapping[Any, Any]]) -> dict[Path, float]:
    """How many configs Hydra comes to from each file, by its name in the folder, one for each way.

    Infinite where a file leads to itself, or too far. `said` is what each file says.
    """
    files = {folded(str(name)): name for name in said} | {str(name): name for name in said}
    found: dict[Path, float] = {}

    def ways(name: Path) -> float:
        if name not in found:
            found[name] = inf
            others = _led_to(name, said[name].get("defaults"))
            named = [files.get(str(other)) or files.get(folded(str(other))) for other in others]
            found[name] = 1 + sum(ways(other) for other in named if other)
        return found[name]

    for name in said:
        try:
            ways(name)
        except RecursionError:
            found[name] = inf
    return found


def _led_to(name: Path, defaults: Any) -> Iterator[Path]:
    """The files of a defaults list, by their names from the folder's root."""
    for entry in defaults if isinstance(defaults, list) else ():
        for group, names in entry.items() if isinstance(entry, dict) else [("", entry)]:
            for one in names if isinstance(names, list) else [names]:
                # before the name there may be a word, as in `override /data: digits`
                words = [str(part).split(" ")[-1] for part in (group, one) if part]
                path = f"{'/'.join(words).removesuffix('.yaml')}.yaml"
                yield Path(path[1:]) if path.startswith("/") else name.parent / path
