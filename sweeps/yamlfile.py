"""YAML files from elsewhere: plain data, and no more of it than is there."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Any

import yaml


def read(path: Path, most: int) -> tuple[str, Any]:
    """A YAML file's text, and what it says. `most` is the size that it may have, in bytes.

    Aliases count as what they stand for. Raises `ValueError` in one line where there is no file, or
    it is larger, or it is not YAML in UTF-8 that holds plain values.
    """
    try:
        if not path.is_file():  # a pipe would be waited for
            raise ValueError("no file")
        if path.stat().st_size > most:
            raise ValueError(f"more than {most} bytes")
        text = path.read_bytes().decode()
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if _size(node, {}) > most:
            raise ValueError("aliases, of which a few can stand for any number of values")
        found = None if node is None else loader.construct_document(node)
        str(found)  # a number may be too long to be written out
        return text, found
    except Exception as error:  # YAML's constructors raise some ten kinds
        said = (str(error).strip().splitlines() or [repr(error)])[0]
        raise ValueError(said) from error


def _size(node: Any, known: dict[int, float]) -> float:
    """How long it is with its aliases written out, roughly; infinite if it holds itself."""
    if not isinstance(node, yaml.CollectionNode):
        return 1.0 + (len(node.value) if node else 0)
    if id(node) not in known:
        known[id(node)] = inf
        inner = [part for item in node.value for part in (item if type(item) is tuple else [item])]
        known[id(node)] = 1 + sum(_size(part, known) for part in inner)
    return known[id(node)]
