"""Losses with settings, which are kept as text, such as `huber(delta=2.0)`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite
from typing import Any

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.components.losses.keras_losses import KERAS_LOSSES

TEXT = re.compile(r"(?P<name>\w+)\((?P<settings>[^()]*)\)")
SETTING = re.compile(
    r"\s*(?P<key>\w+)\s*=\s*(?P<value>True|False|[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?)\s*"
)


def canonical_loss(name: str, settings: Mapping[str, Any]) -> str:
    """Returns the text of a loss: the same one for settings that mean the same.

    Settings that are Keras' defaults are left out.

    Args:
        name: Name of the loss. If it is unknown, its settings are not checked.
        settings: Numbers and booleans by the names of the settings.

    Raises:
        Invalid: (key: the setting) The loss has no such setting, or the value is not allowed.

    Example:
        >>> canonical_loss("huber", {"delta": 2}), canonical_loss("huber", {"delta": 1})
        ('huber(delta=2.0)', 'huber')
    """
    loss = KERAS_LOSSES.get(name)
    for key, value in settings.items():
        if type(value) not in (int, float, bool) or not isfinite(value):
            raise Invalid(key, value, "must be a finite number, true or false")
        if loss is not None:
            loss.check(key, value)
    if loss is not None:
        typed = {key: loss.typed(key, value) for key, value in settings.items()}
        settings = {k: v for k, v in typed.items() if v != loss.defaults[k]}
    texts = ", ".join(f"{key}={value!r}" for key, value in sorted(settings.items()))
    return f"{name}({texts})" if texts else name


def split_loss(text: str) -> tuple[str, dict[str, Any]]:
    """Returns the name and the settings of a loss from its text.

    Raises:
        Invalid: (empty key) The text is no name, or name with settings.

    Example:
        >>> split_loss("huber(delta=2.0)")
        ('huber', {'delta': 2.0})
    """
    if "(" not in text:
        return text, {}
    found, settings = TEXT.fullmatch(text), {}
    parts = found["settings"].split(",") if found and found["settings"].strip() else []
    for part in parts:
        setting = SETTING.fullmatch(part)
        if setting is None or setting["key"] in settings:
            found = None
            break
        settings[setting["key"]] = _value(setting["value"])
    if found is None:
        raise Invalid("", text, "must be a name, or with settings {name: huber, delta: 2}")
    return found["name"], settings


def _value(text: str) -> bool | int | float:
    if text in ("True", "False"):
        return text == "True"
    return int(text) if re.fullmatch(r"[+-]?\d{1,15}", text) else float(text)
