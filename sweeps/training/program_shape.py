"""What determines the graph of a training program, and so which trials can share one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from masksweep.strategies.base import Strategy
from masksweep.strategies.plan import MaskedWeight, Plan
from masksweep.sweeps.components.datasets.arrays import Head, Task
from masksweep.sweeps.components.datasets.named import Named
from masksweep.sweeps.components.models import Model
from masksweep.sweeps.components.optimizers import Optimizer


@dataclass(frozen=True)
class Shape:
    """All that determines the graph of a program. All else enters the graph as values."""

    strategy: Strategy
    model: Model
    optimizer: Optimizer
    inputs: tuple[int, ...] | Named[tuple[int, ...]]
    """Shape of one sample, or the shapes by the names of several inputs."""
    outputs: int | Named[int]
    """Number of the model's outputs, or the numbers by the names of several outputs."""
    task: Task
    """The task; that of the first of several outputs."""
    trainable: tuple[str, ...]
    """Globs on the names of the weights that train."""
    masked: tuple[tuple[Any, ...], ...]
    """Name of each masked weight, its variant of the strategy, the shapes of its
    `Binding.constants`, and its number of kept entries if their shapes may not tell it."""
    jit: bool
    """Whether XLA compiles the training step."""
    statistics: tuple[str, ...] | None = None
    """Globs on the names of the statistics that are updated; None for those of `trainable`."""
    width: int = 1
    """Number of trials that run side by side (see `vectorized`)."""
    heads: Named[Head] | None = None
    """The outputs of a model with several; None for one output."""
    loss: str | Named[str] | None = None
    """Name of the Keras loss, or the names for several outputs; None for that of the task."""
    loss_weights: Named[float] | None = None
    """Factors of the losses of several outputs; None for 1."""
    class_weights: tuple[float, ...] | None = None
    """Weight of each class in the loss of the training; None for equal weights."""
    mixed_precision: str | None = None
    """Keras dtype policy of the model; None for `float32`."""

    @classmethod
    def of(cls, plan: Plan, strategy: Strategy, optimizer: Optimizer, **others: Any) -> Shape:
        """The shape of the program that trains `plan`.

        Args:
            plan: The masked weights, of which only names and shapes matter.
            strategy: How the masked weights are held.
            optimizer: The optimizer; its learning rate matters only if it has a schedule.
            **others: The other fields of the shape.
        """
        masked = tuple(_masked_shape(w, strategy.for_weight(w)) for w in plan.weights)
        # without a schedule the learning rate is a variable, so all rates share one program
        if optimizer.schedule is None:
            optimizer = replace(optimizer, learning_rate=1.0)
        return cls(strategy=strategy, optimizer=optimizer, masked=masked, **others)

    def of_pack(self, width: int) -> Shape:
        """The shape of the program that trains `width` trials of this shape side by side.

        The rates of a schedule are variables there, so all rates share one program.
        """
        return replace(self, width=width, optimizer=replace(self.optimizer, learning_rate=1.0))


def _masked_shape(masked: MaskedWeight, variant: Strategy) -> tuple[Any, ...]:
    """Returns an item of `Shape.masked`."""
    layout, rest = variant.bind().constants(masked)
    # if the layout is not the mask itself, there may be a value for each kept entry
    kept = None if layout is masked.mask else int(masked.mask.sum())
    return masked.weight.name, variant, layout.shape, rest.shape, kept
