"""Names of weights that do not depend on what else was built in the process."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any


class WeightName(str):
    """A name that has a counter of Keras in it, such as `dense_7/kernel`.

    Keras numbers the layers without a name of their own through the process: the same model has
    other names when it is built again, or loaded. Random masks and files go by `stable`, in which
    the layers are numbered within the model, as `dense/kernel`.

    Args:
        name: The name.
        stable: The name with the numbers within the model.
    """

    stable: str

    def __new__(cls, name: str, stable: str) -> WeightName:
        weight_name = super().__new__(cls, name)
        weight_name.stable = stable
        return weight_name

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]
        return str(self), self.stable


def stable(name: str) -> str:
    """Returns the name that does not depend on what else was built in the process."""
    return name.stable if isinstance(name, WeightName) else name


def layer_of(name: str) -> str:
    """Returns the name of the layer of a weight: `hidden` for `hidden/kernel`."""
    layer = name.rpartition("/")[0]
    return WeightName(layer, stable(name).rpartition("/")[0]) if stable(name) != name else layer


def stable_layer_names(layers: Sequence[Any]) -> list[str]:
    """Returns the names of layers that stand side by side, with numbers that begin again.

    A name is taken for one that Keras gave if it is that of the class, with or without a number.

    Example:
        >>> import keras
        >>> layers = [keras.layers.Dense(1, name=n) for n in ("dense_7", "hidden", "dense_9")]
        >>> stable_layer_names(layers)
        ['dense', 'hidden', 'dense_1']
    """
    counts: dict[str, int] = {}
    names = []
    for layer in layers:
        # Bidirectional puts a word before the names of its layers
        match = re.fullmatch(
            rf"((?:forward_|backward_)?{_snake_case(type(layer).__name__)})(_\d+)?", layer.name
        )
        if match:
            base = match[1]
            number = counts[base] = counts.get(base, -1) + 1
            names.append(f"{base}_{number}" if number else base)
        else:
            names.append(layer.name)
    return names


def _snake_case(name: str) -> str:
    """Returns the name that Keras makes from the name of a class, as `conv2d` from `Conv2D`."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
