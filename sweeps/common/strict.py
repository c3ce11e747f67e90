"""Numbers, words and yes or no, each as what it is: pydantic by itself makes `1` of `true`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from masksweep.strategies.base import Invalid

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text, in quotes where it looks like a number",
}


def faults(group: str, kind: type, values: Mapping[str, Any]) -> list[Invalid]:
    """What of the values is of another type than the attributes of that name.

    A whole number is a number, and that is all: `true` is none, `1.0` and `1e3` are not whole, and
    a text in quotes is none either. Within lists each value counts. Only where an attribute takes
    simple values is it looked at; what else it may be is pydantic's to say.
    """
    found = []
    for name, value in values.items():
        allowed = _allowed(kind).get(name)
        for each in _simple(value) if allowed else ():
            if allowed and not (type(each) in allowed or (type(each) is int and float in allowed)):
                said = " or ".join(word for of, word in WORDS.items() if of in allowed)
                key = ".".join(filter(None, [group, name]))
                found.append(Invalid(key, each, f"must be {said}"))
                break
    return found


def controls(key: str, value: Any) -> Iterator[Invalid]:
    """The texts that could do more in a terminal than be read."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from controls(".".join(filter(None, [key, str(name)])), inner)
            yield from controls(key, str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from controls(key, inner)
    elif isinstance(value, str) and CONTROL.search(value):
        yield Invalid(key, value, "no control characters")


@cache
def _allowed(kind: type) -> dict[str, frozenset[type] | None]:
    """By attribute, the types of simple values that it takes; None where it takes others too."""
    return {name: _types(hint) for name, hint in get_type_hints(kind).items()}


def _types(hint: Any) -> frozenset[type] | None:
    if get_origin(hint) is Literal:
        return frozenset(type(value) for value in get_args(hint)) | {str}
    if hint in WORDS or hint is NoneType:
        return frozenset({hint})
    inner = [_types(part) for part in get_args(hint) if part is not ...]
    if get_origin(hint) is None or None in inner or get_origin(hint) is dict:
        return None
    return frozenset(t for types in inner if types for t in types)


def _simple(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for inner in value:
            yield from _simple(inner)
    elif type(value) in WORDS:
        yield value
