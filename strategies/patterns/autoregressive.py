"""The `autoregressive` pattern: output `i` depends on the inputs before `i` only (MADE)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from masksweep.strategies.errors import require
from masksweep.strategies.patterns.base import Pattern, Shapes
from masksweep.strategies.patterns.drawing import raw
from masksweep.strategies.plan import Mask
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Autoregressive(Pattern):
    """A chain of Dense kernels in which output `i` depends on the inputs before `i` only (MADE).

    Each unit has a degree. Input `i` has the degree `i + 1`. A hidden unit has a degree from 1 to
    `inputs - 1`, and keeps the units before it of the same or a lower degree. An output keeps the
    units of a lower degree. If there are more outputs than inputs, they are grouped by input: with
    two outputs for each, the first two belong to input 0. Output 0 depends on its bias alone.

    All kernels are targeted by default, with the last one. Otherwise target those of the whole
    chain, in the model's order. A weight with one axis, such as a bias, is kept whole.

    Raises:
        Invalid: Fewer than two kernels are targeted, they are not a chain, or the number of outputs
            is not a multiple of the number of inputs.

    Example:
        >>> shapes = {"hidden/kernel": (3, 4), "output/kernel": (4, 3)}
        >>> masks = Autoregressive().masks(shapes, seed=0)
        >>> (masks["hidden/kernel"].astype(int) @ masks["output/kernel"] > 0).astype(int)
        array([[0, 1, 1],
               [0, 0, 1],
               [0, 0, 0]])

    Reference:
        Germain et al., MADE, ICML 2015, arXiv:1502.03509.
    """

    name: ClassVar[str] = "autoregressive"
    default_targets: ClassVar[Sequence[str]] = ("*kernel",)
    shuffled: bool = False
    """Whether hidden units have random degrees, by the seed; else the degrees repeat in order."""

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        kernels = [name for name, shape in shapes.items() if len(shape) > 1]
        allowed = "two or more kernels, with that of the output layer"
        require(len(kernels) > 1, "targets", list(shapes), allowed)
        masks_by_name = {name: np.ones(shape, bool) for name, shape in shapes.items()}
        inputs = shapes[kernels[0]][0]
        require(inputs > 1, "targets", kernels[0], "a kernel with two inputs or more")
        degrees = np.arange(1, inputs + 1)
        for name in kernels:
            shape = shapes[name]
            allowed = f"a kernel [{len(degrees)}, units], as the kernel before it has these outputs"
            require(len(shape) == 2 and shape[0] == len(degrees), name, list(shape), allowed)
            if name == kernels[-1]:
                allowed = f"a kernel whose number of outputs is a multiple of the {inputs} inputs"
                require(shape[1] % inputs == 0, name, list(shape), allowed)
                units = np.repeat(np.arange(1, inputs + 1), shape[1] // inputs)
                masks_by_name[name] = units > degrees[:, None]
            else:
                units = self._hidden_degrees(shape[1], inputs, seed, name)
                masks_by_name[name] = units >= degrees[:, None]
            degrees = units
        return masks_by_name

    def _hidden_degrees(self, units: int, inputs: int, seed: int, name: str) -> NDArray[np.int64]:
        degrees = np.arange(units) % (inputs - 1) + 1
        if self.shuffled:
            degrees = degrees[np.argsort(raw(units, seed, name), kind="stable")]
        return degrees
