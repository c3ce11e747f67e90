"""Which units and inputs a mask leaves without any connection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from masksweep.strategies.base import MaskedWeight, Plan, variable_of


@dataclass(frozen=True)
class CutOff:
    """What of one kernel is cut off: all its entries are held at zero."""

    kernel: str
    units: int
    """Outputs (of a convolution: filters) without a connection to any input. A bias does not count:
    a unit that only has its bias left is cut off."""
    units_in_all: int
    inputs: int
    """Inputs (of a convolution: channels) without a connection to any output."""
    inputs_in_all: int

    def __str__(self) -> str:
        """`hidden_1/kernel 53 of 100 units, 25 of 64 inputs`."""
        units = f"{self.units} of {self.units_in_all} units" if self.units else ""
        inputs = f"{self.inputs} of {self.inputs_in_all} inputs" if self.inputs else ""
        return f"{self.kernel} {', '.join(filter(None, [units, inputs]))}"


def cut_off(plan: Plan) -> list[CutOff]:
    """What is cut off of each masked kernel, in the plan's order; also of those without any.

    The last axis of a kernel are its units, the one before it its inputs, and the axes before these
    a convolution's window. Two kinds of layers have them otherwise: a transposed convolution has
    its filters before its inputs, and a depthwise one has a unit for each input and multiplier.
    Of an `EinsumDense` kernel with more axes the last two count so, whatever its equation says.
    """
    return [_of(w) for w in plan.weights if w.weight.is_kernel and w.mask.ndim > 1]


def _of(found: MaskedWeight) -> CutOff:
    weight = found.weight
    connected = found.mask | (found.held != 0)
    pairs = connected.reshape(-1, *connected.shape[-2:]).any(axis=0)  # [inputs, units]
    if weight.layer.startswith("Conv") and weight.layer.endswith("Transpose"):
        pairs = pairs.T
    inputs = pairs.any(axis=1)
    depthwise = (
        weight.layer.startswith("Depthwise") or variable_of(weight.name) == "depthwise_kernel"
    )
    units = pairs.ravel() if depthwise else pairs.any(axis=0)
    counts = [int(np.count_nonzero(~each)) for each in (units, inputs)]
    return CutOff(weight.name, counts[0], units.size, counts[1], inputs.size)
