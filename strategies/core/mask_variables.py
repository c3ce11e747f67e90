"""The variables of a masked weight in a training: its mask, held values and trained values."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import keras
import numpy as np

from masksweep.strategies.base import Array, Binding, Invalid, MaskedWeight
from masksweep.strategies.core import keras_internals


class MaskVariables:
    """The variables that have the mask and the held values of one masked weight.

    The audit uses `kept` (the mask) and `held` (the held values), both in the weight's shape. The
    strategy computes with `layout` and `rest`, which are `m` and `h` of its binding.
    """

    def __init__(self, weight: MaskedWeight, binding: Binding) -> None:
        layout, rest = binding.constants(weight)
        self.kept, self.held = _constant(weight.mask, "kept"), _constant(weight.held, "held")
        self.layout = self.kept if layout is weight.mask else _constant(layout, "layout")
        self.rest = self.held if rest is weight.held else _constant(rest, "rest")

    def arrays(self, weight: MaskedWeight, binding: Binding) -> tuple[Array, Array, Array, Array]:
        """Returns (kept, layout, held, rest) for another mask or other held values of this weight.

        If there is one held value for all entries, but the variable has one for each entry, the
        value is repeated.

        Raises:
            Invalid: (key `plan`) `layout` or `rest` does not have the shape of its variable.
        """
        layout, rest = binding.constants(weight)
        rest = rest if rest.shape else np.broadcast_to(rest, tuple(self.rest.shape))
        if (layout.shape, rest.shape) != (tuple(self.layout.shape), tuple(self.rest.shape)):
            allowed = "masks of other sizes, or held values of another kind, than at the start"
            raise Invalid("plan", weight.weight.name, allowed)
        return weight.mask, layout, weight.held, rest

    def distinct(self, arrays: Sequence[Any]) -> list[Any]:
        """Returns one array of (kept, layout, held, rest) for each variable, without repetitions.

        `layout` may be the same variable as `kept`, and `rest` the same as `held`.
        """
        variables = self.kept, self.layout, self.held, self.rest
        return list({id(v): array for v, array in zip(variables, arrays, strict=True)}.values())

    @property
    def variables(self) -> list[Any]:
        """The variables, each once: two to four."""
        return self.distinct((self.kept, self.layout, self.held, self.rest))

    def assign(self, arrays: Sequence[Array]) -> None:
        """Sets the variables to the arrays that the method `arrays` returned."""
        for variable, array in zip(self.variables, self.distinct(arrays), strict=True):
            variable.assign(array)


def _constant(array: Array, name: str) -> Any:
    return keras.Variable(array, dtype=str(array.dtype), trainable=False, name=name)


def trained_variable(variable: Any, start: Any) -> Any:
    """Returns the variable for the values that train, set to their start.

    If these values have the shape of the weight, this is the weight's own variable. Otherwise it is
    a new variable that an optimizer treats as the weight's own.

    Args:
        variable: The weight's own variable.
        start: Values at the start, a tensor of any shape.
    """
    if start.shape == variable.shape:
        variable.assign(start)
        return variable
    with ExitStack() as scopes:
        for part in variable.path.split("/")[:-1]:
            scopes.enter_context(keras.name_scope(part))
        new_variable = keras.Variable(start, dtype=variable.dtype, name=variable.name)
    new_variable.constraint = variable.constraint
    # optimizers identify variables by this, for example those without weight decay
    keras_internals.treat_as(new_variable, variable)
    return new_variable
