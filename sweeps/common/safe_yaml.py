"""YAML files from elsewhere: plain data, and no more of it than is there."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Any

import yaml


class TooLarge(ValueError):
    """The file has more in it than it may have."""


def read(path: Path, most: int, values: float = inf) -> tuple[str, Any]:
    """A YAML file's text, and what it says.

    Args:
        path: The file.
        most: Size that it may have, in bytes, also with its aliases written out.
        values: Number of values that it may have, likewise.

    Returns:
        The text and the plain data.

    Raises:
        ValueError: In one line: there is no file, it is larger (`TooLarge`), or it is not YAML in
            UTF-8 that holds plain values.
    """
    try:
        if not path.is_file():  # a pipe would be waited for
            raise ValueError("no file")
        if (size := path.stat().st_size) > most:
            raise TooLarge(f"has {size} bytes, more than {most} bytes")
        text = path.read_bytes().decode()
        loader = _Loader(text, values)
        node = loader.get_single_node()
        if _size(node, {}) > most or _size(node, {}, each=1) > values:
            raise ValueError("aliases, of which a few can stand for any number of values")
        found = None if node is None else loader.construct_document(node)
        str(found)  # a number may be too long to be written out
        return text, found
    except TooLarge:
        raise
    except Exception as error:  # YAML's constructors raise some ten kinds
        said = (str(error).strip().splitlines() or [repr(error)])[0]
        raise ValueError(f"not readable as YAML: {said}") from error


class _Loader(yaml.SafeLoader):
    def __init__(self, text: str, values: float) -> None:
        super().__init__(text)
        self._values, self._read = values, 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._read += 1
        if self._read > self._values:  # at once: the rest would take long to read
            raise TooLarge(f"has more than {self._values:,} values")
        return super().compose_node(parent, index)


def _size(node: Any, known: dict[int, float], each: int = 0) -> float:
    """How long it is with its aliases written out, roughly; infinite if it holds itself.

    Counts values instead if `each` counts as one.
    """
    if not isinstance(node, yaml.CollectionNode):
        return each or 1.0 + (len(node.value) if node else 0)
    if id(node) not in known:
        known[id(node)] = inf
        inner = [part for item in node.value for part in (item if type(item) is tuple else [item])]
        known[id(node)] = 1 + sum(_size(part, known, each) for part in inner)
    return known[id(node)]
