"""Strict checks of the types of settings. Pydantic alone would convert `true` to `1`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from masksweep.strategies.errors import Invalid

CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
TYPE_DESCRIPTIONS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text, in quotes where it looks like a number",
}


def type_errors(group: str, kind: type, values: Mapping[str, Any]) -> list[Invalid]:
    """Returns an `Invalid` for each value whose type is not that of the attribute.

    The only conversion is from a whole number to a number: `true` and a text in quotes are no
    numbers, and `1.0` and `1e3` are not whole. In a list each value is checked. Attributes that
    take other than simple values are left to pydantic.

    Args:
        group: The config group, a prefix of the keys; may be empty.
        kind: The class with the annotated attributes.
        values: The values by attribute.
    """
    errors = []
    for name, value in values.items():
        allowed = _allowed(kind).get(name)
        for item in _simple_values(value) if allowed else ():
            if allowed and not (type(item) in allowed or (type(item) is int and float in allowed)):
                types_text = " or ".join(
                    text for type_, text in TYPE_DESCRIPTIONS.items() if type_ in allowed
                )
                key = ".".join(filter(None, [group, name]))
                errors.append(Invalid(key, item, f"must be {types_text}"))
                break
    return errors


def control_character_errors(key: str, value: Any) -> Iterator[Invalid]:
    """Yields an `Invalid` for each text with control characters, which could change a terminal."""
    # `repr` escapes them with a backslash, and takes a small part of the time of a search
    if "\\" in repr(value):
        yield from _control_character_errors(key, value)


def _control_character_errors(key: str, value: Any) -> Iterator[Invalid]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _control_character_errors(".".join(filter(None, [key, str(name)])), inner)
            yield from _control_character_errors(key, str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _control_character_errors(key, inner)
    elif isinstance(value, str) and CONTROL_CHARACTER.search(value):
        yield Invalid(key, value, "no control characters")


@cache
def _allowed(kind: type) -> dict[str, frozenset[type] | None]:
    """Returns the simple types that each attribute takes, or None if it takes other types too."""
    return {name: _simple_types(hint) for name, hint in get_type_hints(kind).items()}


def _simple_types(hint: Any) -> frozenset[type] | None:
    """Returns the simple types of an annotation, or None if it allows other types too."""
    if get_origin(hint) is Literal:
        return frozenset(type(value) for value in get_args(hint)) | {str}
    if hint in TYPE_DESCRIPTIONS or hint is NoneType:
        return frozenset({hint})
    inner = [_simple_types(part) for part in get_args(hint) if part is not ...]
    if get_origin(hint) is None or None in inner or get_origin(hint) is dict:
        return None
    return frozenset(t for types in inner if types for t in types)


def _simple_values(value: Any) -> Iterator[Any]:
    """Yields the simple values of a value or of nested lists."""
    if isinstance(value, list | tuple):
        for inner in value:
            yield from _simple_values(inner)
    elif type(value) in TYPE_DESCRIPTIONS:
        yield value
