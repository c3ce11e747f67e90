"""YAML files from elsewhere: plain data, and no more of it than is there."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer


class TooLarge(ValueError):
    """The file has more in it than it may have."""


LONG_NUMBER = 1000
"""Characters of a number or a date. What YAML writes with colons takes the square of them."""


def read(path: Path, most: int, values: int, as_hydra: bool = False) -> tuple[str, Any]:
    """A YAML file's text, and what it says.

    Args:
        path: The file.
        most: Size that it may have, in bytes, also with its aliases written out.
        values: Number of values that it may have, likewise, keys included.
        as_hydra: Read it as Hydra will, with the parser in Python. The one in C is twenty times as
            fast, but there may be texts that it reads differently, and Hydra uses the other.

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
        loader = (_AsHydra if as_hydra else _Fast)(text)
        loader.allowed = values
        node = loader.get_single_node()
        if node and (_size(node, {}) > most or _size(node, {}, each=1) > values):
            raise ValueError("aliases, of which a few can stand for any number of values")
        found = None if node is None else loader.construct_document(node)
        str(found)  # a number may be too long to be written out
        return text, found
    except TooLarge:
        raise
    except Exception as error:  # YAML's constructors raise some ten kinds
        said = (str(error).strip().splitlines() or [repr(error)])[0]
        raise ValueError(f"not readable as YAML: {said}") from error


class _Limited(Composer):
    """Reads values one by one, and no more of them than it may."""

    allowed = 0
    """Number of values that may be read."""
    _read = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._read += 1
        if self._read > self.allowed:  # at once: the rest would take long to read
            raise TooLarge(f"has more than {self.allowed:,} values")
        node = super().compose_node(parent, index)
        if isinstance(node, yaml.ScalarNode) and not node.tag.endswith((":str", ":binary")):
            self._require_short(node.value)
        return node

    @staticmethod
    def _require_short(text: str) -> None:
        if len(text) > LONG_NUMBER:
            raise ValueError(f"a number of more than {LONG_NUMBER:,} characters")


class _AsHydra(_Limited, yaml.SafeLoader):
    """With the parser in Python."""


FASTEST: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Fast(_Limited, FASTEST):  # type: ignore[misc]
    """With the parser in C, where it is there."""

    def __init__(self, text: str) -> None:
        FASTEST.__init__(self, text)
        Composer.__init__(self)  # which the one in C has in its own way


def _size(node: Any, known: dict[int, float], each: int = 0) -> float:
    """How long it is with its aliases written out, roughly; infinite if it holds itself.

    Counts values instead if `each` counts as one.
    """
    if not isinstance(node, yaml.CollectionNode):
        return each or 1.0 + len(node.value)
    if id(node) not in known:
        known[id(node)] = inf
        inner = [part for item in node.value for part in (item if type(item) is tuple else [item])]
        known[id(node)] = 1 + sum(_size(part, known, each) for part in inner)
    return known[id(node)]
