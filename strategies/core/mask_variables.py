"""What a training keeps of a masked weight: its mask and held values, in variables."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import keras
import numpy as np

from masksweep.strategies.base import Array, Binding, Invalid, MaskedWeight
from masksweep.strategies.core import keras_internals


class Masked:
    """The variables of one masked weight: whether an entry is kept, and what it is held at.

    `kept` and `held`, of the weight's shape, are the audit's; `layout` and `rest` are what the
    strategy makes of them, and computes with.
    """

    def __init__(self, found: MaskedWeight, binding: Binding) -> None:
        layout, rest = binding.constants(found)
        self.kept, self.held = _constant(found.mask, "kept"), _constant(found.held, "held")
        self.layout = self.kept if layout is found.mask else _constant(layout, "layout")
        self.rest = self.held if rest is found.held else _constant(rest, "rest")

    def arrays(self, found: MaskedWeight, binding: Binding) -> tuple[Array, Array, Array, Array]:
        """(kept, layout, held, rest) of the same weight with another mask, or other held values.

        A single held value is repeated where the variable has one for each entry.

        Raises:
            Invalid: (key `plan`) The constants are of other shapes than at the start.
        """
        layout, rest = binding.constants(found)
        rest = rest if rest.shape else np.broadcast_to(rest, tuple(self.rest.shape))
        if (layout.shape, rest.shape) != (tuple(self.layout.shape), tuple(self.rest.shape)):
            allowed = "masks of other sizes, or held values of another kind, than at the start"
            raise Invalid("plan", found.weight.name, allowed)
        return found.mask, layout, found.held, rest

    def distinct(self, arrays: Sequence[Any]) -> list[Any]:
        """Of (kept, layout, held, rest), one for each variable: `layout` may be `kept` itself, and
        `rest` may be `held`.
        """
        variables = self.kept, self.layout, self.held, self.rest
        return list({id(v): each for v, each in zip(variables, arrays, strict=True)}.values())

    @property
    def variables(self) -> list[Any]:
        return self.distinct((self.kept, self.layout, self.held, self.rest))

    def assign(self, arrays: Sequence[Array]) -> None:
        """Set the variables to what `arrays` returns."""
        for variable, array in zip(self.variables, self.distinct(arrays), strict=True):
            variable.assign(array)


def _constant(array: Array, name: str) -> Any:
    return keras.Variable(array, dtype=str(array.dtype), trainable=False, name=name)


def holder(variable: Any, start: Any) -> Any:
    """The variable that holds the values that train, set to their start.

    A weight's own where they have its shape; else a new one that an optimizer takes for it.
    """
    if start.shape == variable.shape:
        variable.assign(start)
        return variable
    with ExitStack() as scopes:
        for part in variable.path.split("/")[:-1]:
            scopes.enter_context(keras.name_scope(part))
        made = keras.Variable(start, dtype=variable.dtype, name=variable.name)
    made.constraint = variable.constraint
    # Keras' optimizers know variables by this: those left out of weight decay, for example
    keras_internals.pass_for(made, variable)
    return made
