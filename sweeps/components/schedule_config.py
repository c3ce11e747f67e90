"""Schedules from their settings in a config."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.common import strict
from masksweep.sweeps.components.schedules import SCHEDULES, Schedule


def schedule_of(choice: Any) -> Schedule | None:
    """Returns a schedule from its settings in a config; None for a constant learning rate.

    Args:
        choice: None, a schedule, its name, or a mapping with its `name` and its settings.

    Raises:
        Invalid: There is no such schedule or setting, or a setting is not allowed. The key is
            `schedule` or `schedule.SETTING`.

    Example:
        >>> schedule_of({"name": "cosine", "warmup_steps": 100})
        Cosine(warmup_steps=100, decay_steps=None, alpha=0.0)
        >>> schedule_of("constant")
    """
    if choice is None:
        return None
    schedule = choice if isinstance(choice, Schedule) else _parse(choice)
    return None if schedule == SCHEDULES["constant"]() else schedule


def _parse(choice: Any) -> Schedule:
    section = {"name": choice} if isinstance(choice, str) else choice
    name = section.get("name") if isinstance(section, Mapping) else None
    if not isinstance(name, str) or name not in SCHEDULES:
        allowed = f"must have the name of a schedule: {', '.join(SCHEDULES)}"
        raise Invalid("schedule", choice, allowed)
    settings = {str(key): value for key, value in section.items() if key != "name"}
    kind = SCHEDULES[name]
    known = [field.name for field in dataclasses.fields(kind)]
    for key, value in settings.items():
        if key not in known:
            raise Invalid(f"schedule.{key}", value, f"unknown key; {name} has {', '.join(known)}")
    for error in strict.type_errors("schedule", kind, settings):
        raise error
    try:
        return TypeAdapter(kind).validate_python(settings)
    except ValidationError as error:
        detail = error.errors()[0]
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, Invalid):
            raise Invalid(f"schedule.{cause.key}", cause.value, cause.allowed) from error
        key = ".".join(str(part) for part in ("schedule", *detail["loc"]))
        message = detail["msg"][:1].lower() + detail["msg"][1:]
        if detail["type"] == "tuple_type":
            message = "must be a list, as [1,2]"
        raise Invalid(key, detail["input"], message) from error
