"""HTML from the templates of this package. What is put into them is escaped."""

from __future__ import annotations

from importlib import resources
from typing import Any


def render(template: str, **values: Any) -> str:
    """A template of the folder `templates`, filled in.

    Args:
        template: The name of the file.
        **values: What the template is filled with. Text is escaped, unless it is `Markup`.

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
