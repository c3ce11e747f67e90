"""Validation of config sections, and the objects that they describe.

A registry of frozen dataclasses turns a section into an object. A config gives only names and
settings: it cannot import or call anything (there is no `_target_`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.common import strict

PYDANTIC_MESSAGES = {
    "tuple_type": "must be a list, as [1,2]",
    "list_type": "must be a list, as [a,b]",
    "dict_type": "must be keys and values",
    "model_type": "must be keys and values",
    "string_too_short": "must not be empty",
}
"""Messages that replace some of pydantic's, by pydantic's error type."""


class MultipleInvalid(Invalid):
    """Several invalid values in one exception; its own key and value are those of the first one."""

    def __init__(self, faults: Sequence[Invalid]) -> None:
        first = faults[0]
        super().__init__(first.key, first.value, first.allowed)
        self.faults = list({str(f): f for error in faults for f in single_faults(error)}.values())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.faults,)


def single_faults(error: Invalid) -> list[Invalid]:
    """Returns the single faults of an error, as a list."""
    return error.faults if isinstance(error, MultipleInvalid) else [error]


def build(group: str, raw_config: Any, kinds: Mapping[str, type]) -> Any:
    """Returns the object that a config section describes.

    Args:
        group: Name of the section, for example `model`.
        raw_config: `{"name": ..., setting: ...}`, or an object of one of the kinds, which is
            returned unchanged.
        kinds: The dataclass of each allowed name.

    Raises:
        Invalid: The name or a setting is unknown, or a value is out of its range. Its key is the
            dotted key.
    """
    if isinstance(raw_config, tuple(kinds.values())):
        return raw_config
    if not isinstance(raw_config, Mapping):
        raise Invalid(group, raw_config, "a name and its settings")
    settings = {str(k): v for k, v in raw_config.items() if k != "name"}
    name = raw_config.get("name")
    if not isinstance(name, str) or name not in kinds:
        raise Invalid(f"{group}.name", name, f"unknown; one of {', '.join(kinds)}")
    kind = kinds[name]
    known = [f.name for f in dataclasses.fields(kind)]
    allowed = f"{name} has {', '.join(known)}" if known else f"{name} has no settings"
    allowed = f"unknown key; {allowed} (choose one with {group}={name})"
    faults = [Invalid(f"{group}.{k}", settings[k], allowed) for k in settings if k not in known]
    faults += strict.type_errors(group, kind, settings)
    refused = {fault.key for fault in faults}
    try:
        built = _adapter(kind).validate_python(
            {k: v for k, v in settings.items() if f"{group}.{k}" not in refused}
        )
    except ValidationError as error:
        faults += explain(error, group)
    if faults:
        raise MultipleInvalid(faults)
    return built


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    """Returns the validator of a class. Cached, because to create one takes a long time."""
    return TypeAdapter(kind)


def explain(error: ValidationError, group: str = "") -> list[Invalid]:
    """Converts each of pydantic's errors to an `Invalid` with its dotted key.

    Args:
        error: The exception of pydantic.
        group: Name of the section that was validated, which is put before each key.
    """
    return [fault for detail in error.errors() for fault in _convert(detail, group)]


def _convert(error: Any, group: str) -> list[Invalid]:
    cause = error.get("ctx", {}).get("error")
    location = [str(part) for part in error["loc"] if not str(part).startswith("function-")]
    if isinstance(cause, Invalid):
        inner = [*filter(None, [group]), *location]
        return [
            fault
            if fault.key.startswith(f"{'.'.join(location)}.")
            else Invalid(".".join(filter(None, [*inner, fault.key])), fault.value, fault.allowed)
            for fault in single_faults(cause)
        ]
    key = ".".join([*filter(None, [group]), *location])
    if error["type"] == "extra_forbidden":
        return [Invalid(key, error["input"], "unknown key")]
    if error["type"] == "missing":
        if isinstance(error["loc"][-1], int):  # the missing value is an item of a list
            return [Invalid(key.rpartition(".")[0], error["input"], "must have more values")]
        return [Invalid(key, "", "missing")]
    message = error["msg"].removeprefix("Value error, ")
    allowed = PYDANTIC_MESSAGES.get(error["type"], message[:1].lower() + message[1:])
    return [Invalid(key, "null" if error["input"] is None else error["input"], allowed)]


def as_section(value: Any, *, defaults: bool = True) -> dict[str, Any]:
    """Returns the config section that describes an object.

    Args:
        value: A dataclass of a registry.
        defaults: Whether settings with their default value are included.
    """
    return _section(value, lambda field, setting: defaults or setting != field.default)


def as_identity(value: Any) -> dict[str, Any]:
    """Returns the config section that an object has in the identity of a trial.

    Settings with their default value are left out. If a default was changed, the field has the
    earlier one as `metadata["implied"]`, and this one is left out, as it always was.

    Args:
        value: A dataclass of a registry.
    """
    return _section(
        value, lambda field, setting: setting != field.metadata.get("implied", field.default)
    )


def _section(value: Any, is_shown: Callable[[Any, Any], bool]) -> dict[str, Any]:
    settings = {field: getattr(value, field.name) for field in dataclasses.fields(value)}
    shown = {f.name: _as_plain(s) for f, s in settings.items() if is_shown(f, s)}
    return {"name": value.name, **shown}


def _as_plain(setting: Any) -> Any:
    """Converts tuples to lists, at every level, and a component within another to a section."""
    if dataclasses.is_dataclass(setting):
        return as_section(setting, defaults=False)
    return [_as_plain(item) for item in setting] if isinstance(setting, tuple) else setting
