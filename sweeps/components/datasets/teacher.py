"""A generated regression: the outputs of a random network with a known sparse mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from masksweep.strategies.errors import require
from masksweep.strategies.patterns.drawing import keep_lowest, normal, raw
from masksweep.strategies.plan import Mask
from masksweep.strategies.registry import register
from masksweep.sweeps.components.datasets.arrays import Task
from masksweep.sweeps.components.datasets.base import DataSet, hold_out
from masksweep.sweeps.components.datasets.named import Split


@register
@dataclass(frozen=True)
class Teacher(DataSet):
    """Outputs of a random sparse network, the teacher, for a student to recover; generated.

    `y = f(x W1) W2` with normally distributed inputs `x`. The kernel `W1 [inputs, units]` has
    `connections` entries that are not zero, at random places, and `W2 [units, targets]` is dense.
    The entries have a random sign and a magnitude from 0.5 to 1.5, scaled so that the sums have a
    deviation of about 1. There are no biases. A fifth of the samples is held out for the test.

    A trial on these data records `recovery/precision` and `recovery/recall`: how much of the mask
    of `W1` the student's mask has at the end. With a schedule, `schedule.json` and `schedule.png`
    have them at each change.

    Raises:
        Invalid: A setting is outside its range.

    Example:
        >>> data = Teacher(inputs=3, units=2, connections=4)
        >>> data.true_mask().shape, int(data.true_mask().sum())
        ((3, 2), 4)
    """

    name: ClassVar[str] = "teacher"
    task: ClassVar[Task] = "regression"
    inputs: int = 32
    """Number of inputs."""
    units: int = 16
    """Number of hidden units of the teacher."""
    targets: int = 8
    """Number of outputs."""
    connections: int = 64
    """Number of connections between the inputs and the hidden units."""
    activation: Literal["relu", "tanh"] = "relu"
    """Activation of the hidden units."""
    noise: float = 0.0
    """Deviation of the normal noise of the targets, relative to the deviation of the outputs."""
    count: int = 5000
    """Number of samples, those of the test included."""
    seed: int = 0
    """Seed of the teacher and of the samples. It is the same for all seeds of the trials."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("inputs", "units", "targets"):
            value = getattr(self, key)
            require(value >= 1, key, value, "1 or more")
        size = self.inputs * self.units
        allowed = f"from 1 to {size}, inputs * units"
        require(1 <= self.connections <= size, "connections", self.connections, allowed)
        require(self.activation in ("relu", "tanh"), "activation", self.activation, "relu or tanh")
        require(0 <= self.noise < np.inf, "noise", self.noise, "0 or above")
        require(self.count >= 10, "count", self.count, "10 or more")
        require(self.seed >= 0, "seed", self.seed, "0 or above")

    def true_mask(self) -> Mask:
        """Returns which inputs are connected to which hidden units, `[inputs, units]`."""
        scores = raw(self.inputs * self.units, self.seed, "teacher/mask")
        return keep_lowest(scores.reshape(self.inputs, self.units), self.connections)

    def kernels(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns the teacher's kernels, `[inputs, units]` and `[units, targets]`."""
        mean_fan_in = self.connections / self.units
        first = self._signed((self.inputs, self.units), "teacher/first") / np.sqrt(mean_fan_in)
        second = self._signed((self.units, self.targets), "teacher/second") / np.sqrt(self.units)
        return np.where(self.true_mask(), first, 0.0), second

    def samples(self) -> tuple[Split, Split]:
        first, second = self.kernels()
        # the targets follow from the inputs as the student gets them, in float32
        x = normal(self.count * self.inputs, self.seed, "teacher/inputs").astype(np.float32)
        x = x.reshape(self.count, self.inputs)
        sums = x.astype(np.float64) @ first
        y = (np.tanh(sums) if self.activation == "tanh" else np.maximum(sums, 0)) @ second
        if self.noise:
            noise = normal(y.size, self.seed, "teacher/noise").reshape(y.shape)
            y += self.noise * y.std(axis=0) * noise
        return hold_out(x, y.astype(np.float32), self.name)

    def _signed(self, shape: tuple[int, ...], name: str) -> NDArray[np.float64]:
        """Random numbers with magnitudes from 0.5 to 1.5, half of them negative on average."""
        uniform = (raw(int(np.prod(shape)), self.seed, name) >> np.uint64(11)) / 2.0**53
        signed = 4 * uniform.reshape(shape) - 2  # from -2 to 2
        values: NDArray[np.float64] = np.where(signed < 0, -1, 1) * (np.abs(signed) / 2 + 0.5)
        return values
