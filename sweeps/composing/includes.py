"""Which configs a folder's configs lead to by their defaults, and how many that comes to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf
from pathlib import Path
from typing import Any


def count(said: Mapping[Path, Mapping[Any, Any]]) -> dict[Path, float]:
    """How many configs Hydra comes to from each file, by its name in the folder, one for each way.

    Infinite where a file leads to itself, or too far. `said` is what each file says.
    """
    found: dict[Path, float] = {}

    def ways(name: Path) -> float:
        if name not in found:
            found[name] = inf
            others = _led_to(name, said[name].get("defaults"))
            found[name] = 1 + sum(ways(other) for other in others if other in said)
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
