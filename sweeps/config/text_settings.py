"""Converts settings back to values from the texts that MLflow stores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, get_type_hints

from pydantic import BaseModel

from masksweep.strategies.registry import STRATEGIES
from masksweep.sweeps.components.groups import GROUPS
from masksweep.sweeps.config.trial import Trial

CONSTANTS = {"None": None, "True": True, "False": False}


def parse_params(params: Mapping[str, str]) -> dict[str, Any]:
    """Returns the settings of a trial from the parameters of its run.

    Args:
        params: The text of each setting, by its key in the flat config.

    Returns:
        The value of each setting. A text stays a text if the setting is declared as a text, or if
        Python would not write a number, truth value or None in this way. A list stays a text, so
        that rows can be grouped by it.
    """
    return {key: _parse(text, _declared_type(key, params)) for key, text in params.items()}


def _parse(text: str, declared: object) -> Any:
    if declared is str or (declared == str | None and text != "None"):
        return text
    if text in CONSTANTS:
        return CONSTANTS[text]
    for kind in (int, float):
        with suppress(ValueError):
            number = kind(text)
            if math.isfinite(number) and str(number) == text:
                return number
    return text


def _declared_type(key: str, params: Mapping[str, str]) -> object:
    """Returns the declared type of a setting; None if the setting is not known here."""
    group, _, name = key.partition(".")
    if group in GROUPS or group == "compare":
        registry = GROUPS.get(group, STRATEGIES)
        component = registry.get(params.get(group, ""))
        if not name:
            return str | None
        return get_type_hints(component).get(name) if component else None
    section: Any = Trial.model_fields[group].annotation if group in Trial.model_fields else None
    if name and isinstance(section, type) and issubclass(section, BaseModel):
        return get_type_hints(section).get(name)
    return section
