"""The summary of a masked model: its sparsity and its FLOPs, as a value that prints as a table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from masksweep.strategies.core.flops import flops, positions
from masksweep.strategies.core.raw_products import Positions
from masksweep.strategies.core.weight_summary import WeightSummary, summarize, whole
from masksweep.strategies.core.weights import all_weights, describe
from masksweep.strategies.errors import Invalid
from masksweep.strategies.keras_model.masked_model import MaskedModel, require_masked
from masksweep.strategies.keras_model.sparse_dense import SparseDense, sparse_layers
from masksweep.strategies.keras_model.table import table
from masksweep.strategies.plan import Plan


@dataclass(frozen=True)
class Summary:
    """The result of `summary`. It prints as a table."""

    weights: tuple[WeightSummary, ...]
    unknown: str = ""
    """Why FLOPs are unknown. Empty if they are known."""

    @property
    def whole(self) -> WeightSummary:
        """The sums over all weights; its shape is the number of their entries."""

        return whole("all", self.weights)

    @property
    def density(self) -> float:
        """Fraction of all entries of the model's weights that train, in [0, 1]."""
        return self.whole.density

    @property
    def sparsity(self) -> float:
        """Fraction of all entries of the model's weights that is masked, in [0, 1]."""
        return self.whole.sparsity

    def __str__(self) -> str:
        rows = [
            [w.name, " x ".join(f"{n:,}" for n in w.shape), f"{w.density:.4g}",
             f"{w.sparsity:.4g}", *map(_count, (w.flops, w.masked_flops)), w.held, w.strategy]
            for w in (*self.weights, self.whole)
        ]  # fmt: skip
        header = [
            "weight",
            "shape",
            "density",
            "sparsity",
            "FLOPs",
            "as masked",
            "held",
            "strategy",
        ]
        return "\n".join(filter(None, [table(header, rows), self.unknown]))


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def summary(model: Any, inputs: Any = None) -> Summary:
    """Describes the weights of a model: what is masked, how, and what they cost.

    FLOPs are those of one sample in the forward pass: two for each multiply-add with a weight. In
    the column `as masked`, entries that are held at zero cost nothing. Entries that are held at
    another value cost as usual. `masksweep.strategies.core.flops.positions` says what is counted.

    Args:
        model: A masked model, from `apply`, or a Keras model with `SparseDense` layers.
        inputs: A batch of inputs, or symbolic inputs such as `keras.Input((20,))`. Needed only to
            count the FLOPs of a model that does not tell the sizes of its inputs, for example
            because sequences may have any length.

    Returns:
        One entry for each weight that trains, or would if its layer were not frozen, in the model's
        order. It prints as a table.

    Raises:
        Invalid: It is not a masked model and has no `SparseDense`, or it cannot be called on the
            inputs that are given.

    Example:
        >>> import keras
        >>> from masksweep import strategies
        >>> layers = [keras.Input((4,)), keras.layers.Dense(8, name="hidden"),
        ...           keras.layers.Dense(1, use_bias=False, name="output")]
        >>> masked = strategies.apply(keras.Sequential(layers), strategies.Random(0.75))
        >>> print(strategies.summary(masked))
        weight         shape  density  sparsity  FLOPs  as masked  held  strategy
        hidden/kernel  4 x 8     0.25      0.75     64         16     0  hard_mask
        hidden/bias        8        1         0      0          0
        output/kernel  8 x 1        1         0     16         16
        all               48      0.5       0.5     80         32
    """
    sparse = sparse_layers(model)
    if not sparse:
        require_masked(model)
    plan, strategies = Plan(), dict[str, str]()
    if isinstance(model, MaskedModel):
        plan = model.plan
        strategies = {name: s.name for name, s in model.holding.strategies.items()}
        model = model.model
    counts, unknown = _positions(model, inputs)
    described = describe(model, all_weights(model))
    shapes = {weight.name: weight.shape for weight in described}
    weights = summarize(shapes, plan, strategies, counts)
    return Summary(
        tuple(
            _of_layer(w.name, sparse[w.name], counts[w.name]) if w.name in sparse else w
            for w in weights
        ),
        unknown,
    )


def _of_layer(name: str, layer: SparseDense, count: Positions) -> WeightSummary:
    """Describes the kernel of a `SparseDense` as the dense kernel with its entries masked."""
    kept, size = math.prod(layer.values.shape), math.prod(layer.shape)
    return WeightSummary(
        name=name,
        shape=layer.shape,
        masked=size - kept,
        flops=flops(count, size),
        masked_flops=flops(count, kept),
        held="0",
        strategy="SparseDense",
    )


def _positions(model: Any, inputs: Any) -> tuple[dict[str, int | None], str]:
    """Returns the positions of each weight, and why some are unknown."""
    try:
        counts = positions(model, inputs)
    except Invalid as error:
        if inputs is not None:
            raise
        names = [w.name for w in describe(model, all_weights(model))]
        return dict.fromkeys(names), f"FLOPs are unknown: {error}"
    unknown = [name for name, count in counts.items() if count is None]
    why = f"FLOPs are unknown: the products with {', '.join(unknown)} cannot be counted"
    return counts, why if unknown else ""
