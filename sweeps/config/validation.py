"""Objects by name: a registry of frozen dataclasses turns config sections into values.

A config names things and gives their knobs; it can import and call nothing (no `_target_`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from masksweep.strategies.base import Invalid
from masksweep.sweeps.common import strict

PLAIN = {
    "tuple_type": "must be a list, as [1,2]",
    "list_type": "must be a list, as [a,b]",
    "dict_type": "must be keys and values",
    "model_type": "must be keys and values",
    "string_too_short": "must not be empty",
}
"""What a person is told in place of some of pydantic's sentences, by its names of them."""


class Several(Invalid):
    """Values that are not allowed, all that were found. By itself it is the first of them."""

    def __init__(self, faults: Sequence[Invalid]) -> None:
        first = faults[0]
        super().__init__(first.key, first.value, first.allowed)
        self.faults = list({str(f): f for each in faults for f in all_of(each)}.values())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.faults,)


def all_of(error: Invalid) -> list[Invalid]:
    """Each fault that an error says, one by one."""
    return error.faults if isinstance(error, Several) else [error]


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
    allowed = f"{name} has {', '.join(known)}" if known else f"{name} has no settings"
    allowed = f"unknown key; {allowed} (choose one with {group}={name})"
    faults = [Invalid(f"{group}.{k}", knobs[k], allowed) for k in knobs if k not in known]
    faults += strict.faults(group, kind, knobs)
    refused = {fault.key for fault in faults}
    try:
        built = _adapter(kind).validate_python(
            {k: v for k, v in knobs.items() if f"{group}.{k}" not in refused}
        )
    except ValidationError as error:
        faults += explain(error, group)
    if faults:
        raise Several(faults)
    return built


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    """Making one takes longer than validating a whole trial."""
    return TypeAdapter(kind)


def explain(error: ValidationError, group: str = "") -> list[Invalid]:
    """Each of pydantic's complaints as an `Invalid` with its dotted key."""
    return [fault for each in error.errors() for fault in _explained(each, group)]


def _explained(error: Any, group: str) -> list[Invalid]:
    cause = error.get("ctx", {}).get("error")
    where = [str(part) for part in error["loc"] if not str(part).startswith("function-")]
    if isinstance(cause, Invalid):
        inner = [*filter(None, [group]), *where]
        return [
            each
            if each.key.startswith(f"{'.'.join(where)}.")
            else Invalid(".".join(filter(None, [*inner, each.key])), each.value, each.allowed)
            for each in all_of(cause)
        ]
    key = ".".join([*filter(None, [group]), *where])
    if error["type"] == "extra_forbidden":
        return [Invalid(key, error["input"], "unknown key")]
    if error["type"] == "missing":
        if isinstance(error["loc"][-1], int):  # of a list
            return [Invalid(key.rpartition(".")[0], error["input"], "must have more values")]
        return [Invalid(key, "", "missing")]
    message = error["msg"].removeprefix("Value error, ")
    said = PLAIN.get(error["type"], message[:1].lower() + message[1:])
    return [Invalid(key, "null" if error["input"] is None else error["input"], said)]


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
