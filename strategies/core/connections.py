"""Counts the units and inputs of a kernel that a mask leaves without any connection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from masksweep.strategies.plan import MaskedWeight, Plan, variable_of


@dataclass(frozen=True)
class CutOff:
    """The units and inputs of one kernel that are cut off: all their entries are held at zero."""

    kernel: str
    units: int
    """Number of units (for a convolution: filters) without a connection to any input. A bias does
    not count: a unit is cut off if only its bias is left."""
    units_in_all: int
    """Number of units of the kernel."""
    inputs: int
    """Number of inputs (for a convolution: channels) without a connection to any unit."""
    inputs_in_all: int
    """Number of inputs of the kernel."""

    def __str__(self) -> str:
        """Returns a text such as `hidden_1/kernel 53 of 100 units, 25 of 64 inputs`."""
        units = f"{self.units} of {self.units_in_all} units" if self.units else ""
        inputs = f"{self.inputs} of {self.inputs_in_all} inputs" if self.inputs else ""
        return f"{self.kernel} {', '.join(filter(None, [units, inputs]))}"


def cut_off(plan: Plan) -> list[CutOff]:
    """Counts the units and inputs that are cut off in each masked kernel.

    The last axis of a kernel has its units, the axis before it its inputs, and the other axes are
    the window of a convolution. Two kinds of layers differ: a transposed convolution has its
    filters before its inputs, and a depthwise convolution has a unit for each pair of an input and
    a multiplier. An `EinsumDense` kernel has its inputs on its first axes and its units on the
    others, as its equation says; if that is another product, it is taken as said first.

    Returns:
        One entry for each masked kernel, in the plan's order, even if nothing of it is cut off.
    """
    return [_of(w) for w in plan.weights if w.weight.is_kernel and w.mask.ndim > 1]


def _of(masked_weight: MaskedWeight) -> CutOff:
    weight = masked_weight.weight
    connected = masked_weight.mask | (masked_weight.held != 0)
    if weight.input_axes:
        pairs = connected.reshape(weight.matrix_shape)
    else:
        pairs = connected.reshape(-1, *connected.shape[-2:]).any(axis=0)  # [inputs, units]
    if weight.layer.startswith("Conv") and weight.layer.endswith("Transpose"):
        pairs = pairs.T
    inputs = pairs.any(axis=1)
    depthwise = (
        weight.layer.startswith("Depthwise") or variable_of(weight.name) == "depthwise_kernel"
    )
    units = pairs.ravel() if depthwise else pairs.any(axis=0)
    counts = [int(np.count_nonzero(~connections)) for connections in (units, inputs)]
    return CutOff(weight.name, counts[0], units.size, counts[1], inputs.size)
