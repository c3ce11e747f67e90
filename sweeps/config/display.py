"""How configs and components are shown: as flat settings, and as labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from masksweep.sweeps.config.validation import as_section


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config without nesting.

    The key `group` has the name of the group's object, and `group.key` a setting of the object.
    """
    settings: dict[str, Any] = {}
    for group, value in config.items():
        if isinstance(value, Mapping):
            settings |= {group if k == "name" else f"{group}.{k}": v for k, v in value.items()}
        else:
            settings[group] = value
    return settings


def label(value: Any, *, without: Collection[str] = ()) -> str:
    """Returns an object's name with settings that are not default, as `random(sparsity=0.9)`.

    Args:
        value: A component, such as a pattern.
        without: Settings that are not shown. If the others are long, none is.
    """
    section = as_section(value, defaults=False)
    settings = {k: v for k, v in section.items() if k not in ("name", "path", *without)}
    inner = ", ".join(f"{k}={v}" for k, v in settings.items())
    return f"{value.name}({inner})" if inner and len(inner) < 40 else str(value.name)
