"""Renders the HTML templates of this package. Inserted text is escaped."""

from __future__ import annotations

from importlib import resources
from typing import Any


def render(template: str, **values: Any) -> str:
    """Returns a template with its variables filled in.

    Args:
        template: Name of a file in the folder `templates`.
        **values: The variables of the template. Text is escaped, unless it is `Markup`.

    Returns:
        The HTML page.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_source), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template(template).render(values)


def _source(name: str) -> str:
    return resources.files(__package__).joinpath("templates", name).read_text("utf-8")
