"""Reads YAML files from other people: plain data only, with limits on size and aliases."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer


class TooLarge(ValueError):
    """The file has more bytes or values than allowed."""


MAX_NUMBER_CHARACTERS = 1000
"""Most characters of a number or a date. Parsing a number with colons takes quadratic time."""


def read(path: Path, max_bytes: int, max_values: int, as_hydra: bool = False) -> tuple[str, Any]:
    """Reads a YAML file that holds plain data.

    Args:
        path: The file.
        max_bytes: Largest size in bytes. The size with all aliases expanded counts as well.
        max_values: Largest number of values, including keys, with all aliases expanded.
        as_hydra: Whether to use the parser in Python, as Hydra does. The parser in C is twenty
            times as fast, but might read some texts differently.

    Returns:
        The text of the file, and its data.

    Raises:
        TooLarge: The file has more bytes or values than allowed. It is a `ValueError`.
        ValueError: There is no file, or it is not YAML in UTF-8 with plain values. The message is
            one line.
    """
    try:
        if not path.is_file():  # reading a pipe would block
            raise ValueError("no file")
        if (size := path.stat().st_size) > max_bytes:
            raise TooLarge(f"has {size} bytes, more than {max_bytes} bytes")
        text = path.read_bytes().decode()
        loader = (_PythonLoader if as_hydra else _FastLoader)(text)
        loader.max_values = max_values
        node = loader.get_single_node()
        if node and (_size(node, {}) > max_bytes or _size(node, {}, each=1) > max_values):
            raise ValueError("aliases, of which a few can stand for any number of values")
        data = None if node is None else loader.construct_document(node)
        str(data)  # raises an error if a number is too long to be printed
        return text, data
    except TooLarge:
        raise
    except Exception as error:  # YAML's constructors raise about ten types
        message = (str(error).strip().splitlines() or [repr(error)])[0]
        raise ValueError(f"not readable as YAML: {message}") from error


class _Limited(Composer):
    """A YAML composer that stops at a number of values and at long numbers."""

    max_values = 0
    """Largest number of values."""
    _values_read = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._values_read += 1
        if self._values_read > self.max_values:  # now, because reading on would take long
            raise TooLarge(f"has more than {self.max_values:,} values")
        node = super().compose_node(parent, index)
        if isinstance(node, yaml.ScalarNode) and not node.tag.endswith((":str", ":binary")):
            self._require_short(node.value)
        return node

    @staticmethod
    def _require_short(text: str) -> None:
        if len(text) > MAX_NUMBER_CHARACTERS:
            raise ValueError(f"a number of more than {MAX_NUMBER_CHARACTERS:,} characters")


class _PythonLoader(_Limited, yaml.SafeLoader):
    """The loader with the parser in Python."""


FASTEST_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _FastLoader(_Limited, FASTEST_LOADER):  # type: ignore[misc]
    """The loader with the parser in C, if PyYAML has it."""

    def __init__(self, text: str) -> None:
        FASTEST_LOADER.__init__(self, text)
        Composer.__init__(self)  # the parser in C does not call it


def _size(node: Any, sizes: dict[int, float], each: int = 0) -> float:
    """Returns the rough size of a node with all aliases expanded, in characters.

    Args:
        node: The node.
        sizes: Sizes of nodes that were counted before, by `id`. It is updated.
        each: Size of one scalar; 0 takes its length. With 1 the number of values is returned.

    Returns:
        The size. It is infinite if the node contains itself.
    """
    if not isinstance(node, yaml.CollectionNode):
        return each or 1.0 + len(node.value)
    if id(node) not in sizes:
        sizes[id(node)] = inf
        inner = [part for item in node.value for part in (item if type(item) is tuple else [item])]
        sizes[id(node)] = 1 + sum(_size(part, sizes, each) for part in inner)
    return sizes[id(node)]
