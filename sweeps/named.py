"""Objects by name: a registry of frozen dataclasses turns config sections into values.

A config names things and gives their knobs; it can import and call nothing (no `_target_`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from strategies.base import Invalid


def build(group: str, given: Any, kinds: Mapping[str, type]) -> Any:
    """The object that `{"name": ..., knob: ...}` describes; an object of these kinds as it is.

    Raises `Invalid` with the dotted key for an unknown name or knob, or a value out of its range.
    """
    if isinstance(given, tuple(kinds.values())):
        return given
    if not isinstance(given, Mapping):
        raise Invalid(group, given, "a name and its settings")
    knobs = {str(k): v for k, v in given.items() if k != "name"}
    name = given.get("name")
    if not isinstance(name, str) or name not in kinds:
        raise Invalid(f"{group}.name", name, f"unknown; one of {', '.join(kinds)}")
    kind = kinds[name]
    known = [f.name for f in dataclasses.fields(kind)]
    for key in knobs:
        if key not in known:
            allowed = f"{name} has {', '.join(known)}" if known else f"{name} has no settings"
            allowed += f" (choose one with {group}={name})"
            raise Invalid(f"{group}.{key}", knobs[key], f"unknown key; {allowed}")
    try:
        return _adapter(kind).validate_python(knobs)
    except ValidationError as error:
        raise explain(error, group) from error


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    """Making one takes longer than validating a whole trial."""
    return TypeAdapter(kind)


def explain(error: ValidationError, group: str = "") -> Invalid:
    """The first of pydantic's complaints as one `Invalid` with its dotted key."""
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    where = [str(part) for part in first["loc"] if not str(part).startswith("function-")]
    if isinstance(cause, Invalid):
        if cause.key.startswith(f"{'.'.join(where)}."):
            return cause
        return Invalid(
            ".".join([*filter(None, [group]), *where, cause.key]), cause.value, cause.allowed
        )
    key = ".".join([*filter(None, [group]), *where])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "unknown key"
    if first["type"] == "missing":
        return Invalid(key, "", "missing")
    return Invalid(key, first["input"], message[:1].lower() + message[1:])


def knobs(value: Any, *, defaults: bool = True) -> dict[str, Any]:
    """The section of a config that describes the object; only what is not default, if asked."""
    found = {"name": value.name}
    for field in dataclasses.fields(value):
        setting = getattr(value, field.name)
        if defaults or setting != field.default:
            found[field.name] = _lists(setting)
    return found


def _lists(setting: Any) -> Any:
    return [_lists(s) for s in setting] if isinstance(setting, tuple) else setting
