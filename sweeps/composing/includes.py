"""Counts the configs that the configs of a folder include through their defaults lists.

Names are compared as on a file system that ignores case, where `Zoo/a` and `zoo/a` are the same
file. The different Unicode forms of an accented letter count as equal too.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from math import inf
from pathlib import Path
from typing import Any


def fold_case(name: str) -> str:
    """Returns a form of a file name that is equal for names which differ in case only.

    Example:
        >>> fold_case("Zoo/A.yaml")
        'zoo/a.yaml'
    """
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def count_included(contents: Mapping[Path, Mapping[Any, Any]]) -> dict[Path, float]:
    """Returns how many configs Hydra reads for each file, including the file itself.

    A config that is included along several paths counts once for each path.

    Args:
        contents: The content of each file, by its path relative to the folder.

    Returns:
        The number for each file. It is infinite if a file includes itself, or includes are nested
        too deeply.
    """
    files = {fold_case(str(name)): name for name in contents} | {
        str(name): name for name in contents
    }
    counts: dict[Path, float] = {}

    def count_from(name: Path) -> float:
        if name not in counts:
            counts[name] = inf
            included = _included_files(name, contents[name].get("defaults"))
            names = map(str, included)
            known = [files.get(other) or files.get(fold_case(other)) for other in names]
            counts[name] = 1 + sum(count_from(other) for other in known if other)
        return counts[name]

    for name in contents:
        try:
            count_from(name)
        except RecursionError:
            counts[name] = inf
    return counts


def _included_files(name: Path, defaults: Any) -> Iterator[Path]:
    """Yields the files that a defaults list names, as paths relative to the folder."""
    for entry in defaults if isinstance(defaults, list) else ():
        for group, names in entry.items() if isinstance(entry, dict) else [("", entry)]:
            for config in names if isinstance(names, list) else [names]:
                # a keyword may precede the name, as in `override /data: digits`
                words = [str(part).split(" ")[-1] for part in (group, config) if part]
                path = f"{'/'.join(words).removesuffix('.yaml')}.yaml"
                yield Path(path[1:]) if path.startswith("/") else name.parent / path
